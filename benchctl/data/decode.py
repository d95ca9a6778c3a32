"""Video files to RGB frames, by the index a sequential decode gives them.

PyAV's sequential decode of the whole video stream is the definition of "frame i". Two faster ways are used where they were seen to
return the same bytes, and nowhere else: `benchctl.data.sparse`, which decodes nothing that the frames asked for do not rest on, then
decord, which returns neighbours of the frames asked for on files with B-frames in AVI, on HEVC and on edit lists, without an error.
`probe` settles this once per file, and `decode` follows it.

A file is readable when every frame its container announces decodes without an error and without a damage flag. H.264, MPEG-4 and
AV1 decoders flag most damage inside a frame; VP9 and HEVC decoders flag none, so changed bytes in such a file can go unnoticed.

Files that end in `.bin` and folders of PNGs are depth clips (`benchctl.data.depth`), of one channel; other folders hold JPEGs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from benchctl.data import depth, jpeg_folder
from benchctl.data.pyav_file import Frames as Frames
from benchctl.data.pyav_file import Upright, opened, packet_frames, rotation, video_streams
from benchctl.data.scaling import Scaling
from benchctl.data.sparse import sparse_frames
from benchctl.data.time_limit import Deadline, within
from benchctl.errors import ClipUnreadable, MissingError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Decoder = Literal["sparse", "decord", "pyav", "depth", "jpeg_folder"]
#: seconds after which a clip counts as unreadable
TIME_LIMIT_SECONDS = 60.0
#: what decord is tried on. Elsewhere it was wrong (AVI, MPEG-PS, HEVC, 10 bit) or cannot open the file (AV1).
_DECORD_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
_DECORD_CODECS = {"h264", "vp8", "vp9"}
_DECORD_PIXELS = {"yuv420p", "yuvj420p", "yuv422p", "yuv444p"}
#: frames of each file on which decord must agree with PyAV byte for byte
_COMPARED_FRAMES = 16


@dataclass(frozen=True)
class ClipInfo:
    """What a complete decode of one file found."""

    path: Path
    #: frames that a sequential decode gives, whatever the container announces
    frames: int
    #: average frames per second
    fps: float
    #: pixels, after the rotation tag
    width: int
    height: int
    codec: str
    #: degrees counter-clockwise that the rotation tag asks for: 0, 90, 180 or 270
    rotation: int
    #: time from the first frame shown to the end of the last
    duration_seconds: float
    #: what `decode` uses for this file
    decoder: Decoder
    #: index of the video stream with most frames
    stream: int = 0


def versions() -> dict[str, str]:
    """Decoders present, by name, with their versions."""
    import av

    present = {"PyAV": av.__version__, "FFmpeg": av.ffmpeg_version_info}
    decord = _decord()
    return {**present, "decord": decord.__version__} if decord else present


def probe(path: Path | str, *, time_limit_seconds: float = TIME_LIMIT_SECONDS) -> ClipInfo:
    """Decode all of `path` once, and say what is in it.

    Raises:
        ClipUnreadable: empty, no video, cut short, damaged, or not decoded within `time_limit_seconds`.
    """
    path = Path(path)
    probing = _probe_depth if depth.is_depth(path) else jpeg_folder.probe if path.is_dir() else _probe
    return within(time_limit_seconds, path, lambda deadline: probing(path, deadline))


def decode(
    path: Path | str,
    indices: Sequence[int] | npt.NDArray[np.int64],
    *,
    decoder: Decoder | Literal["auto"] = "auto",
    info: ClipInfo | None = None,
    scaling: Scaling | None = None,
    time_limit_seconds: float = TIME_LIMIT_SECONDS,
) -> Frames:
    """Frames of `path`, upright: uint8 RGB (T, H, W, 3), or (T, H, W, 1) of depth, the clip's largest being 255 and no reading 0.

    `indices` may repeat and come in any order. With `scaling` each frame is cut and scaled as soon as it is decoded, so that frames of
    full size are never held together where PyAV decodes.

    Without `info` the file is probed first. `auto` is `info.decoder`. The clip is opened, read and closed inside this call, so
    nothing crosses a fork.

    Raises:
        ClipUnreadable: as `probe`, or when the file ends before a frame that `info` announces.
        IndexError: an index is not in 0 ... frames - 1.
        MissingError: `decoder` is "decord", which is not installed.
    """
    path = Path(path)
    info = info or probe(path, time_limit_seconds=time_limit_seconds)
    asked = np.asarray(indices, dtype=np.int64)
    if asked.ndim != 1:
        raise IndexError(f"indices must be one-dimensional, not {asked.shape}")
    if asked.size == 0:
        height, width = scaling.size if scaling else (info.height, info.width)
        return np.empty((0, height, width, 1 if info.decoder == "depth" else 3), np.uint8)
    if asked.min() < 0 or asked.max() >= info.frames:
        raise IndexError(f"{path}: frames {asked.min()} to {asked.max()} asked for, 0 to {info.frames - 1} exist")
    wanted, back = np.unique(asked, return_inverse=True)
    read = _READERS[info.decoder if decoder == "auto" else decoder]
    frames = within(time_limit_seconds, path, lambda deadline: read(info, wanted, deadline, scaling))
    return np.ascontiguousarray(frames[back])


# ---- depth ----


def _probe_depth(path: Path, deadline: Deadline) -> ClipInfo:
    deadline.check()
    size = depth.read_size(path)
    return ClipInfo(
        path=path,
        frames=size.frames,
        fps=depth.FRAMES_PER_SECOND,
        width=size.width,
        height=size.height,
        codec="depth",
        rotation=0,
        duration_seconds=size.frames / depth.FRAMES_PER_SECOND,
        decoder="depth",
    )


def _depth_frames(info: ClipInfo, wanted: npt.NDArray[np.int64], deadline: Deadline, scaling: Scaling | None) -> Frames:
    """Frames `wanted` (sorted, distinct) of a depth clip."""
    deadline.check()
    if depth.read_size(info.path) != depth.DepthSize(info.frames, info.width, info.height):
        raise ClipUnreadable("its size is another than when it was probed", where=str(info.path))
    frames = depth.read_frames(info.path, wanted)
    return scaling.frames(frames) if scaling else frames


# ---- PyAV ----


@dataclass
class _Spread:
    """At most `_COMPARED_FRAMES` frames, evenly spaced over a stream whose length is not known beforehand."""

    stride: int = 1
    kept: dict[int, VideoFrame] = field(default_factory=dict)

    def add(self, index: int, frame: VideoFrame) -> None:
        if index % self.stride:
            return
        if len(self.kept) == _COMPARED_FRAMES:
            self.stride *= 2
            self.kept = {i: f for i, f in self.kept.items() if i % self.stride == 0}
        if index % self.stride == 0:
            self.kept[index] = frame


@dataclass
class _Tally:
    """What the decode of one stream found so far."""

    packets: int = 0
    frames: int = 0
    discarded: int = 0
    first: VideoFrame | None = None
    sizes: set[tuple[int, int]] = field(default_factory=set)
    #: seconds at which the earliest frame is shown and the latest one ends
    start: float = float("inf")
    end: float = float("-inf")
    spread: _Spread = field(default_factory=_Spread)

    def add(self, frame: VideoFrame, frame_seconds: float) -> None:
        self.first = self.first or frame
        self.sizes.add((frame.width, frame.height))
        self.spread.add(self.frames, frame)
        self.frames += 1
        if frame.time is not None:
            self.start = min(self.start, frame.time)
            self.end = max(self.end, frame.time + frame_seconds)


def _probe(path: Path, deadline: Deadline) -> ClipInfo:
    with opened(path) as container:
        streams = video_streams(container, path)
        tallies, end_seconds = _decode_all(container, streams, deadline)
        stream = max(streams, key=lambda s: tallies[s.index].frames)
        tally = tallies[stream.index]
        if tally.first is None:
            raise ClipUnreadable("no frame could be decoded", where=str(path))
        _check_complete(container, stream, tally.packets, end_seconds, path)
        turned = rotation(tally.first)
        width, height = tally.first.width, tally.first.height
        duration = tally.end - tally.start if tally.end > tally.start else tally.frames / float(stream.average_rate or 25)
        info = ClipInfo(
            path=path,
            frames=tally.frames,
            fps=float(stream.average_rate) if stream.average_rate else tally.frames / duration,
            width=height if turned % 180 else width,
            height=width if turned % 180 else height,
            codec=stream.codec_context.codec.canonical_name,
            rotation=turned,
            duration_seconds=duration,
            decoder="pyav",
            stream=stream.index,
        )
        fixed = len(streams) == len(tally.sizes) == 1 and tally.discarded == 0
        ordinary = (
            fixed
            and turned == 0
            and container.format.name in _DECORD_CONTAINERS
            and info.codec in _DECORD_CODECS
            and stream.codec_context.pix_fmt in _DECORD_PIXELS
        )
    if fixed and _sparse_agrees(info, tally.spread.kept, deadline):
        return replace(info, decoder="sparse")
    if ordinary and _decord_agrees(info, tally.spread.kept, deadline):
        return replace(info, decoder="decord")
    return info


def _decode_all(container: InputContainer, streams: list[VideoStream], deadline: Deadline) -> tuple[dict[int, _Tally], float]:
    """Decode every video stream to its end. Also gives the second at which the last packet of any stream ends."""
    tallies = {stream.index: _Tally() for stream in streams}
    frame_seconds = {stream.index: 1 / float(stream.average_rate) if stream.average_rate else 0.0 for stream in streams}
    end_seconds = 0.0
    for packet in container.demux():
        if packet.pts is not None:
            end_seconds = max(end_seconds, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        tally = tallies.get(packet.stream_index)
        if tally is None:
            continue
        if packet.size or packet.dts is not None:  # not the empty packet that asks for the last frames
            tally.packets += 1
            tally.discarded += packet.is_discard
        for frame in packet_frames(packet, tally.frames, deadline):
            tally.add(frame, frame_seconds[packet.stream_index])
    return tallies, end_seconds


def _check_complete(container: InputContainer, stream: VideoStream, packets: int, end_seconds: float, path: Path) -> None:
    """Raise ClipUnreadable when the container announces more than the file holds."""
    announced, spare = stream.frames, 0
    if container.format.name.startswith("mov"):
        # The sample table is exact, and the demuxer's index has the samples that edit lists leave out taken away.
        announced = len(stream.index_entries) if announced else 0
    else:
        spare = max(2, announced // 100)  # AVI headers are often off by a frame
    if packets < announced - spare:
        raise ClipUnreadable(f"cut short: {announced} frames announced, {packets} in the file", where=str(path))
    # Matroska announces no frames, but a duration that its longest stream reaches.
    if not announced and container.format.name.startswith("matroska") and container.duration:
        announced_seconds = container.duration / 1e6
        if end_seconds < announced_seconds - max(1.0, 0.05 * announced_seconds):
            raise ClipUnreadable(f"cut short: {announced_seconds:.1f} s announced, {end_seconds:.1f} s in the file", where=str(path))


def _pyav_frames(info: ClipInfo, wanted: npt.NDArray[np.int64], deadline: Deadline, scaling: Scaling | None) -> Frames:
    """Frames `wanted` (sorted, distinct) by decoding from the start."""
    size = (info.height, info.width) if info.rotation % 180 else (info.width, info.height)
    frames: list[Frames] = []
    index, upright = 0, Upright()
    with opened(info.path) as container:
        stream = next((s for s in video_streams(container, info.path) if s.index == info.stream), None)
        if stream is None:
            raise ClipUnreadable(f"video stream {info.stream} is gone: the file changed since it was probed", where=str(info.path))
        for packet in container.demux(stream):
            for frame in packet_frames(packet, index, deadline):
                if index == wanted[len(frames)]:
                    pixels = upright.pixels(frame, size)
                    frames.append(scaling.frame(pixels) if scaling else pixels)
                    if len(frames) == len(wanted):
                        return np.stack(frames)
                index += 1
    raise ClipUnreadable(f"{info.frames} frames when it was probed, {index} now", where=str(info.path))


def _sparse_frames(info: ClipInfo, wanted: npt.NDArray[np.int64], deadline: Deadline, scaling: Scaling | None) -> Frames:
    """As `_pyav_frames`, without decoding what they do not rest on; where that fails, the sequential decode says what is the matter."""
    frames = sparse_frames(info, wanted, deadline, scaling)
    return _pyav_frames(info, wanted, deadline, scaling) if frames is None else frames


def _sparse_agrees(info: ClipInfo, truth: dict[int, VideoFrame], deadline: Deadline) -> bool:
    """Whether decoding only what the frames in `truth` rest on returns the same bytes for them."""
    frames = sparse_frames(info, np.array(sorted(truth), np.int64), deadline, None)
    return frames is not None and _same(frames, truth)


def _same(frames: Frames, truth: dict[int, VideoFrame]) -> bool:
    upright = Upright()
    return all(np.array_equal(frames[i], upright.pixels(truth[index])) for i, index in enumerate(sorted(truth)))


# ---- decord ----


@cache
def _decord() -> Any:
    """The decord module, quiet, or None where it is not installed (it has no wheels for some platforms)."""
    try:
        import decord
    except (ImportError, OSError):
        return None
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def _decord_frames(info: ClipInfo, wanted: npt.NDArray[np.int64], deadline: Deadline, scaling: Scaling | None) -> Frames:
    """Frames `wanted` (sorted, distinct) through decord."""
    decord = _decord()
    if decord is None:
        raise MissingError("decord is not installed", fix="pip install decord, or use decoder 'pyav'")
    deadline.check()
    try:
        frames: Frames = decord.VideoReader(str(info.path), num_threads=1).get_batch(wanted).asnumpy()
    except (decord.DECORDError, IndexError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ClipUnreadable(f"decord cannot decode it: {reason}", where=str(info.path)) from error
    if frames.shape != (len(wanted), info.height, info.width, 3):
        raise ClipUnreadable(f"decord gives frames of shape {frames.shape[1:]}", where=str(info.path))
    return scaling.frames(frames) if scaling else frames


def _decord_agrees(info: ClipInfo, truth: dict[int, VideoFrame], deadline: Deadline) -> bool:
    """Whether decord counts as many frames as PyAV, and returns the same bytes for those in `truth`."""
    decord = _decord()
    if decord is None:
        return False
    try:
        if len(decord.VideoReader(str(info.path), num_threads=1)) != info.frames:
            return False
        frames = _decord_frames(info, np.array(sorted(truth), np.int64), deadline, None)
    except (decord.DECORDError, ClipUnreadable):
        return False  # PyAV has decoded all of it: the file is fine, and decord is not for it
    return _same(frames, truth)


def _jpeg_frames(info: ClipInfo, wanted: npt.NDArray[np.int64], deadline: Deadline, scaling: Scaling | None) -> Frames:
    frames = jpeg_folder.read_frames(info, wanted, deadline)
    return scaling.frames(frames) if scaling else frames


_READERS: dict[Decoder, Callable[[ClipInfo, npt.NDArray[np.int64], Deadline, Scaling | None], Frames]] = {
    "sparse": _sparse_frames,
    "decord": _decord_frames,
    "pyav": _pyav_frames,
    "depth": _depth_frames,
    "jpeg_folder": _jpeg_frames,
}
