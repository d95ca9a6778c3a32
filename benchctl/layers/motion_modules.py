"""Temporal modules that MOSS is compared with (Tables 4d and 10c), each from features of a clip to what is added to a host.

The tables name them and give costs; their sizes they do not give. So each follows the work it is named after, between a linear layer
to `inner` channels and one to the host's, and `inner` is an option: the published suite sets it to what comes nearest to the costs.

    r2plus1d              1 x 3 x 3 then 3 x 1 x 1 convolution, each with batch normalisation and ReLU        Tran et al. 2018
    factorised-attention  self-attention over space, then over time, with residuals                           Arnab et al. 2021
    local-attention       self-attention with the neighbours in the window (L, U, V)
    difference            frame-wise differences over the L frames, then MOSS's own convolutions              Wu et al. 2023
    selfy                 convolutions over (U, V) of the first-order self-similarity                         Kwon et al. 2021
    atm                   selfy and difference together                                                       Wu et al. 2023
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchctl.layers.attention import MultiHeadAttention
from benchctl.layers.multi_order_similarity import OffsetFusion
from benchctl.layers.stss import SelfSimilarity, Window
from benchctl.spec import Attention

# B batch, T frames, H x W grid, C channels of the features, I inner channels, K channels given to the host, L x U x V window

Alternative = Literal["none", "r2plus1d", "factorised-attention", "local-attention", "difference", "selfy", "atm"]

#: channels of one attention head
_HEAD = 64


@dataclass(frozen=True)
class AlternativeShape:
    """Sizes of a module that stands where MOSS, or its second order, stood."""

    #: C
    width: int
    #: K
    out_width: int
    #: I, for the modules that have one
    inner: int
    #: (L, U, V), for the modules that look at neighbours
    window: Window
    #: D and the number of convolutions, for the modules that are built as MOSS's encoder is
    channels: int
    conv_blocks: int


class R2Plus1D(nn.Module):
    """A convolution over space and one over time."""

    def __init__(self, shape: AlternativeShape) -> None:
        super().__init__()
        inner = shape.inner
        self.into = nn.Linear(shape.width, inner)
        self.convs = nn.Sequential(
            nn.Conv3d(inner, inner, (1, 3, 3), padding=(0, 1, 1), bias=False),
            nn.BatchNorm3d(inner),
            nn.ReLU(),
            nn.Conv3d(inner, inner, (3, 1, 1), padding=(1, 0, 0), bias=False),
            nn.BatchNorm3d(inner),
            nn.ReLU(),
        )
        self.out = nn.Linear(inner, shape.out_width)

    def forward(self, features_BTHWC: Tensor) -> Tensor:
        """(B, T, H, W, C) to (B, T, H, W, K)."""
        x = self.convs(self.into(features_BTHWC).movedim(-1, 1))
        result: Tensor = self.out(x.movedim(1, -1))
        return result


class SelfAttention(nn.Module):
    """Attention of tokens with each other, after layer normalisation."""

    def __init__(self, inner: int, attention: Attention) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inner)
        self.attention = MultiHeadAttention(inner, max(1, inner // _HEAD), attention)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(N, tokens, I) to the same shape; `mask` (tokens, tokens) is true where a token may look."""
        normal = self.norm(x)
        result: Tensor = self.attention(normal, normal, mask)
        return result


class FactorisedAttention(nn.Module):
    """Attention over the positions of each frame, then over the frames of each position."""

    def __init__(self, shape: AlternativeShape, attention: Attention) -> None:
        super().__init__()
        self.into = nn.Linear(shape.width, shape.inner)
        self.space = SelfAttention(shape.inner, attention)
        self.time = SelfAttention(shape.inner, attention)
        self.out = nn.Linear(shape.inner, shape.out_width)

    def forward(self, features_BTHWC: Tensor) -> Tensor:
        """(B, T, H, W, C) to (B, T, H, W, K)."""
        B, T, H, W, _ = features_BTHWC.shape
        x = self.into(features_BTHWC).flatten(2, 3)
        x = x + self.space(x.flatten(0, 1)).unflatten(0, (B, T))
        along_time = x.transpose(1, 2)
        x = x + self.time(along_time.flatten(0, 1)).unflatten(0, (B, H * W)).transpose(1, 2)
        result: Tensor = self.out(x).unflatten(2, (H, W))
        return result


class LocalAttention(nn.Module):
    """Attention of every position with its neighbours in the window.

    Computed as masked attention over the whole clip: the products outside the window are executed, and counted, too.
    """

    def __init__(self, shape: AlternativeShape, attention: Attention) -> None:
        super().__init__()
        self.window = shape.window
        self.into = nn.Linear(shape.width, shape.inner)
        self.attention = SelfAttention(shape.inner, attention)
        self.out = nn.Linear(shape.inner, shape.out_width)

    def forward(self, features_BTHWC: Tensor) -> Tensor:
        """(B, T, H, W, C) to (B, T, H, W, K)."""
        sides = features_BTHWC.shape[1:4]
        x = self.into(features_BTHWC).flatten(1, 3)
        result: Tensor = self.out(x + self.attention(x, neighbours(sides, self.window, x.device)))
        return result.unflatten(1, sides)


def neighbours(sides: tuple[int, ...], window: Window, device: torch.device) -> Tensor:
    """Which of the T x H x W positions lie in the window of which: (positions, positions), boolean."""
    T, H, W = sides
    near = [
        (torch.arange(n, device=device)[:, None] - torch.arange(n, device=device)).abs() <= side // 2
        for n, side in zip(sides, window, strict=True)
    ]
    both = near[0][:, None, None, :, None, None] & near[1][None, :, None, None, :, None] & near[2][None, None, :, None, None, :]
    return both.reshape(T * H * W, T * H * W)


class Difference(nn.Module):
    """What changed between a frame and each of those around it, encoded as MOSS encodes similarities."""

    def __init__(self, shape: AlternativeShape) -> None:
        super().__init__()
        self.reach = shape.window[0] // 2
        self.into = nn.Linear(shape.width, shape.channels)
        self.fusion = OffsetFusion(shape.window[0], shape.channels, shape.conv_blocks, shape.width)
        self.out = nn.Linear(shape.width, shape.out_width)

    def forward(self, features_BTHWC: Tensor) -> Tensor:
        """(B, T, H, W, C) to (B, T, H, W, K)."""
        x = self.into(features_BTHWC)
        result: Tensor = self.out(self.fusion(differences(x, self.reach)))
        return result


def differences(x_BTHWD: Tensor, reach: int) -> Tensor:
    """x[t + l] - x[t] for l from -reach to reach, zero where there is no frame t + l: (B, T, H, W, D) to (B, T, H, W, L, D)."""
    frames = x_BTHWD.shape[1]
    padded = F.pad(x_BTHWD, (0, 0) * 3 + (reach, reach))
    around = padded.unfold(1, 2 * reach + 1, 1).movedim(-1, 4)
    there = torch.arange(frames, device=x_BTHWD.device)[:, None] + torch.arange(-reach, reach + 1, device=x_BTHWD.device)
    exists = ((there >= 0) & (there < frames)).to(x_BTHWD.dtype)
    return (around - x_BTHWD.unsqueeze(4)) * exists[:, None, None, :, None]


class Selfy(nn.Module):
    """First-order self-similarity read by convolutions over (U, V), then as MOSS reads it."""

    def __init__(self, shape: AlternativeShape) -> None:
        super().__init__()
        D = shape.channels
        self.similarity = SelfSimilarity(shape.window)
        widths = [1, max(1, D // 4), max(1, D // 2), D, D]
        self.convs = nn.Sequential()
        for narrow, wide in pairwise(widths):
            # a 9 x 9 window shrinks to one position; what a smaller one has left is averaged
            self.convs.extend([nn.Conv2d(narrow, wide, 3, padding=_kept(shape.window, len(self.convs) // 2)), nn.ReLU()])
        self.fusion = OffsetFusion(shape.window[0], D, 1, shape.width)
        self.out = nn.Linear(shape.width, shape.out_width)

    def forward(self, features_BTHWC: Tensor) -> Tensor:
        """(B, T, H, W, C) to (B, T, H, W, K)."""
        similarity = self.similarity(features_BTHWC)
        encoded = self.convs(similarity.flatten(0, 4).unsqueeze(1)).mean(dim=(2, 3))
        result: Tensor = self.out(self.fusion(encoded.unflatten(0, similarity.shape[:5])))
        return result


def _kept(window: Window, layer: int) -> tuple[int, int]:
    """Padding that keeps each side of the window at least 1 when a 3 x 3 convolution shrinks it, layer after layer."""
    heights = [max(1, side - 2 * layer) for side in window[1:]]
    return (0 if heights[0] > 2 else 1, 0 if heights[1] > 2 else 1)


class Atm(nn.Module):
    """Similarity and difference, the two operations that stand for multiplication and subtraction in Wu et al. 2023."""

    def __init__(self, shape: AlternativeShape) -> None:
        super().__init__()
        self.selfy = Selfy(shape)
        self.difference = Difference(shape)

    def forward(self, features_BTHWC: Tensor) -> Tensor:
        """(B, T, H, W, C) to (B, T, H, W, K)."""
        result: Tensor = self.selfy(features_BTHWC) + self.difference(features_BTHWC)
        return result


def alternative(kind: Alternative, shape: AlternativeShape, attention: Attention) -> nn.Module | None:
    """The module called `kind`, (B, T, H, W, C) to (B, T, H, W, K); None for `none`."""
    match kind:
        case "none":
            return None
        case "r2plus1d":
            return R2Plus1D(shape)
        case "factorised-attention":
            return FactorisedAttention(shape, attention)
        case "local-attention":
            return LocalAttention(shape, attention)
        case "difference":
            return Difference(shape)
        case "selfy":
            return Selfy(shape)
        case "atm":
            return Atm(shape)
