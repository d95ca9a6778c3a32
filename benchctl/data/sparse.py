"""The frames asked for, without decoding what they do not rest on.

A frame rests on frames of its own group, which starts with a key frame, and on none that the encoder marked as no reference for others.
So groups without a frame that is asked for are not decoded, nor what follows the last one asked for in a group, nor frames that no other
frame refers to (most B-frames). What is decoded gets the bytes that a sequential decode gives it.

Which packet holds frame i follows from the times: frame i is the i-th that is shown. A file in which times are missing or repeat, or
whose packets are not as many as its frames, is none for this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchctl.data.pyav_file import Frames, Upright, opened, packet_frames, video_streams
from benchctl.data.scaling import Scaling
from benchctl.data.time_limit import Deadline
from benchctl.errors import ClipUnreadable

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

    from benchctl.data.decode import ClipInfo


def sparse_frames(info: ClipInfo, wanted: npt.NDArray[np.int64], deadline: Deadline, scaling: Scaling | None) -> Frames | None:
    """Frames `wanted` (sorted, distinct) of `info`: uint8 (T, H, W, 3), each brought through `scaling`.

    None where the file does not allow it, or did not give them all; a sequential decode says why.

    Raises:
        ClipUnreadable: the time is over.
    """
    try:
        with opened(info.path) as container:
            stream = next((s for s in video_streams(container, info.path) if s.index == info.stream), None)
            if stream is None:
                return None
            packets = [packet for packet in container.demux(stream) if packet.size]
            shown = _times(packets)
            if len(packets) != info.frames or len(set(shown)) != info.frames:
                return None
            times = sorted(shown)
            places = {times[index]: place for place, index in enumerate(wanted.tolist())}
            found = _decoded(stream, packets, places, deadline, scaling)
    except ClipUnreadable:
        deadline.check()
        return None
    if len(found) != len(wanted):
        return None
    frames = np.stack([found[place] for place in range(len(wanted))])
    return frames if scaling or frames.shape[1:3] == (info.height, info.width) else None


def _decoded(
    stream: VideoStream, packets: Sequence[Packet[Any]], places: dict[int, int], deadline: Deadline, scaling: Scaling | None
) -> dict[int, Frames]:
    """The frames shown at the times in `places`, by their place."""
    found: dict[int, Frames] = {}
    upright = Upright()
    needed = [packet for first, last in _spans(packets, places) for packet in packets[first : last + 1]]
    for number, packet in enumerate([*needed, None]):
        if packet is None:
            frames = stream.codec_context.decode(None)
        else:
            # read when the packet is decoded, which with one thread is at once
            stream.codec_context.skip_frame = "DEFAULT" if packet.pts in places else "NONREF"
            frames = list(packet_frames(packet, number, deadline))
        for frame in frames:
            place = places.get(frame.pts) if frame.pts is not None else None
            if place is not None and not frame.is_corrupt:
                pixels = upright.pixels(frame)
                found[place] = scaling.frame(pixels) if scaling else pixels
    return found


def _times(packets: Sequence[Packet[Any]]) -> list[int]:
    """When the frames of `packets` are shown, where that is known."""
    return [packet.pts for packet in packets if packet.pts is not None]


def _spans(packets: Sequence[Packet[Any]], places: dict[int, int]) -> list[tuple[int, int]]:
    """First and last packet of each stretch that must be decoded: from a group's start to the last of its frames that is asked for.

    A group starts at a key frame before which everything is shown that comes before it in the file, and after which nothing is shown
    that was shown earlier: where that is not so, frames refer across it.
    """
    times = _times(packets)
    earlier = np.maximum.accumulate(times)
    later = np.minimum.accumulate(times[::-1])[::-1]
    spans: list[tuple[int, int]] = []
    start = 0
    for position, (packet, time) in enumerate(zip(packets, times)):
        if position and packet.is_keyframe and earlier[position - 1] < time == later[position]:
            start = position
        if time not in places:
            continue
        if spans and spans[-1][0] == start:
            spans[-1] = start, position
        else:
            spans.append((start, position))
    return spans
