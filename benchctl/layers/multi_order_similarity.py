"""Multi-order self-similarity (MOSS): motion features from the self-similarity of features, of that of those, and so on.

    S(1) = f(F),  S(n) = f(g(S(n-1)))          f: `benchctl.layers.stss`                     equation 3
    M(n) = g(n)(S(n))                          an encoder g(n) of its own for each order     equation 4
    the sum over the chosen orders of FC(M(n)) is added to what the host makes of F          equation 5

The encoder: one linear layer from the U x V similarities with a frame to D channels, shared by the L frames of the window;
convolutions over (H, W), each 3 x 3 without bias, batch normalisation, GELU, shared by the L frames too; one linear layer from the
L x D channels to C. Every order up to the highest chosen one is computed, since each needs the one before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from benchctl.layers.stss import SelfSimilarity, Window

# B batch, T frames, H x W grid, C channels of the features, L x U x V window, D channels of an encoder, K channels given to the host

Fusion = Literal["none", "addition", "conv", "mlp"]


@dataclass(frozen=True)
class MossShape:
    """Sizes of one MOSS module."""

    #: C
    width: int
    #: K
    out_width: int
    #: the orders that reach the host
    orders: tuple[int, ...]
    #: (L, U, V) of each order up to the highest
    windows: tuple[Window, ...]
    #: D
    channels: int
    #: convolutions over (H, W) in each encoder
    conv_blocks: int
    #: what of F joins M(1) before S(2) is taken (Table 4c)
    fusion: Fusion = "none"
    #: one FC for the sum of all orders, instead of one for each: in hosts that are as wide as the features
    one_projection: bool = False


class ConvBlocks(nn.Sequential):
    """`blocks` x (3 x 3 convolution without bias, batch normalisation, GELU) over (H, W) of channels-last images."""

    def __init__(self, channels: int, blocks: int) -> None:
        layers: list[nn.Module] = []
        for _ in range(blocks):
            layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.GELU()]
        super().__init__(*layers)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """(..., H, W, D) to the same shape."""
        images = input.flatten(0, -4).permute(0, 3, 1, 2)
        result: Tensor = super().forward(images).permute(0, 2, 3, 1).unflatten(0, input.shape[:-3])
        return result


class OffsetFusion(nn.Module):
    """Refines the channels of each frame of the window over (H, W), then makes one feature of all: (..., L, D) to C."""

    def __init__(self, offsets: int, channels: int, conv_blocks: int, width: int) -> None:
        super().__init__()
        self.refine = ConvBlocks(channels, conv_blocks)
        self.fuse = nn.Linear(offsets * channels, width)

    def forward(self, x_BTHWLD: Tensor) -> Tensor:
        """(B, T, H, W, L, D) to (B, T, H, W, C)."""
        refined_BTLHWD = self.refine(x_BTHWLD.movedim(4, 2))
        result: Tensor = self.fuse(refined_BTLHWD.movedim(2, 4).flatten(4))
        return result


class SimilarityEncoder(nn.Module):
    """g(n): what a position's similarities say, as a feature (section 3.3)."""

    def __init__(self, window: Window, channels: int, conv_blocks: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(window[1] * window[2], channels)
        self.fusion = OffsetFusion(window[0], channels, conv_blocks, width)

    def forward(self, similarity_BTHWLUV: Tensor) -> Tensor:
        """(B, T, H, W, L, U, V) to (B, T, H, W, C)."""
        result: Tensor = self.fusion(self.embed(similarity_BTHWLUV.flatten(5)))
        return result


class FeatureFusion(nn.Module):
    """The features of which the second order is taken: M(1) alone, or with F (Table 4c, which gives no sizes)."""

    def __init__(self, kind: Fusion, width: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "conv":
            self.conv = nn.Conv2d(2 * width, width, 3, padding=1)
        elif kind == "mlp":
            self.mlp = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, features_BTHWC: Tensor, motion_BTHWC: Tensor) -> Tensor:
        """F and M(1), both (B, T, H, W, C), to the same shape."""
        if self.kind == "none":
            return motion_BTHWC
        if self.kind == "addition":
            return features_BTHWC + motion_BTHWC
        both = torch.cat([features_BTHWC, motion_BTHWC], dim=-1)
        if self.kind == "mlp":
            mixed: Tensor = self.mlp(both)
            return mixed
        images = self.conv(both.flatten(0, 1).permute(0, 3, 1, 2))
        return images.permute(0, 2, 3, 1).unflatten(0, both.shape[:2])


@dataclass(frozen=True)
class OrderOutput:
    """What one order gives."""

    order: int
    #: S(n), (B, T, H, W, L, U, V)
    similarity: Tensor
    #: M(n), (B, T, H, W, C)
    motion: Tensor


class MultiOrderSelfSimilarity(nn.Module):
    """The MOSS module without FC(F), which is the host's own.

    Args:
        shape: sizes.
    """

    def __init__(self, shape: MossShape) -> None:
        super().__init__()
        self.orders = shape.orders
        self.similarities = nn.ModuleList(SelfSimilarity(window) for window in shape.windows)
        self.encoders = nn.ModuleList(SimilarityEncoder(window, shape.channels, shape.conv_blocks, shape.width) for window in shape.windows)
        self.fusion = FeatureFusion(shape.fusion, shape.width) if len(shape.windows) > 1 else None
        count = min(1, len(shape.orders)) if shape.one_projection else len(shape.orders)
        self.projections = nn.ModuleList(nn.Linear(shape.width, shape.out_width) for _ in range(count))

    def each_order(self, features_BTHWC: Tensor) -> Iterator[OrderOutput]:
        """S(n) and M(n) of every order up to the highest chosen one, in order, one at a time."""
        base = features_BTHWC
        for order, (similarity, encoder) in enumerate(zip(self.similarities, self.encoders, strict=True), start=1):
            s = similarity(base)
            motion = encoder(s)
            yield OrderOutput(order, s, motion)
            base = self.fusion(features_BTHWC, motion) if order == 1 and self.fusion is not None else motion

    def forward(self, features_BTHWC: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The sum of FC(M(n)) over the chosen orders, and M(1).

        Args:
            features_BTHWC: (B, T, H, W, C).

        Returns:
            (B, T, H, W, K), None without a chosen order; and (B, T, H, W, C), None where no order is computed.
        """
        motions = {output.order: output.motion for output in self.each_order(features_BTHWC)}
        chosen = [motions[order] for order in self.orders]
        if not chosen:
            return None, motions.get(1)
        if len(self.projections) < len(chosen):
            chosen = [torch.stack(chosen).sum(dim=0)]
        summed: Tensor = self.projections[0](chosen[0])
        for projection, motion in zip(self.projections[1:], chosen[1:], strict=True):
            summed = summed + projection(motion)
        return summed, motions.get(1)
