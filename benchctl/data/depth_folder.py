"""Depth clips that are a folder of numbered PNGs of one 16-bit channel, as UWA3D II and 3D Action Pairs are passed on.

Frames follow each other as in `benchctl.data.jpeg_folder`.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchctl.data.jpeg_folder import frame_files, read_bytes
from benchctl.errors import ClipUnreadable

SUFFIX = ".png"

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: signature, length and name of the first chunk; width, height, bits, colour type
_HEADER = struct.Struct(">8sI4sIIBB")
_LAST_CHUNK = b"\0\0\0\0IEND\xaeB`\x82"


def is_depth_folder(path: Path) -> bool:
    """Whether `path` is a folder with a PNG in it."""
    try:
        with os.scandir(path) as entries:
            return any(entry.name.lower().endswith(SUFFIX) for entry in entries)
    except OSError:
        return False


def read_size(folder: Path) -> tuple[int, int, int]:
    """Frames, width and height, by the headers of all frames.

    Raises:
        ClipUnreadable: as `frame_files`; a frame is cut short, not of one 16-bit channel, or of another size than the first.
    """
    files = frame_files(folder, (SUFFIX,))
    sizes = [_size(file, read_bytes(file)) for file in files]
    for file, size in zip(files, sizes):
        if size != sizes[0]:
            what = f"frame '{file.name}' has {size[0]} x {size[1]} pixels, the first one {sizes[0][0]} x {sizes[0][1]}"
            raise ClipUnreadable(what, where=str(folder))
    return len(files), *sizes[0]


def read_depth(folder: Path) -> npt.NDArray[np.uint16]:
    """All frames as stored: uint16 (T, H, W, 1), in the sensor's unit.

    Raises:
        ClipUnreadable: as `read_size`, or a frame is damaged.
    """
    import cv2

    frames, width, height = read_size(folder)
    depth = np.empty((frames, height, width, 1), np.uint16)
    for place, file in enumerate(frame_files(folder, (SUFFIX,))):
        pixels = cv2.imdecode(np.frombuffer(read_bytes(file), np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.shape != (height, width) or pixels.dtype != np.uint16:
            raise ClipUnreadable(f"frame '{file.name}' is damaged", where=str(folder), fix="fetch it again")
        depth[place, ..., 0] = pixels
    return depth


def _size(file: Path, content: bytes) -> tuple[int, int]:
    """Width and height."""
    where = str(file.parent)
    if len(content) < _HEADER.size or not content.startswith(_SIGNATURE):
        raise ClipUnreadable(f"frame '{file.name}' is no PNG ({len(content)} bytes)", where=where)
    *_, width, height, bits, colour = _HEADER.unpack_from(content)
    if (bits, colour) != (16, 0):
        raise ClipUnreadable(f"frame '{file.name}' is not a PNG of one 16-bit channel, as depth is", where=where)
    if not content.endswith(_LAST_CHUNK):
        raise ClipUnreadable(f"frame '{file.name}' is cut short ({len(content)} bytes, no last chunk)", where=where)
    return width, height
