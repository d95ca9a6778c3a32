from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchctl.data.decode import decode, probe
from benchctl.data.scaling import Scaling
from benchctl.data.transforms import interpolated, scaled_size


def unrounded(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The definition: bilinear with antialiasing, in floats."""
    return interpolated(torch.from_numpy(frames).permute(0, 3, 1, 2).float().contiguous(), size).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(24, 32), (31, 20), (48, 64), (90, 70), (48, 20)])
def test_at_most_a_grey_level_from_the_definition(size: tuple[int, int], channels: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 48, 64, channels), dtype=np.uint8)
    scaled = Scaling(size).frames(frames)
    assert scaled.shape == (3, *size, channels)
    assert scaled.dtype == np.uint8
    difference = np.abs(scaled - unrounded(frames, size))
    assert difference.max() <= 1.01
    assert difference.mean() < 0.35
    if size == (48, 64):
        assert np.array_equal(scaled, frames)


def test_a_quarter_of_a_grey_level_on_real_clips(real_clips: Path) -> None:
    for name in ("k400_Tw2yXa6CzWE.mp4", "skv_bikes.mp4", "cot_cat.mp4", "x_odd_171x129.mp4"):
        info = probe(real_clips / name)
        frames = decode(info.path, [0, info.frames // 2], info=info)
        for short_side in (100, 160, 300):
            size = scaled_size(info.height, info.width, short_side)
            difference = np.abs(decode(info.path, [0, info.frames // 2], info=info, scaling=Scaling(size)) - unrounded(frames, size))
            assert difference.mean() < 0.35
            assert difference.max() <= 1.01


def test_a_box_is_cut_before_it_is_scaled() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)
    cut = np.ascontiguousarray(frames[:, 4:34, 10:50])
    assert np.array_equal(Scaling((30, 40), box=(4, 10, 30, 40)).frames(frames), cut)
    assert np.array_equal(Scaling((16, 16), box=(4, 10, 30, 40)).frames(frames), Scaling((16, 16)).frames(cut))
    # turned pictures have negative strides
    turned = np.rot90(frames[0])
    assert np.array_equal(Scaling((20, 20)).frame(turned), Scaling((20, 20)).frame(turned.copy()))
