"""Image transformers that see a clip: trained whole, or frozen with adapters inside their blocks.

Both end in the normalised class token, averaged over the frames, and both take modules that add to the patches after a block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

from torch import Tensor, nn

from benchctl.layers.image_encoder import EncoderConfig, ImageEncoder
from benchctl.layers.time_conv import TimeConv
from benchctl.spec import ModelSpec

# B batch, T frames, P tokens of a frame (class token first, then N patches in rows), C width

#: from the patches (B, T, N, C) after a block to what is added to them
Beside = Callable[[Tensor], Tensor]


class VideoTransformer(nn.Module):
    """An image encoder whose blocks run one after another over all frames; subclasses say what a block does."""

    def __init__(self, config: EncoderConfig, spec: ModelSpec, *, frozen: bool) -> None:
        super().__init__()
        self.encoder = ImageEncoder(config, spec, frozen=frozen, final_norm=True)

    def start(self, tokens_BTPC: Tensor) -> Tensor:
        """What happens to the tokens before the first block."""
        return tokens_BTPC

    def step(self, index: int, tokens_BTPC: Tensor) -> Tensor:
        """Block `index`, counted from 0."""
        raise NotImplementedError

    def forward(self, clip_BTCHW: Tensor, beside: Mapping[int, Beside] = MappingProxyType({})) -> Tensor:
        """Run it.

        Args:
            clip_BTCHW: (B, T, 3, H, W).
            beside: for some blocks, counted from 1: what is made of their patches and added to them.

        Returns:
            (B, C).
        """
        tokens = self.start(self.encoder.embed(clip_BTCHW.flatten(0, 1)).unflatten(0, clip_BTCHW.shape[:2]))
        for index in range(len(self.encoder)):
            tokens = self.step(index, tokens)
            if index + 1 in beside:
                prefix = self.encoder.prefix_tokens
                added = beside[index + 1](tokens[:, :, prefix:])
                tokens = tokens + nn.functional.pad(added, (0, 0, prefix, 0))
        # normalised after its token is taken: the others are not read
        pooled: Tensor = self.encoder.norm(tokens[:, :, 0]).mean(dim=1)
        return pooled


class FineTuned(VideoTransformer):
    """A transformer trained whole, with a depth-wise temporal convolution before each block, zero at the start.

    Without them it sees each frame by itself and averages.
    """

    def __init__(self, config: EncoderConfig, spec: ModelSpec, *, temporal_conv: bool) -> None:
        super().__init__(config, spec, frozen=False)
        width, count = self.encoder.width, len(self.encoder) if temporal_conv else 0
        self.convs = nn.ModuleList(TimeConv(width, width, depthwise=True) for _ in range(count))
        for parameter in self.convs.parameters():
            nn.init.zeros_(parameter)

    def step(self, index: int, tokens_BTPC: Tensor) -> Tensor:
        """Temporal convolution as a residual, then the block."""
        if self.convs:
            tokens_BTPC = tokens_BTPC + self.convs[index](tokens_BTPC)
        return self.encoder.block(index, tokens_BTPC.flatten(0, 1)).unflatten(0, tokens_BTPC.shape[:2])


class BottleneckAdapter(nn.Module):
    """Linear down, GELU, linear up; gives zero at the start."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to the same shape, without the residual."""
        result: Tensor = self.up(nn.functional.gelu(self.down(x)))
        return result


AimAdapter = Literal["time_in", "time", "space", "mlp"]


class Aim(VideoTransformer):
    """A frozen transformer whose attention also runs over time, with adapters in every block (Yang et al. 2023, section 3).

    A block: x += time(A(LN x)) over the frames of each token, where A is the block's own attention; x += space'(A(LN x)) inside each
    frame; x += M(LN x) + scale mlp(LN x), M the block's own MLP. space' keeps its residual, and with `time_in` so does an adapter
    before A over time: both start as the identity, the others as zero, so the model starts as its encoder.

    Args:
        config: the encoder.
        spec: shape and attention backend.
        bottleneck: channels of an adapter.
        scale: of the adapter beside the MLP.
        adapt_time_twice: whether there is a `time_in`.
    """

    def __init__(self, config: EncoderConfig, spec: ModelSpec, *, bottleneck: int, scale: float, adapt_time_twice: bool) -> None:
        super().__init__(config, spec, frozen=True)
        self.scale = scale
        width = self.encoder.width
        places: tuple[AimAdapter, ...] = (*(("time_in",) if adapt_time_twice else ()), "time", "space", "mlp")
        self.adapters = nn.ModuleList(
            nn.ModuleDict({place: BottleneckAdapter(width, bottleneck) for place in places}) for _ in range(len(self.encoder))
        )
        self.time_position = nn.Parameter(self.encoder.vit.pos_embed.new_zeros(spec.shape.frames, 1, width))

    def start(self, tokens_BTPC: Tensor) -> Tensor:
        """A learned embedding for each frame."""
        return tokens_BTPC + self.time_position

    def step(self, index: int, tokens_BTPC: Tensor) -> Tensor:
        """A block with its adapters."""
        adapters = self.adapters[index]
        assert isinstance(adapters, nn.ModuleDict)
        before_attention, before_mlp = self.encoder.norms(index)
        size = tokens_BTPC.shape[:2]
        along_time = before_attention(tokens_BTPC).transpose(1, 2)
        if "time_in" in adapters:
            along_time = along_time + adapters["time_in"](along_time)
        over_time = self.encoder.attention(index, along_time.flatten(0, 1), placed=False).unflatten(0, along_time.shape[:2])
        tokens_BTPC = tokens_BTPC + adapters["time"](over_time.transpose(1, 2))
        inside = self.encoder.attention(index, before_attention(tokens_BTPC).flatten(0, 1)).unflatten(0, size)
        tokens_BTPC = tokens_BTPC + inside + adapters["space"](inside)
        normal = before_mlp(tokens_BTPC)
        return tokens_BTPC + self.encoder.mlp(index, normal) + self.scale * adapters["mlp"](normal)
