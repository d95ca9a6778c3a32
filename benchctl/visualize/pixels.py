"""Features without a network: the colours and gradients around each cell of a grid."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchctl.data.decode import Frames
from benchctl.errors import UsageError
from benchctl.layers.multi_order_similarity import OrderOutput
from benchctl.layers.stss import Window, stss
from benchctl.visualize.stss import HIGHEST_ORDER, Source

NAME = "pixels"
#: pixels a side of a cell
CELL = 8
#: (L, U, V): three frames either way, and about as far as a frame of 224 pixels is wide. Vectorisation knows a motion by where the
#: same things are around a point, so it needs to see them; on the toy clip, motions are told apart better with 7 frames than with 5.
WINDOW: Window = (7, 27, 27)
#: a cell is described by this many parts along each side
_PARTS = 2
#: of the luminance, per channel (ITU-R BT.601)
_LUMA = (0.299, 0.587, 0.114)


def pixel_source(frames: Frames, window: Window | None = None) -> Source:
    """Pixel features, with vectorisation as every g: nothing in it is learned (Figures 3 and 7).

    Args:
        frames: uint8 RGB (T, R, R, 3).
        window: (L, U, V), odd; None: `WINDOW`.

    Raises:
        UsageError: the resolution is not a multiple of `CELL` pixels.
    """
    used = window or WINDOW
    return Source(NAME, "no weights, g is vectorisation", pixel_features(frames), (used,) * HIGHEST_ORDER, partial(each_order, window=used))


def each_order(features_BTHWC: Tensor, window: Window) -> Iterator[OrderOutput]:
    """S(n) and M(n) with vectorisation as g: M(n) is (B, T, H, W, L * U * V)."""
    for order in range(1, HIGHEST_ORDER + 1):
        similarity = stss(features_BTHWC, window)
        features_BTHWC = similarity.flatten(4)
        yield OrderOutput(order, similarity, features_BTHWC)


def pixel_features(frames: Frames) -> Tensor:
    """uint8 RGB (T, R, R, 3) to (1, T, R / CELL, R / CELL, C): colours and luminance gradients of the parts of each cell.

    Colours are differences from the clip's median colour: a plain background is the zero vector, which is similar to nothing, and
    the cosine between two colours does not mostly say that both are bright.

    Raises:
        UsageError: the resolution is not a multiple of `CELL` pixels.
    """
    side = frames.shape[1]
    if side % CELL:
        raise UsageError(
            f"{side} is not a multiple of the {CELL} pixels of a cell", where="--resolution", fix=f"use {-(-side // CELL) * CELL}"
        )
    pixels_T3HW = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    colours_T3HW = pixels_T3HW - pixels_T3HW.transpose(0, 1).flatten(1).median(dim=1).values.view(1, 3, 1, 1)
    luma_T1HW = (pixels_T3HW * torch.tensor(_LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    padded = F.pad(luma_T1HW, (1, 1, 1, 1), mode="replicate")
    gradients_T2HW = torch.cat([padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2], padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]], 1) / 2
    parts = F.avg_pool2d(torch.cat([colours_T3HW, gradients_T2HW], dim=1), CELL // _PARTS)
    return F.pixel_unshuffle(parts, _PARTS).permute(0, 2, 3, 1)[None]
