from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from benchctl.data.decode import decode, probe
from benchctl.data.encode import write_mp4
from benchctl.data.shape_scene import draw_scene
from benchctl.errors import MissingError, ShapeError

Frames = Callable[..., np.ndarray]


def test_what_is_written_is_read_back(tmp_path: Path, textured_frames: Frames, with_half_chroma: Frames) -> None:
    frames = textured_frames(12)
    write_mp4(tmp_path / "a.mp4", frames, fps=12)
    info = probe(tmp_path / "a.mp4")
    assert (info.frames, info.fps, info.width, info.height) == (12, 12.0, 64, 48)
    assert np.abs(decode(info.path, range(12)).astype(int) - with_half_chroma(frames)).mean() < 3


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    # frames on which x264's own rate control was seen to vary
    scene = draw_scene("right", 96, 5, np.random.default_rng([0, 1, 1, 0]))
    frames = np.stack([scene.pixels(frame) for frame in range(5)])
    seen, kept = set(), []
    for number in range(25):
        kept.append(np.full(1000 * number, 0.5))  # so that the encoder meets other memory each time
        write_mp4(tmp_path / "a.mp4", frames, fps=24)
        seen.add((tmp_path / "a.mp4").read_bytes())
    assert len(seen) == 1


def test_an_odd_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="33x32 pixels cannot be encoded"):
        write_mp4(tmp_path / "a.mp4", np.zeros((2, 32, 33, 3), np.uint8), fps=10)


def test_a_missing_encoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    with pytest.raises(MissingError, match="libx264"):
        write_mp4(tmp_path / "a.mp4", np.zeros((2, 32, 32, 3), np.uint8), fps=10)
