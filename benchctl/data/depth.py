"""Depth clips in MSRAction3D's files: three little-endian 32-bit counts (frames, width, height), then 32-bit depths, row by row.

A folder of 16-bit PNGs (`benchctl.data.depth_folder`) is read to the same numbers.

A depth of 0 is no reading. The unit is the sensor's and the file does not say it, so depths are given relative to the clip's largest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchctl.data import depth_folder
from benchctl.errors import ClipUnreadable

#: how the name of a depth clip ends
SUFFIX = ".bin"
#: about that of the camera that MSRAction3D was taken with, which the file does not say (Li, Zhang and Liu 2010); only shown, never used
FRAMES_PER_SECOND = 15.0

_COUNT = np.dtype("<u4")
_HEADER_BYTES = 3 * _COUNT.itemsize


@dataclass(frozen=True)
class DepthSize:
    """What the header of a depth clip says."""

    frames: int
    width: int
    height: int

    @property
    def bytes(self) -> int:
        """Of a whole file of this size."""
        return _HEADER_BYTES + self.frames * self.width * self.height * _COUNT.itemsize


def is_depth(path: Path) -> bool:
    """Whether the name of `path`, or what is in the folder, says that it is a depth clip."""
    return path.suffix.lower() == SUFFIX or depth_folder.is_depth_folder(path)


def read_size(path: Path) -> DepthSize:
    """The size that the header gives, which the file must have.

    Raises:
        ClipUnreadable: no file, no header, a count of 0, or a file of another length than the header asks for; for a folder, as
            `depth_folder.read_size`.
    """
    if path.is_dir():
        return DepthSize(*depth_folder.read_size(path))
    try:
        held = path.stat().st_size
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except OSError as error:
        raise ClipUnreadable(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    if len(header) < _HEADER_BYTES:
        raise ClipUnreadable(f"cut short: {held} bytes, and a depth clip begins with {_HEADER_BYTES} that give its size", where=str(path))
    frames, width, height = (int(count) for count in np.frombuffer(header, _COUNT))
    size = DepthSize(frames, width, height)
    said = f"the header says {frames} frames of {width} x {height} pixels"
    if not frames or not width or not height:
        raise ClipUnreadable(f"{said}, the file holds {held} bytes", where=str(path), fix="fetch it again")
    if held != size.bytes:
        raise ClipUnreadable(f"{said}, {size.bytes} bytes, the file holds {held}", where=str(path), fix="fetch it again")
    return size


def read_frames(path: Path, wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Frames `wanted`, each in 0 ... frames - 1: uint8 (T, H, W, 1), such that the largest depth of the whole clip is 255.

    No reading is 0, and nothing else is: a depth too small for 1 is 1.

    Raises:
        ClipUnreadable: as `read_size`, or no pixel of the clip has a reading.
    """
    depth = depth_folder.read_depth(path) if path.is_dir() else _read_file(path)
    largest = int(depth.max())
    if not largest:
        raise ClipUnreadable(f"no pixel of its {len(depth)} frames has a reading", where=str(path))
    asked = depth[wanted]
    scaled = np.rint(asked * (255.0 / largest)).astype(np.uint8)
    return np.maximum(scaled, asked > 0, dtype=np.uint8)


def _read_file(path: Path) -> npt.NDArray[np.unsignedinteger]:
    """All depths of a file: (T, H, W, 1)."""
    size = read_size(path)
    try:
        return np.fromfile(path, _COUNT, offset=_HEADER_BYTES).reshape(size.frames, size.height, size.width, 1)
    except (OSError, ValueError) as error:
        raise ClipUnreadable(f"cannot be read to its end: {error}", where=str(path)) from error
