"""Frames to H.264 files, the same bytes every time."""

from __future__ import annotations

from pathlib import Path

from benchctl.data.decode import Frames
from benchctl.errors import MissingError, ShapeError


def write_mp4(path: Path, frames: Frames, *, fps: int) -> None:
    """Write uint8 RGB (T, H, W, 3) as H.264 yuv420p in mp4, with one key frame a second.

    The same frames give the same bytes with the same versions of PyAV and its libraries.

    Raises:
        ShapeError: the height or width is odd, which yuv420p cannot hold.
        MissingError: this PyAV was built without libx264.
        OSError: the file cannot be written.
    """
    import av

    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ShapeError(f"a frame of {width}x{height} pixels cannot be encoded as yuv420p", fix="use an even size")
    if "libx264" not in av.codecs_available:
        raise MissingError("PyAV has no H.264 encoder (libx264)", fix="install PyAV from its published wheels")
    # bitexact: no version and no date in the file. One thread: the split into slices depends on the count. A constant quantiser and
    # no B-frames: x264's look-ahead, which both rest on otherwise, gave other bytes for the same frames from one time to the next.
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=fps, options={"qp": "16", "bf": "0", "preset": "veryfast", "g": str(fps)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
