from __future__ import annotations

from pathlib import Path

import numpy as np

from benchctl.data.decode import ClipInfo
from benchctl.data.kept import KeptFrames


def info(frames: int, side: int = 10) -> ClipInfo:
    return ClipInfo(Path("clip.mp4"), frames, 10.0, side, side, "h264", 0, 1.0, "sparse")


def test_frames_are_kept_where_most_clips_would_fit() -> None:
    kept = KeptFrames(limit_bytes=3000, clips=10)
    assert kept.takes(info(2))  # 600 bytes: five of ten fit
    assert not kept.takes(info(3))
    assert not KeptFrames(limit_bytes=0, clips=1).takes(info(1))


def test_the_limit_is_never_passed() -> None:
    kept = KeptFrames(limit_bytes=1000, clips=3)
    for index in range(3):
        if kept.takes(info(2)):
            kept.add(index, np.zeros((2, 10, 10, 3), np.uint8))
    assert (sorted(kept.frames), kept.bytes) == ([0], 600)
    kept.add(0, np.zeros((2, 10, 10, 3), np.uint8))
    assert kept.bytes == 600
