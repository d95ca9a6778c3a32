"""Clips that are a folder of numbered JPEGs, as Something-Something V1 and Jester have them.

Frames follow each other by the last number in their names, which begins at 0 or 1 and leaves none out. Hidden files and files of
other kinds are passed over. A JPEG without its end mark is cut short; bytes that changed inside one can go unnoticed.
"""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from benchctl.data.time_limit import Deadline
from benchctl.errors import ClipUnreadable

if TYPE_CHECKING:
    from benchctl.data.decode import ClipInfo

SUFFIXES = (".jpg", ".jpeg")
#: at which Something-Something V1 and Jester were taken apart. The folder does not say it; only shown, never used
FRAMES_PER_SECOND = 12.0

_END_MARK = b"\xff\xd9"
_NUMBER = re.compile(r"(\d+)\D*$")


def frame_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The frames in `folder` in order.

    Raises:
        ClipUnreadable: the folder cannot be read, there is no frame, one has no number, two have the same one, or one is missing.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if e.name.lower().endswith(suffixes) and not e.name.startswith("."))
    except OSError as error:
        raise ClipUnreadable(f"the folder cannot be read: {error.strerror or error}", where=str(folder)) from error
    if not names:
        raise ClipUnreadable(f"not a file, and as a folder it holds no {' or '.join(suffixes)} frame", where=str(folder))
    numbered: dict[int, str] = {}
    for name in names:
        found = _NUMBER.search(name.rpartition(".")[0])
        if found is None:
            raise ClipUnreadable(f"frame '{name}' has no number", where=str(folder))
        other = numbered.setdefault(int(found[1]), name)
        if other != name:
            raise ClipUnreadable(f"frames '{other}' and '{name}' have the same number", where=str(folder))
    order = sorted(numbered)
    if order[0] > 1:
        raise ClipUnreadable(f"frame 1 is missing: the first is '{numbered[order[0]]}'", where=str(folder), fix="extract it again")
    for before, after in pairwise(order):
        if after != before + 1:
            what = f"frame {before + 1} is missing: '{numbered[before]}' is followed by '{numbered[after]}'"
            raise ClipUnreadable(what, where=str(folder), fix="extract it again")
    return [folder / numbered[number] for number in order]


def read_bytes(frame: Path) -> bytes:
    """The file of one frame.

    Raises:
        ClipUnreadable: it cannot be read.
    """
    try:
        return frame.read_bytes()
    except OSError as error:
        raise ClipUnreadable(f"frame '{frame.name}' cannot be read: {error.strerror or error}", where=str(frame.parent)) from error


def probe(folder: Path, deadline: Deadline) -> ClipInfo:
    """Decode every frame of `folder` once, and say what is in it.

    Raises:
        ClipUnreadable: as `frame_files`; a frame is cut short, no JPEG, or of another size than the first.
    """
    from benchctl.data.decode import ClipInfo  # which hands folders to this file

    files = frame_files(folder, SUFFIXES)
    height, width = _decoded(files[0]).shape[:2]
    for file in files[1:]:
        deadline.check()
        _sized(file, height, width)
    return ClipInfo(
        path=folder,
        frames=len(files),
        fps=FRAMES_PER_SECOND,
        width=width,
        height=height,
        codec="mjpeg",
        rotation=0,
        duration_seconds=len(files) / FRAMES_PER_SECOND,
        decoder="jpeg_folder",
    )


def read_frames(info: ClipInfo, wanted: npt.NDArray[np.int64], deadline: Deadline) -> npt.NDArray[np.uint8]:
    """Frames `wanted` of a clip, each in 0 ... frames - 1: uint8 RGB (T, H, W, 3).

    Raises:
        ClipUnreadable: as `probe`, or there are more or fewer frames than when it was probed.
    """
    files = frame_files(info.path, SUFFIXES)
    if len(files) != info.frames:
        raise ClipUnreadable(f"{info.frames} frames when it was probed, {len(files)} now", where=str(info.path))
    frames = np.empty((len(wanted), info.height, info.width, 3), np.uint8)
    for place, index in enumerate(wanted.tolist()):
        deadline.check()
        frames[place] = _sized(files[index], info.height, info.width)
    return frames


def _sized(frame: Path, height: int, width: int) -> npt.NDArray[np.uint8]:
    pixels = _decoded(frame)
    if pixels.shape[:2] != (height, width):
        what = f"frame '{frame.name}' has {pixels.shape[1]} x {pixels.shape[0]} pixels, the first one {width} x {height}"
        raise ClipUnreadable(what, where=str(frame.parent))
    return pixels


def _decoded(frame: Path) -> npt.NDArray[np.uint8]:
    """One JPEG as stored, uint8 RGB (H, W, 3)."""
    import cv2

    content = read_bytes(frame)
    # some versions of OpenCV fill what is missing with grey, and say nothing
    if not content.rstrip(b"\0\r\n").endswith(_END_MARK):
        raise ClipUnreadable(f"frame '{frame.name}' is cut short ({len(content)} bytes, no end mark)", where=str(frame.parent))
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ClipUnreadable(f"frame '{frame.name}' is no JPEG that can be decoded", where=str(frame.parent))
    return np.asarray(pixels[..., ::-1], np.uint8)
