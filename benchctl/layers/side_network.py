"""A trained side network beside a frozen image encoder: the ladder of Side4Video (Yao et al. 2023, arXiv 2311.15769).

T-Block = MLP(attention with TokShift(temporal convolution(.))), section 3.2. The reading, taken from the authors' released code
and confirmed by its counts (`benchctl.methods.side4video`):

- The tokenizer is a 3 x P x P convolution over the clip, stride 1 in time, then batch normalisation.
- What a block is fed is the mean of the running side tokens and of FC(LayerNorm(encoder tokens)).
- Temporal convolution: 1x1x1, depth-wise 3x1x1, 1x1x1, after batch normalisation, no activation between.
- TokShift: half of the class token's channels come from the next frame, the other half from the previous one. The class token is
  read by attention as a key and a value and is dropped afterwards: every block takes it afresh from the encoder.
- One position embedding, shared by all blocks, is added to what attention sees only.
- MLP: ratio 4, GELU, after batch normalisation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from benchctl.layers.attention import MultiHeadAttention
from benchctl.layers.image_encoder import EncoderConfig, ImageEncoder
from benchctl.layers.time_conv import TimeConv
from benchctl.spec import Attention, ModelSpec

# B batch, T frames, N patches of a frame, P = 1 + N tokens of a frame, C encoder width, D side width


@dataclass(frozen=True)
class SideShape:
    """Sizes of a side network."""

    #: D, channels
    width: int
    heads: int
    #: number of T-Blocks
    blocks: int
    #: C, channels of the encoder that feeds it
    encoder_width: int
    #: patches along one side of a frame
    grid: int
    #: side of a patch in pixels
    patch_size: int


def tok_shift(token_BTD: Tensor) -> Tensor:
    """Shift class tokens in time: the first D // 2 channels from the next frame, the others from the previous one.

    The last frame has no next and the first no previous one: zeros stand there. Source: Zhang et al. 2021, TokShift, with the
    fold of Side4Video's code.

    Args:
        token_BTD: (B, T, D).

    Returns:
        (B, T, D).
    """
    half = token_BTD.shape[-1] // 2
    none = torch.zeros_like(token_BTD[:, :1])
    future = torch.cat([token_BTD[:, 1:, :half], none[..., :half]], dim=1)
    past = torch.cat([none[..., half:], token_BTD[:, :-1, half:]], dim=1)
    return torch.cat([future, past], dim=-1)


class ChannelsLastBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over all positions of (B, T, N, D)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """(B, T, N, D) to the same shape."""
        return super().forward(input.movedim(-1, 1)).movedim(1, -1)


class TemporalConv(nn.Module):
    """1x1x1, depth-wise 3x1x1 and 1x1x1 convolution, each patch position by itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.into = nn.Linear(width, width)
        self.time = TimeConv(width, width, depthwise=True)
        self.out = nn.Linear(width, width)

    def forward(self, x_BTND: Tensor) -> Tensor:
        """(B, T, N, D) to the same shape."""
        result: Tensor = self.out(self.time(self.into(x_BTND)))
        return result


class TBlock(nn.Module):
    """One block of the side network: temporal convolution, spatial attention with TokShift, MLP, each with a residual."""

    def __init__(self, side: SideShape, attention: Attention) -> None:
        super().__init__()
        width = side.width
        self.conv_norm = ChannelsLastBatchNorm(width)
        self.conv = TemporalConv(width)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, side.heads, attention)
        self.mlp_norm = ChannelsLastBatchNorm(width)
        expand, contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.mlp = nn.Sequential(expand, nn.GELU(), contract)
        into, out = width**-0.5, (2 * side.blocks * width) ** -0.5
        for linear in (self.attention.query, self.attention.key_value):
            nn.init.normal_(linear.weight, std=into)
            nn.init.zeros_(linear.bias)
        nn.init.normal_(self.attention.out.weight, std=out)
        nn.init.normal_(expand.weight, std=(2 * width) ** -0.5)
        nn.init.normal_(contract.weight, std=out)
        nn.init.zeros_(self.attention.out.bias)

    def forward(self, x_BTND: Tensor, token_BTD: Tensor, position_ND: Tensor) -> Tensor:
        """(B, T, N, D) and the encoder's class tokens (B, T, D) to (B, T, N, D)."""
        x_BTND = x_BTND + self.conv(self.conv_norm(x_BTND))
        tokens_BTPD = torch.cat([tok_shift(token_BTD).unsqueeze(2), x_BTND + position_ND], dim=2)
        # each frame by itself; the class token is read, and asks nothing
        normal = self.attention_norm(tokens_BTPD).flatten(0, 1)
        x_BTND = x_BTND + self.attention(normal[:, 1:], normal).unflatten(0, x_BTND.shape[:2])
        x_BTND = x_BTND + self.mlp(self.mlp_norm(x_BTND))
        return x_BTND


class SideFeed(nn.Module):
    """FC(LayerNorm(encoder tokens)): what the encoder gives a T-Block."""

    def __init__(self, side: SideShape) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(side.encoder_width)
        self.linear = nn.Linear(side.encoder_width, side.width)
        nn.init.normal_(self.linear.weight, std=(2 * side.width) ** -0.5)

    def forward(self, tokens_BTPC: Tensor) -> Tensor:
        """(B, T, P, C) to (B, T, P, D)."""
        result: Tensor = self.linear(self.norm(tokens_BTPC))
        return result


class SideTokenizer(nn.Module):
    """3 x P x P convolution over the clip and batch normalisation."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, width, (3, patch_size, patch_size), stride=(1, patch_size, patch_size), padding=(1, 0, 0))
        self.norm = ChannelsLastBatchNorm(width)

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """(B, T, 3, H, W) to (B, T, N, D)."""
        x_BDTN = self.conv(clip_BTCHW.transpose(1, 2)).flatten(3)
        result: Tensor = self.norm(x_BDTN.movedim(1, -1))
        return result


class SideNetwork(nn.Module):
    """Tokenizer, T-Blocks fed by an encoder, normalisation and the mean over all positions.

    Args:
        side: sizes.
        attention: backend of the blocks' attention.
    """

    def __init__(self, side: SideShape, attention: Attention) -> None:
        super().__init__()
        self.tokenizer = SideTokenizer(side.width, side.patch_size)
        self.position = nn.Parameter(torch.randn(side.grid**2, side.width) * 0.01)
        self.feeds = nn.ModuleList(SideFeed(side) for _ in range(side.blocks))
        self.blocks = nn.ModuleList(TBlock(side, attention) for _ in range(side.blocks))
        self.norm = ChannelsLastBatchNorm(side.width)

    def forward(
        self, clip_BTCHW: Tensor, features: Iterable[Tensor], beside: Mapping[int, Callable[[Tensor], Tensor]] = MappingProxyType({})
    ) -> Tensor:
        """Run the ladder.

        Args:
            clip_BTCHW: (B, T, 3, H, W).
            features: for each T-Block, the encoder's tokens (B x T, P, C), class token first, patches last.
            beside: for some T-Blocks, by number from 0: what is made of the encoder's patches (B, T, N, C) and is added, as
                (B, T, N, D), to what the block is fed.

        Returns:
            (B, D).
        """
        side_BTND = self.tokenizer(clip_BTCHW)
        patches = len(self.position)
        for number, (feed, block, tokens) in enumerate(zip(self.feeds, self.blocks, features, strict=True)):
            tokens_BTPC = tokens.unflatten(0, clip_BTCHW.shape[:2])
            token_BTPD = feed(tokens_BTPC)
            # registers, which some encoders have between the two, belong to no place
            fed_BTND = token_BTPD[:, :, -patches:]
            if number in beside:
                fed_BTND = fed_BTND + beside[number](tokens_BTPC[:, :, -patches:])
            side_BTND = block((side_BTND + fed_BTND) / 2, token_BTPD[:, :, 0], self.position)
        pooled: Tensor = self.norm(side_BTND).mean(dim=(1, 2))
        return pooled


class SideConfig(EncoderConfig):
    """Base of the `Config` of methods with a side network."""

    side_width: PositiveInt = 320
    #: T-Blocks, spread evenly over the encoder's blocks
    side_layers: PositiveInt = 12
    side_heads: PositiveInt = 5

    @property
    def every(self) -> int:
        """Encoder layers from one that feeds a T-Block to the next."""
        return self.encoder_layers // self.side_layers

    @model_validator(mode="after")
    def _even_shares(self) -> Self:
        if self.encoder_layers % self.side_layers:
            raise ValueError(f"{self.encoder_layers} encoder layers cannot be shared evenly by {self.side_layers} side layers")
        if self.side_width % self.side_heads:
            raise ValueError(f"side width {self.side_width} is not a multiple of {self.side_heads} heads")
        return self


class SideTuned(nn.Module):
    """A frozen encoder and the side network that reads it, without a graph through the encoder."""

    def __init__(self, config: SideConfig, spec: ModelSpec) -> None:
        super().__init__()
        self.every = config.every
        self.encoder = ImageEncoder(config, spec, frozen=True)
        side = SideShape(
            width=config.side_width,
            heads=config.side_heads,
            blocks=config.side_layers,
            encoder_width=config.encoder_width,
            grid=self.encoder.grid,
            patch_size=config.patch_size,
        )
        self.side = SideNetwork(side, config.attention(spec.attention))

    def forward(self, clip_BTCHW: Tensor, beside: Mapping[int, Callable[[Tensor], Tensor]] = MappingProxyType({})) -> Tensor:
        """(B, T, 3, H, W) to (B, D); `beside` as in `SideNetwork`, but by encoder layer, counted from 1."""
        features = self.encoder.features(clip_BTCHW.flatten(0, 1), every=self.every)
        pooled: Tensor = self.side(clip_BTCHW, features, {layer // self.every - 1: module for layer, module in beside.items()})
        return pooled
