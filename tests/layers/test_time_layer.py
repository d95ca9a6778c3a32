"""The TIME layer against its equations, on numbered frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchctl.data.sampling import eval_indices
from benchctl.errors import ShapeError
from benchctl.layers.time_layer import TimeLayer, check_grid
from benchctl.vocabulary import ClipShape


def numbered(frames: int) -> torch.Tensor:
    """Frames of one pixel that hold their number, counted from 1: (1, frames, 1, 1, 1)."""
    return torch.arange(1, frames + 1, dtype=torch.float32).view(1, frames, 1, 1, 1)


def spatial_definition(frames: int, grid: int) -> np.ndarray:
    """Equations 1 and 2: block i holds frames (i - 1) T + 1 ... i T; blocks stand in the grid row by row, each showing its t-th frame."""
    length = frames // grid**2
    out = np.zeros((length, grid, grid))
    for i in range(1, grid**2 + 1):
        block = [(i - 1) * length + t for t in range(1, length + 1)]
        row, column = divmod(i - 1, grid)
        for t in range(length):
            out[t, row, column] = block[t]
    return out


def temporal_definition(frames: int, grid: int) -> np.ndarray:
    """Equations 3 to 5: block j holds frames (j - 1) N^2 + 1 ... j N^2, row by row in one grid."""
    length = frames // grid**2
    out = np.zeros((length, grid, grid))
    for j in range(1, length + 1):
        for row in range(1, grid + 1):
            for column in range(1, grid + 1):
                out[j - 1, row - 1, column - 1] = (j - 1) * grid**2 + (row - 1) * grid + column
    return out


@pytest.mark.parametrize("grid", [1, 2, 4, 7, 14])
@pytest.mark.parametrize("length", [1, 3])
def test_both_arrangements_are_the_equations(grid: int, length: int):
    frames = length * grid**2
    for arrangement, definition in (("spatial", spatial_definition), ("temporal", temporal_definition)):
        arranged = TimeLayer(grid, arrangement)(numbered(frames))[0, :, 0].numpy()
        assert np.array_equal(arranged, definition(frames, grid)), arrangement


def test_worked_example():
    """Eight frames in grids of 2 x 2."""
    assert TimeLayer(2, "spatial")(numbered(8))[0, :, 0].tolist() == [[[1, 3], [5, 7]], [[2, 4], [6, 8]]]
    assert TimeLayer(2, "temporal")(numbered(8))[0, :, 0].tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]


@pytest.mark.parametrize("arrangement", ["spatial", "temporal"])
def test_a_cell_is_a_whole_frame(arrangement: str):
    frames = torch.rand(2, 8, 3, 5, 6)
    arranged = TimeLayer(2, arrangement)(frames)
    assert arranged.shape == (2, 2, 3, 10, 12)
    second_row_first_column = {"spatial": 4, "temporal": 2}[arrangement]
    assert torch.equal(arranged[1, 0, :, 5:, :6], frames[1, second_row_first_column])


def test_one_cell_changes_nothing():
    frames = torch.rand(1, 4, 3, 8, 8)
    for arrangement in ("spatial", "temporal"):
        assert torch.equal(TimeLayer(1, arrangement)(frames), frames)


@pytest.mark.parametrize(("available", "expected"), [(5, 5), (8, 8), (300, 8)])
def test_short_clips_repeat_frames_and_long_ones_are_covered(available: int, expected: int):
    """As they are read: in temporal order through the layer, repeated where there are too few, spread over all where there are more."""
    asked = eval_indices("segment", available, 8, 1, 1)[0]
    arranged = TimeLayer(2, "temporal")(torch.from_numpy(asked).float().view(1, 8, 1, 1, 1))
    read = arranged.flatten().tolist()
    assert read == sorted(read)
    assert len(set(read)) == expected if available >= 8 else set(read) <= set(range(available))
    assert read[-1] - read[0] > 0.8 * (available - 1) * 7 / 8


def test_a_number_of_frames_that_fills_no_grid():
    with pytest.raises(ShapeError, match="6 frames do not fill grids of 2 x 2; use a multiple of 4"):
        TimeLayer(2, "spatial")(numbered(6))
    with pytest.raises(ShapeError, match="resolution 224 cannot be cut into 5 x 5 cells; use 220 or 225"):
        check_grid(ClipShape(frames=1, resolution=224), 5)
