"""Whether the frames of a clip fit into memory while they are decoded and scaled."""

from __future__ import annotations

import os
from pathlib import Path

from benchctl.data.decode import ClipInfo
from benchctl.errors import MissingError

#: of each value: one byte decoded, four as a float that is scaled
_BYTES_PER_VALUE = 5


def check_room(info: ClipInfo, frames: int) -> None:
    """Raise MissingError where `frames` frames of a video are larger than the memory that is free, before any is decoded."""
    needed, free = frames * info.height * info.width * 3 * _BYTES_PER_VALUE, _available_bytes()
    if free is not None and needed > free:
        size = f"{frames} frames of {info.width} x {info.height} pixels take {needed / 2**30:,.1f} GiB while they are scaled"
        fix = "use fewer frames, a smaller 'grid' of the TIME layer, or smaller videos"
        raise MissingError(f"{size}, and {free / 2**30:,.1f} GiB of memory are free", where=str(info.path), fix=fix)


def _available_bytes() -> int | None:
    """Memory that can be had without swapping; None where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None
