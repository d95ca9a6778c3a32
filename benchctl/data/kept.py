"""Decoded frames of small clips, kept in memory for the next epoch."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchctl.data.decode import ClipInfo
from benchctl.data.pyav_file import Frames

#: share of the clips that must fit, were they all as large as the one at hand: a clip that is kept is decoded as a whole the first time,
#: which is not worth it where few are kept
_SHARE = 0.5


@dataclass
class KeptFrames:
    """All frames of the clips that came first, as decoded, before anything is drawn. Nothing that was kept is dropped."""

    #: bytes that they may take in this process; 0: none are kept
    limit_bytes: int
    #: clips of the data set
    clips: int
    bytes: int = 0
    frames: dict[int, Frames] = field(default_factory=dict)

    def takes(self, info: ClipInfo) -> bool:
        """Whether the frames of such a clip should be kept: most of the clips would fit if they were as large, and there is room."""
        size = info.frames * info.height * info.width * 3
        return size * self.clips * _SHARE <= self.limit_bytes and self.bytes + size <= self.limit_bytes

    def add(self, index: int, frames: Frames) -> None:
        """Keep all frames of clip `index`."""
        if index not in self.frames:
            self.frames[index] = frames
            self.bytes += frames.nbytes
