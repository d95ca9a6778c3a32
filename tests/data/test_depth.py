"""Depth clips: what is written comes back scaled, through the same door as videos, and a wrong file is named with its numbers."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from benchctl.data.decode import decode, probe
from benchctl.data.transforms import Normalisation, eval_views, train_view
from benchctl.errors import ClipUnreadable


def write(path: Path, depth: np.ndarray) -> Path:
    """(T, H, W) as MSRAction3D's files have it, one number at a time."""
    frames, height, width = depth.shape
    path.write_bytes(struct.pack("<III", frames, width, height) + b"".join(struct.pack("<I", int(value)) for value in depth.ravel()))
    return path


@pytest.fixture
def depth() -> np.ndarray:
    """Distances in millimetres, with pixels that have none, and one that is nearly none."""
    values = np.random.default_rng(0).integers(800, 4000, (5, 6, 8))
    values[:, 0] = 0
    values[2, 3, 4] = 1
    return values


def test_frames_are_scaled_by_the_largest_depth_of_the_clip(tmp_path: Path, depth: np.ndarray) -> None:
    path = write(tmp_path / "clip.bin", depth)
    info = probe(path)
    assert (info.frames, info.width, info.height, info.decoder, info.codec) == (5, 8, 6, "depth", "depth")
    frames = decode(path, [3, 0, 3], info=info)
    assert (frames.shape, frames.dtype) == ((3, 6, 8, 1), np.uint8)
    for frame, index in zip(frames, (3, 0, 3)):
        for (row, column), value in np.ndenumerate(depth[index]):
            assert frame[row, column, 0] == (max(1, round(255 * value / depth.max())) if value else 0)


def test_no_reading_is_nothing_else(tmp_path: Path, depth: np.ndarray) -> None:
    frames = decode(write(tmp_path / "clip.BIN", depth), range(5))
    assert np.array_equal(frames[..., 0] == 0, depth == 0)
    assert frames.max() == 255


def test_no_indices_and_indices_outside(tmp_path: Path, depth: np.ndarray) -> None:
    path = write(tmp_path / "clip.bin", depth)
    assert decode(path, []).shape == (0, 6, 8, 1)
    with pytest.raises(IndexError, match="0 to 4 exist"):
        decode(path, [5])


def damaged(content: bytes) -> dict[str, tuple[bytes, str]]:
    """File content, and what must be said of it."""
    absurd = struct.pack("<III", 2**32 - 1, 2**32 - 1, 2**32 - 1)
    return {
        "empty": (b"", "cut short: 0 bytes"),
        "half a header": (content[:7], "cut short: 7 bytes"),
        "truncated": (content[:-4], "5 frames of 8 x 6 pixels, 972 bytes, the file holds 968"),
        "too long": (content + b"1234", "972 bytes, the file holds 976"),
        "no frames": (struct.pack("<III", 0, 8, 6), "0 frames of 8 x 6 pixels, the file holds 12"),
        "no width": (struct.pack("<III", 5, 0, 6), "5 frames of 0 x 6"),
        "absurd": (absurd + content[12:], "4294967295 frames of 4294967295 x 4294967295 pixels"),
        "big endian": (struct.pack(">III", 5, 8, 6) + content[12:], "83886080 frames"),
        "no reading": (content[:12] + bytes(len(content) - 12), "no pixel of its 5 frames has a reading"),
    }


@pytest.mark.parametrize("what", damaged(bytes(12)))
def test_a_wrong_file_is_named_with_what_it_says_and_holds(what: str, tmp_path: Path, depth: np.ndarray) -> None:
    path = write(tmp_path / "clip.bin", depth)
    content, said = damaged(path.read_bytes())[what]
    path.write_bytes(content)
    with pytest.raises(ClipUnreadable, match=said) as caught:
        decode(path, [0])
    assert caught.value.where == str(path)


def test_a_missing_file_and_one_that_changed(tmp_path: Path, depth: np.ndarray) -> None:
    with pytest.raises(ClipUnreadable, match="cannot be read: No such file"):
        probe(tmp_path / "none.bin")
    info = probe(write(tmp_path / "clip.bin", depth))
    write(tmp_path / "clip.bin", depth[:3])
    with pytest.raises(ClipUnreadable, match="another than when it was probed"):
        decode(info.path, [0], info=info)


def test_views_of_one_channel() -> None:
    normalisation = Normalisation((0.5, 0.25, 0.15), (0.2, 0.5, 0.8))
    frames = np.full((2, 40, 50, 1), 102, np.uint8)
    views = {
        "train": train_view(frames, 32, normalisation, np.random.default_rng(0), flip=True)[None],
        "test": eval_views(frames, 32, normalisation, 3),
    }
    for crops, view in zip((1, 3), views.values()):
        assert view.shape == (crops, 2, 1, 32, 32)
        np.testing.assert_allclose(view.numpy(), (0.4 - 0.3) / 0.5, atol=1e-5)


def test_flow_beside_depth_is_told_from_it() -> None:
    frames = np.zeros((2, 32, 32, 1), np.uint8)
    flow = np.broadcast_to(np.array([3.0, -2.0], np.float32)[None, :, None, None], (2, 2, 32, 32))
    seen = set()
    for seed in range(20):
        view = train_view(frames, 32, Normalisation(), np.random.default_rng(seed), flip=True, flow=flow)
        assert view.shape == (2, 3, 32, 32)
        ratio = view[0, 1, 0, 0] / view[0, 2, 0, 0]
        seen.add(round(float(ratio), 3))
    assert seen == {-1.5, 1.5}
