from __future__ import annotations

import dataclasses
import pickle
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from benchctl.data import decode as module
from benchctl.data.decode import ClipInfo, decode, probe, versions
from benchctl.data.encode import write_mp4
from benchctl.data.scaling import Scaling
from benchctl.data.time_limit import Deadline
from benchctl.errors import ClipUnreadable, MissingError

#: file -> frames, (width, height), whether decord may be used; counted by PyAV's sequential decode
READABLE = {
    "cot_cat.mp4": (87, (368, 480), True),
    "dec_video_90.mov": (3, (320, 568), False),
    "k400_Tw2yXa6CzWE.mp4": (300, (426, 320), True),
    "mma_demo_k400.mp4": (280, (340, 256), True),
    "mma_part_0.mp4": (32, (340, 256), True),
    "mma_test.avi": (164, (320, 240), False),
    "mma_test.mp4": (300, (340, 256), True),
    "skv_bikes.mp4": (250, (640, 272), True),
    "tc_av1_video.mkv": (125, (640, 360), False),
    "tc_h264_10bits.mp4": (30, (200, 200), False),
    "tc_h265_video.mp4": (10, (128, 128), False),
    "x_cutcopy_editlist.mp4": (192, (340, 256), False),
    "x_odd_171x129.mp4": (280, (171, 129), True),
    "x_onegop.mp4": (280, (340, 256), True),
    "x_portrait.mp4": (280, (256, 340), True),
    "x_vfr.mp4": (187, (340, 256), True),
    "x_vp9_240p.webm": (120, (318, 240), True),
    "x_xvid_bframes.avi": (280, (340, 256), False),
}
UNREADABLE = {
    "dec_corrupted.mp4": "damaged after frame 28",
    "x_audio_only.mp4": "no video stream",
    "x_empty.mp4": "the file is empty",
    "x_truncated_faststart.mp4": "cut short",
    "x_truncated_noindex.mp4": "cannot be opened as video",
}


Make = Callable[..., np.ndarray]


def truth_of(path: Path) -> list[np.ndarray]:
    """The definition: decode everything in order, apply the rotation tag."""
    with av.open(str(path)) as container:
        return [np.rot90(f.to_ndarray(format="rgb24"), k=f.rotation // 90) for f in container.decode(video=0)]


@pytest.fixture
def no_decord(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_decord", lambda: None)


@pytest.fixture
def no_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "sparse_frames", lambda *_: None)


@pytest.mark.parametrize("name", READABLE)
def test_frames_of_real_clips_are_those_of_a_sequential_decode(name: str, real_clips: Path) -> None:
    path, (count, size, decord_may) = real_clips / name, READABLE[name]
    truth = truth_of(path)
    info = probe(path)
    assert len(truth) == info.frames == count
    assert (info.width, info.height) == size
    assert (info.decoder == "decord") <= decord_may
    asked = np.random.default_rng(3).integers(count, size=12)  # unsorted, with repetitions
    asked[1] = asked[0]
    small = np.stack([frame[::4, ::4] for frame in truth]).astype(np.int16)
    scaling, smaller = Scaling((40, 50)), np.stack([truth[index] for index in asked])
    for decoder in {"pyav", info.decoder}:
        frames = decode(path, asked, decoder=decoder, info=info)
        assert np.array_equal(decode(path, asked, decoder=decoder, info=info, scaling=scaling), scaling.frames(smaller))
        assert frames.shape == (12, size[1], size[0], 3)
        for frame, index in zip(frames, asked):
            assert np.array_equal(frame, truth[index])
            distance = np.abs(small - frame[::4, ::4]).mean((1, 2, 3))
            assert distance[index] == distance.min()  # no other frame is nearer


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_real_clips_are_named_with_a_reason(name: str, real_clips: Path) -> None:
    for read in (probe, lambda path: decode(path, [0])):
        with pytest.raises(ClipUnreadable, match=UNREADABLE[name]) as caught:
            read(real_clips / name)
        assert str(real_clips / name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_every_real_clip_is_accounted_for(real_clips: Path) -> None:
    assert {p.name for p in real_clips.iterdir()} == {*READABLE, *UNREADABLE}


def test_info_of_an_ordinary_clip(mp4: Path) -> None:
    info = probe(mp4)
    assert (info.frames, info.fps, info.width, info.height, info.codec, info.rotation) == (40, 10.0, 64, 48, "h264", 0)
    assert info.duration_seconds == pytest.approx(4.0, abs=0.01)
    assert pickle.loads(pickle.dumps(info)) == info


def test_versions_name_every_decoder_present() -> None:
    assert versions()["PyAV"] == av.__version__
    assert set(versions()) <= {"PyAV", "FFmpeg", "decord"}


def test_without_decord_everything_is_decoded_by_pyav(mp4: Path, no_decord: None, no_sparse: None) -> None:
    info = probe(mp4)
    assert info.decoder == "pyav"
    assert "decord" not in versions()
    assert decode(mp4, [3, 1]).shape == (2, 48, 64, 3)
    with pytest.raises(MissingError, match="decord is not installed"):
        decode(mp4, [0], decoder="decord")


def test_a_decord_that_returns_a_neighbour_is_not_used(mp4: Path, monkeypatch: pytest.MonkeyPatch, no_sparse: None) -> None:
    pytest.importorskip("decord")
    assert probe(mp4).decoder == "decord"
    honest = module._decord_frames

    def off_by_one(info: ClipInfo, wanted: np.ndarray, deadline: Deadline, scaling: Scaling | None) -> np.ndarray:
        shifted = np.where(wanted == 20, 21, wanted)
        return honest(info, shifted, deadline, scaling)

    monkeypatch.setattr(module, "_decord_frames", off_by_one)
    monkeypatch.setattr(module, "_COMPARED_FRAMES", 40)
    assert probe(mp4).decoder == "pyav"


def test_compared_frames_are_spread_over_the_whole_clip() -> None:
    for count in (1, 15, 16, 17, 33, 100, 1000):
        spread = module._Spread()
        for index in range(count):
            spread.add(index, index)  # type: ignore[arg-type]  # any object will do
        assert spread.kept == {i: i for i in range(0, count, spread.stride)}
        assert min(count, 8) <= len(spread.kept) <= 16


@pytest.mark.parametrize("wrong", [[-1], [40], [0, 99], [[0, 1]]])
def test_indices_outside_the_clip_are_refused(wrong: list[int], mp4: Path) -> None:
    with pytest.raises(IndexError):
        decode(mp4, wrong)


def test_no_indices_give_no_frames(mp4: Path) -> None:
    assert decode(mp4, []).shape == (0, 48, 64, 3)
    assert decode(mp4, [], scaling=Scaling((12, 16))).shape == (0, 12, 16, 3)


def test_what_is_not_a_video_file(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video, though it says so in its name\n" * 50)
    for path, reason in [
        (tmp_path / "absent.mp4", "no such file"),
        (tmp_path, "not a file"),
        (tmp_path / "text.mp4", "cannot be opened as video"),
    ]:
        with pytest.raises(ClipUnreadable, match=reason):
            probe(path)


def write(path: Path, codec: str, frames: np.ndarray, stream_options: dict[str, str], **container_options: str) -> None:
    with av.open(str(path), "w", options=container_options) as container:
        stream = container.add_stream(codec, rate=10, options=stream_options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("clip.mp4", "libx264", {}), ("clip.webm", "libvpx", {}), ("clip.avi", "mpeg4", {"bf": "2"})],
)
def test_a_file_cut_anywhere_is_unreadable(name: str, codec: str, options: dict[str, str], tmp_path: Path, textured_frames: Make) -> None:
    path = tmp_path / name
    # an mp4 with its index in front opens whatever is missing behind
    write(path, codec, textured_frames(100), {"g": "10", **options}, **({"movflags": "faststart"} if codec == "libx264" else {}))
    assert probe(path).frames == 100
    data = path.read_bytes()
    for share in (0.3, 0.5, 0.6, 0.8):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(ClipUnreadable):
            probe(path)


def test_damage_inside_h264_is_mostly_noticed(mp4: Path, tmp_path: Path) -> None:
    data = bytearray(mp4.read_bytes())
    start = data.index(b"mdat") + 4
    end = data.index(b"moov") if data.index(b"moov") > start else len(data)
    rng = np.random.default_rng(0)
    damaged = tmp_path / "damaged.mp4"
    noticed = 0
    for at in rng.integers(start + 1000, end - 100, size=20):
        copy = data.copy()
        copy[at : at + 48] = rng.bytes(48)
        damaged.write_bytes(copy)
        try:
            probe(damaged)
        except ClipUnreadable as unreadable:
            noticed += "damaged" in unreadable.what
    assert noticed >= 15  # the entropy decoder can take some other bytes for valid ones


def test_avi_with_b_frames_never_goes_to_decord(tmp_path: Path, textured_frames: Make) -> None:
    write(tmp_path / "clip.avi", "mpeg4", textured_frames(60), {"bf": "2", "g": "6"})
    info = probe(tmp_path / "clip.avi")
    assert info.decoder == "sparse"
    truth = truth_of(info.path)
    assert all(np.array_equal(f, truth[i]) for i, f in zip([50, 7, 33], decode(info.path, [50, 7, 33])))


def test_the_stream_with_most_frames_is_the_one(tmp_path: Path, textured_frames: Make) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = []
        for _ in range(2):
            stream = container.add_stream("libx264", rate=10, options={"bf": "0"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            streams.append(stream)
        for stream, frames in zip(streams, (textured_frames(5), textured_frames(30, seed=1))):
            for number, frame in enumerate(frames):
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                picture.pts, picture.time_base = number, Fraction(1, 10)
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
    info = probe(path)
    assert (info.frames, info.stream, info.decoder) == (30, 1, "pyav")
    with av.open(str(path)) as container:
        truth = [f.to_ndarray(format="rgb24") for f in container.decode(video=1)]
    assert np.array_equal(decode(path, range(30)), np.stack(truth))


def test_a_stream_that_changes_its_size_is_scaled_to_the_first_frame(tmp_path: Path, textured_frames: Make) -> None:
    large, small = textured_frames(6), textured_frames(6, height=24, width=32)
    for name, frames in (("large.h264", large), ("small.h264", small)):
        write(tmp_path / name, "libx264", frames, {"bf": "0"})
    path = tmp_path / "both.h264"
    path.write_bytes((tmp_path / "large.h264").read_bytes() + (tmp_path / "small.h264").read_bytes())
    info = probe(path)
    assert (info.frames, info.width, info.height, info.decoder) == (12, 64, 48, "pyav")
    frames = decode(path, range(12), info=info)
    assert frames.shape == (12, 48, 64, 3)
    assert np.array_equal(frames[:6], np.stack(truth_of(tmp_path / "large.h264")))
    shrunk = frames[6:].reshape(6, 24, 2, 32, 2, 3).mean((2, 4))
    assert np.abs(shrunk - np.stack(truth_of(tmp_path / "small.h264"))).mean() < 6


def test_a_file_that_changed_since_it_was_probed_is_unreadable(mp4: Path, tmp_path: Path, textured_frames: Make) -> None:
    info = dataclasses.replace(probe(mp4), path=tmp_path / "clip.mp4", decoder="pyav")
    write_mp4(info.path, textured_frames(10), fps=10)
    assert decode(info.path, [9], info=info).shape == (1, 48, 64, 3)
    with pytest.raises(ClipUnreadable, match="40 frames when it was probed, 10 now"):
        decode(info.path, [5, 30], info=info)


def test_a_decoder_that_hangs_is_left_behind(mp4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(*_: object) -> None:
        released.wait(30)

    monkeypatch.setattr(module, "_probe", hang)
    start = time.monotonic()
    with pytest.raises(ClipUnreadable, match=r"not decoded within 0\.1 s"):
        probe(mp4, time_limit_seconds=0.1)
    assert time.monotonic() - start < 10
    released.set()


def test_a_decoder_that_is_too_slow_stops_between_frames(mp4: Path) -> None:
    before = threading.active_count()
    with pytest.raises(ClipUnreadable, match="not decoded within 0 s"):
        probe(mp4, time_limit_seconds=0)
    assert threading.active_count() <= before + 1
