"""A transformer over the points of a clip: each point, seen through all frames, is one token.

Source: "It's a Matter of Time: Three Lessons on Long-Term Motion for Perception" (Davison, Hao and Sevilla-Lara), sections 3.1 and 3.2.
"""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from benchctl.layers.attention import BACKENDS, MultiHeadAttention
from benchctl.spec import Attention, MethodConfig

# B batch, T frames, N points, C width, K tokens of something else, D their width


class PointSizes(MethodConfig):
    """Base of the `Config` of methods with a point transformer."""

    ATTENTION: ClassVar[tuple[Attention, ...]] = BACKENDS

    patch_size: PositiveInt = 1
    points: PositiveInt = 60
    point_width: PositiveInt = 256
    point_layers: PositiveInt = 4
    point_heads: PositiveInt = 8
    point_mlp_width: PositiveInt = 1536

    @model_validator(mode="after")
    def _whole_heads_of_points(self) -> Self:
        if self.point_width % self.point_heads:
            raise ValueError(f"point_width {self.point_width} is not a multiple of {self.point_heads} heads")
        return self


class OverTime(nn.Module):
    """Three values of a point in each frame to one vector: an MLP, a 1 x 1 convolution over time, the maximum over time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = _mlp(3, width, width)
        # what a 1 x 1 convolution is, without moving channels before time
        self.convolution = nn.Linear(width, width)

    def forward(self, values_BTN3: Tensor) -> Tensor:
        """(B, T, N, 3) to (B, N, C)."""
        return self.convolution(self.mlp(values_BTN3)).amax(dim=1)


class TrackTokens(nn.Module):
    """Tracks to tokens: how a point moves, and where it is on average, joined by a projection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.motion = OverTime(width)
        self.position = _mlp(2, width // 4, width)
        self.join = nn.Linear(2 * width, width)

    def forward(self, tracks_BTN3: Tensor) -> Tensor:
        """(B, T, N, 3) to (B, N, C)."""
        joined: Tensor = self.join(torch.cat([self.motion(velocities(tracks_BTN3)), self.position(tracks_BTN3[..., :2].mean(1))], dim=-1))
        return joined


def velocities(tracks_BTN3: Tensor) -> Tensor:
    """How fast each point moves, and whether it is visible: (B, T, N, 3).

    x and y are the step from the frame before, 0 in the first one, times the number of frames: a velocity per clip, whose size does not
    depend on how many frames of it are tracked.
    """
    places = tracks_BTN3[..., :2]
    steps = torch.cat([torch.zeros_like(places[:, :1]), places.diff(dim=1)], dim=1)
    return torch.cat([steps * places.shape[1], tracks_BTN3[..., 2:]], dim=-1)


class PointTransformer(nn.Module):
    """Tokens of points to tokens of points: transformer blocks, normalised first. Nothing in it depends on the order of points."""

    def __init__(self, sizes: PointSizes, attention: Attention) -> None:
        super().__init__()
        width, heads = sizes.point_width, sizes.point_heads
        self.blocks = nn.ModuleList(Block(width, heads, sizes.point_mlp_width, attention) for _ in range(sizes.point_layers))

    def forward(self, tokens_BNC: Tensor) -> Tensor:
        """(B, N, C) to (B, N, C)."""
        for block in self.blocks:
            tokens_BNC = block(tokens_BNC)
        return tokens_BNC


class Block(nn.Module):
    """Attention, then an MLP, each normalised first and added; with `other`, the tokens attend those instead of each other."""

    def __init__(self, width: int, heads: int, mlp_width: int, attention: Attention, other: int | None = None) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads, attention)
        self.before_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_width), nn.GELU(), nn.Linear(mlp_width, width))
        self.other = None if other is None else nn.Sequential(nn.LayerNorm(other), nn.Linear(other, width))

    def forward(self, tokens_BNC: Tensor, other_BKD: Tensor | None = None) -> Tensor:
        """(B, N, C), and (B, K, D) where there is `other`, to (B, N, C)."""
        normal = self.before_attention(tokens_BNC)
        tokens_BNC = tokens_BNC + self.attention(normal, normal if self.other is None else self.other(other_BKD))
        result: Tensor = tokens_BNC + self.mlp(self.before_mlp(tokens_BNC))
        return result


def initialise(module: nn.Module) -> None:
    """Draw the weights of all linear layers in `module` after He et al. (2015), without biases.

    torch's own start has biases as large as what a point has to say of itself: points look alike to the first attention, and for a
    thousand steps nothing is learned that takes two of them to tell.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def point_head(width: int, outputs: int) -> nn.Module:
    """From the mean over points to logits, or to the numbers that are learned."""
    return nn.Sequential(nn.LayerNorm(width), _mlp(width, width, outputs))


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))
