"""UniFormer: convolutions in the first two stages, attention over all frames in the last two (Li et al. 2022, arXiv 2201.04676).

Reading, taken from the authors' released code for videos; the counts in `benchctl.methods.uniformer` agree with it:

- Every block starts with a depth-wise 3x3x3 convolution as a residual: its position embedding.
- A block of stages 1 and 2: batch normalisation, 1x1x1 convolution, depth-wise 5x5x5 convolution, 1x1x1 convolution as a residual;
  then batch normalisation and an MLP.
- A block of stages 3 and 4: layer normalisation and attention of all T x H x W tokens with each other; then the same with an MLP.
- Patches of stage 1 are 3 x 4 x 4 pixels, every second frame, padded by one frame at either end; those of the other stages 1 x 2 x 2
  tokens. Each is followed by layer normalisation.
- After the last block, batch normalisation, the mean of all tokens and a linear classifier.

Modules have the names that they have in published checkpoints. What attends in a block is the caller's to choose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal, Self, cast

from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from benchctl.layers.attention import BACKENDS, attend
from benchctl.layers.clip_input import ClipInput
from benchctl.layers.pretrained import RANDOM, load_pretrained
from benchctl.spec import Attention, MethodConfig, ModelSpec

# B batch, T frames, H x W grid, N heads, C channels

#: stages whose blocks attend
AttentionStage = Literal[3, 4]
Four = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]

#: patches of stages 2 to 4 are so many tokens of the stage before, along each side
_REDUCTION = 2


class UniFormerConfig(MethodConfig):
    """Sizes of one UniFormer; the defaults are those of the small one."""

    ATTENTION: ClassVar[tuple[Attention, ...]] = BACKENDS

    #: pixels that a token of the last stage spans
    patch_size: PositiveInt = 32
    #: pixels that a token of the first stage spans
    stem_stride: PositiveInt = 4
    #: blocks of each stage
    depths: Four = (3, 4, 8, 3)
    #: channels of each stage
    widths: Four = (64, 128, 320, 512)
    #: channels of a head of attention
    head_width: PositiveInt = 64
    #: channels inside an MLP, as a multiple of those outside
    mlp_ratio: PositiveInt = 4
    #: whether the first stage takes every second frame only
    temporal_downsampling: bool = True
    #: how often the last block is left out in training; earlier ones less, linearly
    drop_path: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        spanned = self.stem_stride * _REDUCTION**3
        if self.patch_size != spanned:
            raise ValueError(f"patch_size {self.patch_size} must be {spanned}: stem_stride {self.stem_stride}, halved three times")
        for width in self.widths[2:]:
            if width % self.head_width:
                raise ValueError(f"width {width} of a stage that attends is not a multiple of head_width {self.head_width}")
        return self

    def grid(self, stage: int, resolution: int) -> int:
        """Tokens along one side of a frame of `resolution` pixels, padded, in `stage` (from 1)."""
        return self.padded(resolution) // (self.stem_stride * _REDUCTION ** (stage - 1))

    def token_frames(self, frames: int) -> int:
        """Frames of tokens for a clip of `frames`."""
        return -(-frames // 2) if self.temporal_downsampling else frames


@dataclass(frozen=True)
class AttentionPlace:
    """Where something attends: a block of stage 3 or 4."""

    stage: AttentionStage
    #: of the block in its stage, from 0
    index: int
    #: C
    width: int
    heads: int
    #: T
    frames: int
    #: H = W
    grid: int


#: what attends at a place: normalised tokens (B, T, H, W, C) to what is added to the tokens
MakeAttention = Callable[[AttentionPlace], nn.Module]


class JointAttention(nn.Module):
    """Attention of all tokens of a clip with each other.

    Args:
        width: C.
        heads: a divisor of C.
        attention: backend.
    """

    def __init__(self, width: int, heads: int, attention: Attention) -> None:
        super().__init__()
        self.heads = heads
        self.attention = attention
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BTHWC: Tensor) -> Tensor:
        """(B, T, H, W, C) to the same shape."""
        query, key, value = self.qkv(x_BTHWC.flatten(1, 3)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = attend(query, key, value, self.attention).transpose(1, 2).flatten(2)
        result: Tensor = self.proj(attended).unflatten(1, x_BTHWC.shape[1:4])
        return result


class Mlp(nn.Module):
    """Two layers with GELU between them, over channels in the last dimension (`convolution`: in the first after the batch)."""

    def __init__(self, width: int, inner: int, out_width: int, *, convolution: bool = False) -> None:
        super().__init__()
        self.fc1 = nn.Conv3d(width, inner, 1) if convolution else nn.Linear(width, inner)
        self.act = nn.GELU()
        self.fc2 = nn.Conv3d(inner, out_width, 1) if convolution else nn.Linear(inner, out_width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., out_width); with convolutions (B, width, T, H, W) to (B, out_width, T, H, W)."""
        result: Tensor = self.fc2(self.act(self.fc1(x)))
        return result


class ConvBlock(nn.Module):
    """A block of stages 1 and 2."""

    def __init__(self, width: int, mlp_ratio: int, drop_path: float) -> None:
        super().__init__()
        self.pos_embed = _depthwise(width, 3)
        self.norm1 = nn.BatchNorm3d(width)
        self.conv1 = nn.Conv3d(width, width, 1)
        self.conv2 = nn.Conv3d(width, width, 1)
        self.attn = _depthwise(width, 5)
        self.drop_path = _dropped(drop_path)
        self.norm2 = nn.BatchNorm3d(width)
        self.mlp = Mlp(width, mlp_ratio * width, width, convolution=True)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """(B, C, T, H, W) to the same shape."""
        x_BCTHW = x_BCTHW + self.pos_embed(x_BCTHW)
        x_BCTHW = x_BCTHW + self.drop_path(self.conv2(self.attn(self.conv1(self.norm1(x_BCTHW)))))
        result: Tensor = x_BCTHW + self.drop_path(self.mlp(self.norm2(x_BCTHW)))
        return result


class AttentionBlock(nn.Module):
    """A block of stages 3 and 4, around what attends in it."""

    def __init__(self, width: int, mlp_ratio: int, drop_path: float, attention: nn.Module) -> None:
        super().__init__()
        self.pos_embed = _depthwise(width, 3)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = attention
        self.drop_path = _dropped(drop_path)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, mlp_ratio * width, width)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """(B, C, T, H, W) to the same shape."""
        x = (x_BCTHW + self.pos_embed(x_BCTHW)).movedim(1, -1)
        x = x + self.drop_path(self.attn(self.norm1(x)))
        result: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return result.movedim(-1, 1)


class PatchEmbed(nn.Module):
    """Patches of pixels or of the tokens of the stage before, without overlap in space, then layer normalisation."""

    def __init__(self, in_width: int, width: int, stride: int, *, frames: int = 1, frame_stride: int = 1) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        sides, strides = (frames, stride, stride), (frame_stride, stride, stride)
        self.proj = nn.Conv3d(in_width, width, sides, strides, padding=(frames // 2, 0, 0))

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, width, T / frame stride rounded up, H / stride, W / stride)."""
        result: Tensor = self.norm(self.proj(x_BCTHW).movedim(1, -1)).movedim(-1, 1)
        # depth-wise convolutions follow, whose kernels want channels first
        return result.contiguous()


class UniFormer(nn.Module):
    """Four stages and a classifier.

    Args:
        config: sizes.
        spec: shape and number of classes.
        attention: makes what attends in each block of stages 3 and 4.
    """

    def __init__(self, config: UniFormerConfig, spec: ModelSpec, attention: MakeAttention) -> None:
        super().__init__()
        downsampled = 2 if config.temporal_downsampling else 1
        width_before = 3
        total = sum(config.depths)
        before = 0
        for stage, (depth, width) in enumerate(zip(config.depths, config.widths), start=1):
            first = stage == 1
            embed = PatchEmbed(
                width_before,
                width,
                config.stem_stride if first else _REDUCTION,
                frames=3 if first else 1,
                frame_stride=downsampled if first else 1,
            )
            blocks = nn.ModuleList()
            for index in range(depth):
                drop_path = config.drop_path * (before + index) / max(1, total - 1)
                if stage < 3:
                    blocks.append(ConvBlock(width, config.mlp_ratio, drop_path))
                    continue
                place = AttentionPlace(
                    stage=cast(AttentionStage, stage),
                    index=index,
                    width=width,
                    heads=width // config.head_width,
                    frames=config.token_frames(spec.shape.frames),
                    grid=config.grid(stage, spec.shape.resolution),
                )
                blocks.append(AttentionBlock(width, config.mlp_ratio, drop_path, attention(place)))
            self.add_module(f"patch_embed{stage}", embed)
            self.add_module(f"blocks{stage}", blocks)
            width_before, before = width, before + depth
        self.norm = nn.BatchNorm3d(width_before)
        self.head = nn.Linear(width_before, spec.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        """(B, 3, T, H, W) to logits (B, classes)."""
        x = clip_BCTHW
        for stage in range(1, 5):
            x = self.get_submodule(f"patch_embed{stage}")(x)
            for block in cast(nn.ModuleList, self.get_submodule(f"blocks{stage}")):
                x = block(x)
        logits: Tensor = self.head(self.norm(x).mean(dim=(2, 3, 4)))
        return logits


class UniFormerClassifier(nn.Module):
    """A UniFormer that is fed clips of one shape."""

    def __init__(self, spec: ModelSpec, attention: MakeAttention) -> None:
        super().__init__()
        config = spec.config
        assert isinstance(config, UniFormerConfig)
        self.input = ClipInput(spec)
        self.video = UniFormer(config, spec, attention)
        self.weights = RANDOM

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """(B, T, 3, H, W) to logits (B, classes)."""
        logits: Tensor = self.video(self.input(clip_BTCHW).transpose(1, 2))
        return logits

    def load(self, hub_id: str, added: Mapping[str, str] = MappingProxyType({})) -> None:
        """Load published weights, in which `added` may be missing; arguments and errors as those of `load_pretrained`."""
        self.weights = load_pretrained(self.video, hub_id, head="head", added=added)


def _depthwise(width: int, side: int) -> nn.Conv3d:
    return nn.Conv3d(width, width, side, padding=side // 2, groups=width)


def _dropped(rate: float) -> nn.Module:
    """Stochastic depth: whole residuals of single clips."""
    if rate == 0:
        return nn.Identity()
    from timm.layers import DropPath

    dropped: nn.Module = DropPath(rate)
    return dropped
