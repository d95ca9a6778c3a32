"""What reading a video file with PyAV takes: opening it, its video streams, the frames of a packet, and a frame's upright pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchctl.data.time_limit import Deadline
from benchctl.errors import ClipUnreadable

if TYPE_CHECKING:
    from pathlib import Path

    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Frames = npt.NDArray[np.uint8]


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """The container at `path`; what goes wrong inside is raised as ClipUnreadable too."""
    import av

    doing = "cannot be opened as video"
    try:
        if not path.is_file():
            raise ClipUnreadable("not a file" if path.exists() else "no such file", where=str(path))
        if path.stat().st_size == 0:
            raise ClipUnreadable("the file is empty (0 bytes)", where=str(path))
        with av.open(str(path), metadata_errors="ignore") as container:
            doing = "cannot be read to its end"
            yield container
    except (av.FFmpegError, OSError) as error:
        raise ClipUnreadable(f"{doing}: {reason_of(error)}", where=str(path)) from error


def reason_of(error: Exception) -> str:
    """What FFmpeg says, with the line it logged, which is often the more concrete one."""
    words = getattr(error, "strerror", None) or str(error)
    log = getattr(error, "log", None)
    return f"{words} ({log[2].strip().rstrip('.')})" if log else words


def video_streams(container: InputContainer, path: Path) -> list[VideoStream]:
    """Its video streams, cover pictures aside, each decoded by one thread; raises ClipUnreadable where there is none."""
    from av.stream import Disposition

    # A cover picture is a video stream of one frame.
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise ClipUnreadable(f"no video stream, only {len(container.streams.audio)} audio", where=str(path))
    for stream in streams:
        if stream.codec_context is None:
            raise ClipUnreadable(f"FFmpeg has no decoder for video stream {stream.index}", where=str(path))
        stream.codec_context.thread_count = 1  # the loader's processes are the parallelism
    return streams


def packet_frames(packet: Packet[Any], decoded: int, deadline: Deadline) -> Iterator[VideoFrame]:
    """Frames of one packet; `decoded` came before it. Raises ClipUnreadable where one is damaged, or the time is over."""
    import av

    deadline.check()
    where = str(deadline.path)
    if packet.is_corrupt:
        raise ClipUnreadable(f"cut short or damaged: a packet after frame {decoded} is incomplete", where=where)
    try:
        frames = packet.decode()
    except av.FFmpegError as error:
        raise ClipUnreadable(f"damaged after frame {decoded}: {reason_of(error)}", where=where) from error
    for offset, frame in enumerate(frames):
        if frame.is_corrupt:
            raise ClipUnreadable(f"damaged: the decoder flags frame {decoded + offset}", where=where)
        yield frame


def rotation(frame: VideoFrame) -> int:
    """Degrees counter-clockwise that the rotation tag asks for: 0, 90, 180 or 270."""
    return round(frame.rotation / 90) * 90 % 360


class Upright:
    """Frames of one stream to upright RGB pixels.

    It keeps the converter from one frame to the next, on one thread: a new one for each frame, with threads of its own, takes longer than
    what it converts.
    """

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._converter = VideoReformatter()

    def pixels(self, frame: VideoFrame, size: tuple[int, int] | None = None) -> Frames:
        """One frame, uint8 (H, W, 3); `size` is the (width, height) that a stream of several sizes is scaled to."""
        width, height = size or (frame.width, frame.height)
        converted = self._converter.reformat(frame, width=width, height=height, format="rgb24", threads=1)
        return np.rot90(converted.to_ndarray(), k=rotation(frame) // 90)
