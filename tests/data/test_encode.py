from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from benchctl.data.decode import decode, probe
from benchctl.data.encode import write_mp4
from benchctl.errors import MissingError, ShapeError


def test_what_is_written_is_read_back(tmp_path: Path, textured_frames: Callable[..., np.ndarray]) -> None:
    frames = textured_frames(12)
    write_mp4(tmp_path / "a.mp4", frames, fps=12)
    info = probe(tmp_path / "a.mp4")
    assert (info.frames, info.fps, info.width, info.height) == (12, 12.0, 64, 48)
    assert np.abs(decode(info.path, range(12)).astype(int) - frames).mean() < 4  # lossy, chroma at half resolution
    write_mp4(tmp_path / "b.mp4", frames, fps=12)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_an_odd_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="33x32 pixels cannot be encoded"):
        write_mp4(tmp_path / "a.mp4", np.zeros((2, 32, 33, 3), np.uint8), fps=10)


def test_a_missing_encoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    with pytest.raises(MissingError, match="libx264"):
        write_mp4(tmp_path / "a.mp4", np.zeros((2, 32, 32, 3), np.uint8), fps=10)
