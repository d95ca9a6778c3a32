from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from benchctl.data import decode as decoding
from benchctl.data.decode import decode, probe
from benchctl.data.encode import write_mp4
from benchctl.data.sparse import _spans, sparse_frames
from benchctl.data.time_limit import Deadline
from benchctl.errors import ClipUnreadable

Make = Callable[..., np.ndarray]


def deadline(path: Path) -> Deadline:
    return Deadline(path, 60, time.monotonic() + 60)


def write(path: Path, frames: np.ndarray, options: dict[str, str], codec: str = "libx264") -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


#: closed and open groups of pictures, B-frames that others refer to and that none does, several frames that each P-frame refers to
ENCODINGS = {
    "closed": {"g": "12", "bf": "3"},
    "open": {"g": "12", "bf": "3", "x264-params": "open-gop=1"},
    "pyramid": {"g": "30", "bf": "5", "x264-params": "b-pyramid=normal:ref=4"},
    "no_b": {"g": "7", "bf": "0"},
    "one_group": {"g": "1000", "bf": "2"},
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_frame_by_itself_and_random_ones_together(encoding: str, tmp_path: Path, textured_frames: Make) -> None:
    path = tmp_path / "clip.mp4"
    write(path, textured_frames(60), ENCODINGS[encoding])
    info = probe(path)
    assert info.decoder == "sparse"
    truth = decode(path, range(60), decoder="pyav", info=info)
    rng = np.random.default_rng(0)
    asked = [np.array([i]) for i in range(60)] + [np.sort(rng.choice(60, size, replace=False)) for size in (2, 3, 5, 8, 20, 60)]
    for wanted in asked:
        found = sparse_frames(info, wanted, deadline(path), None)
        assert found is not None
        assert np.array_equal(found, truth[wanted])


def test_real_clips_give_the_bytes_of_a_sequential_decode(real_clips: Path) -> None:
    rng = np.random.default_rng(1)
    for name in ("k400_Tw2yXa6CzWE.mp4", "mma_demo_k400.mp4", "skv_bikes.mp4", "x_xvid_bframes.avi", "tc_h265_video.mp4"):
        info = probe(real_clips / name)
        assert info.decoder == "sparse"
        truth = decode(info.path, range(info.frames), decoder="pyav", info=info)
        for size in (1, 1, 2, 4, 8):
            wanted = np.sort(rng.choice(info.frames, size, replace=False))
            assert np.array_equal(decode(info.path, wanted, info=info), truth[wanted])


def test_what_is_decoded_is_little(tmp_path: Path, textured_frames: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.mp4"
    write(path, textured_frames(60), {"g": "12", "bf": "3", "sc_threshold": "0", "x264-params": "b-pyramid=none:b-adapt=0"})
    info = probe(path)
    decoded = 0
    honest = decoding.sparse_frames.__globals__["packet_frames"]

    def counted(*arguments: object) -> list[object]:
        nonlocal decoded
        frames = list(honest(*arguments))
        decoded += len(frames)
        return frames

    monkeypatch.setattr("benchctl.data.sparse.packet_frames", counted)
    decode(path, [24], info=info)
    assert decoded <= 1  # a key frame, which comes out at once or when the decoder is emptied
    decoded = 0
    decode(path, [34], info=info)
    # its group has three P-frames and nine B-frames, of which nothing but the one asked for is decoded
    assert decoded <= 5


def packets(*shown: int, keys: tuple[int, ...]) -> list[SimpleNamespace]:
    return [SimpleNamespace(pts=pts, is_keyframe=position in keys) for position, pts in enumerate(shown)]


def test_spans_go_from_a_group_to_the_last_frame_asked_for() -> None:
    closed = packets(0, 3, 1, 2, 4, 6, 5, 7, 8, keys=(0, 4, 7))
    assert _spans(closed, {1: 0}) == [(0, 2)]
    assert _spans(closed, {5: 0, 3: 1}) == [(0, 1), (4, 6)]
    assert _spans(closed, {8: 0}) == [(7, 8)]
    # frame 3 is shown before the key frame that precedes it, and refers across it
    leading = packets(0, 2, 1, 4, 3, 5, keys=(0, 3))
    assert _spans(leading, {5: 0}) == [(0, 5)]


def test_another_file_than_was_probed_is_none_for_it(mp4: Path, tmp_path: Path, textured_frames: Make) -> None:
    info = dataclasses.replace(probe(mp4), path=tmp_path / "clip.mp4")
    assert info.decoder == "sparse"
    write_mp4(info.path, textured_frames(10), fps=10)
    assert sparse_frames(info, np.array([5]), deadline(info.path), None) is None
    with pytest.raises(ClipUnreadable, match="40 frames when it was probed, 10 now"):
        decode(info.path, [30], info=info)


def test_the_time_limit_holds(mp4: Path) -> None:
    info = probe(mp4)
    with pytest.raises(ClipUnreadable, match="not decoded within 0 s"):
        sparse_frames(info, np.array([5]), Deadline(mp4, 0, time.monotonic() - 1), None)
