"""The TIME layer: frames of a video put side by side in grids, so that a frame-level model sees time as space.

Source: "When Spatial meets Temporal in Action Recognition" (Chen, Wang, Chen, Gedeon and Koniusz), section 3.1, equations 1 to 5.

Reading. T* N^2 frames are read of a video: spread over all of it where it is longer, with frames repeated in order where it is shorter
(both are what sampling by segments does, which takes every frame once where there are as many as are asked for). Each is augmented as a
whole frame and then made small, so that N x N of them fill a frame of the model's size; resizing and cropping are one interpolation here,
whose result is the small frame itself. The layer only rearranges.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from benchctl.errors import ShapeError
from benchctl.layers.clip_input import ClipInput
from benchctl.spec import ModelSpec
from benchctl.vocabulary import ClipShape

# B batch, T arranged frames (the paper's T*), N cells along a side of the grid, C channels, h x w pixels of a small frame

Arrangement = Literal["spatial", "temporal"]


class TimeLayer(nn.Module):
    """N x N grids of consecutive frames.

    Args:
        grid: N.
        arrangement: `spatial`: a cell of the grid holds T consecutive frames, so that it shows a short motion over the arranged frames,
            and the cells of one arranged frame are far apart in time (equations 1 and 2). `temporal`: one arranged frame holds N^2
            consecutive frames, row by row (equations 3 to 5).
    """

    def __init__(self, grid: int, arrangement: Arrangement) -> None:
        super().__init__()
        self.grid = grid
        self.arrangement = arrangement

    def forward(self, frames_BFChw: Tensor) -> Tensor:
        """(B, T N^2, C, h, w) to (B, T, C, N h, N w).

        Raises:
            ShapeError: the number of frames is no multiple of N^2.
        """
        cells = self.grid**2
        batch, count, channels, height, width = frames_BFChw.shape
        if count % cells:
            raise ShapeError(f"{count} frames do not fill grids of {self.grid} x {self.grid}", fix=f"use a multiple of {cells}")
        if self.arrangement == "spatial":
            in_cells = frames_BFChw.unflatten(1, (self.grid, self.grid, count // cells)).movedim(3, 1)
        else:
            in_cells = frames_BFChw.unflatten(1, (count // cells, self.grid, self.grid))
        # B, T, row, column, C, h, w
        rows = in_cells.permute(0, 1, 4, 2, 5, 3, 6)
        return rows.reshape(batch, count // cells, channels, self.grid * height, self.grid * width)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"grid={self.grid}, arrangement={self.arrangement}"


class TimeInput(nn.Module):
    """The front of a method with a TIME layer: small frames are checked and arranged; a single channel, depth, is shown three times.

    Showing one channel three times to a stem that was trained on RGB is summing its kernels over their inputs.
    """

    def __init__(self, spec: ModelSpec, layer: TimeLayer) -> None:
        super().__init__()
        self.check = ClipInput(spec, pad=False)
        self.layer = layer
        self.padding = spec.padded_resolution - spec.shape.resolution

    def forward(self, frames_BFChw: Tensor) -> Tensor:
        """(B, T N^2, C, R / N, R / N) to (B, T, 3, R, R), zero-padded at the right and the bottom to whole patches."""
        clip = self.layer(self.check(frames_BFChw))
        if clip.shape[2] == 1:
            clip = clip.expand(-1, -1, 3, -1, -1)
        return F.pad(clip, (0, self.padding, 0, self.padding)) if self.padding else clip


def small_frames(shape: ClipShape, grid: int) -> ClipShape:
    """What is read of a video for grids of `grid` x `grid` in a clip of `shape`: N^2 times the frames, of 1 / N of the side."""
    return shape.model_copy(update={"frames": shape.frames * grid**2, "resolution": shape.resolution // grid})


def check_grid(shape: ClipShape, grid: int) -> None:
    """Raise ShapeError where frames of `shape` cannot be cut into `grid` x `grid` cells."""
    if shape.resolution % grid:
        below, above = shape.resolution // grid * grid, -(-shape.resolution // grid) * grid
        near = f"{below} or {above}" if below else f"{above}"
        raise ShapeError(f"resolution {shape.resolution} cannot be cut into {grid} x {grid} cells", fix=f"use {near}")
