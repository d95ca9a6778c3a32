from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from benchctl.data import flow_files
from benchctl.data.clip_set import ClipRecord
from benchctl.data.content_files import Ended, VideoDigests
from benchctl.data.decode import decode, probe
from benchctl.data.encode import write_mp4
from benchctl.data.flow_files import FlowSet, find, make
from benchctl.data.transforms import interpolated
from benchctl.errors import MissingError, ShapeError, UsageError
from benchctl.spec import ClipFlow


def record(path: Path) -> ClipRecord:
    return ClipRecord(path.name, path, 0, "train")


def marked(pairs: torch.Tensor) -> torch.Tensor:
    """Not a flow, but it tells which frames it was given: the mean brightness of the first as x, of the second as y."""
    means = pairs.mean((2, 3, 4))
    return means[:, :, None, None].expand(-1, -1, *pairs.shape[-2:])


@pytest.fixture
def clips(tmp_path: Path, textured_frames: Callable[..., np.ndarray]) -> list[ClipRecord]:
    for i in range(3):
        write_mp4(tmp_path / f"{i}.mp4", textured_frames(5 + 4 * i, seed=i), fps=10)
    return [record(tmp_path / f"{i}.mp4") for i in range(3)]


@pytest.fixture
def flow_set(tmp_path: Path) -> FlowSet:
    made = FlowSet(tmp_path / "flow", "dis", None, 4)
    made.announce(None)
    return made


def stored(flow_set: FlowSet, clip: ClipRecord) -> np.ndarray:
    return np.load(flow_set.file(VideoDigests(flow_set.folder).of(clip.path)), mmap_mode="r")


def words(clips: list[ClipRecord], flow_set: FlowSet, estimate: flow_files.Estimate = marked) -> list[str]:
    return [ended.word for ended in make(clips, flow_set, estimate)]


def test_flow_leads_from_every_frame_to_the_one_a_stride_later(clips: list[ClipRecord], flow_set: FlowSet) -> None:
    assert words(clips, flow_set) == ["done"] * 3
    for clip, frames in zip(clips, (5, 9, 13)):
        flow = stored(flow_set, clip)
        assert (flow.shape, flow.dtype) == ((frames, 2, 48, 64), np.float16)
        means = decode(clip.path, range(frames)).mean((1, 2, 3)) / 255
        for i in range(frames - 1):
            expected = means[i], means[min(i + 4, frames - 1)]
            assert np.abs(flow[i].astype(float).mean((1, 2)) - expected).max() < 1e-3
        assert not flow[-1].any()


def test_pieces_change_nothing(clips: list[ClipRecord], flow_set: FlowSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words(clips, flow_set)
    monkeypatch.setattr(flow_files, "FRAMES_BYTES", 5 * 2 * 48 * 64 * 3)  # two pairs at a time
    small = FlowSet(tmp_path / "small", "dis", None, 4)
    decoded: list[int] = []
    honest = flow_files.decode
    monkeypatch.setattr(flow_files, "decode", lambda path, i, **k: decoded.append(len(i)) or honest(path, i, **k))
    words(clips, small)
    assert max(decoded) <= 5
    assert len(decoded) > 10
    for clip in clips:
        assert np.array_equal(stored(flow_set, clip), stored(small, clip))


def test_frames_are_scaled_down_and_never_up(tmp_path: Path, flow_set: FlowSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_files, "SHORT_SIDE", 32)
    rng = np.random.default_rng(0)
    for name, (height, width) in {"large": (48, 60), "small": (24, 40)}.items():
        write_mp4(tmp_path / f"{name}.mp4", rng.integers(0, 256, (3, height, width, 3), dtype=np.uint8), fps=5)
    seen: dict[tuple[int, ...], torch.Tensor] = {}

    def estimate(pairs: torch.Tensor) -> torch.Tensor:
        seen[tuple(pairs.shape[-2:])] = pairs[0, 0]
        return marked(pairs)

    clips = [record(tmp_path / "large.mp4"), record(tmp_path / "small.mp4")]
    words(clips, flow_set, estimate)
    assert [stored(flow_set, clip).shape for clip in clips] == [(3, 2, 32, 40), (3, 2, 24, 40)]
    frame = torch.from_numpy(decode(clips[0].path, [0])).permute(0, 3, 1, 2).float()
    assert (255 * seen[32, 40] - interpolated(frame, (32, 40))[0]).abs().max() <= 0.5 + 1e-4  # rounded to whole values


def test_the_same_again_does_nothing_and_a_changed_video_is_another(
    clips: list[ClipRecord], flow_set: FlowSet, textured_frames: Callable[..., np.ndarray]
) -> None:
    assert flow_set.missing(clips) == 3
    words(clips, flow_set)
    assert flow_set.missing(clips) == 0
    before = {p: p.stat().st_mtime_ns for p in flow_set.path.rglob("*")}
    assert words(clips, flow_set) == ["there"] * 3
    assert {p: p.stat().st_mtime_ns for p in flow_set.path.rglob("*")} == before
    write_mp4(clips[1].path, textured_frames(9, seed=7), fps=10)
    assert flow_set.missing(clips) == 1
    assert words(clips, flow_set) == ["there", "there", "done"]
    # what a video shows does not depend on its name
    shutil.copy(clips[1].path, clips[1].path.with_name("copy.mp4"))
    assert words([record(clips[1].path.with_name("copy.mp4"))], flow_set) == ["there"]


def test_what_is_not_ended_is_not_there(clips: list[ClipRecord], flow_set: FlowSet) -> None:
    calls = iter(range(2))

    def interrupted(pairs: torch.Tensor) -> torch.Tensor:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return marked(pairs)

    with pytest.raises(KeyboardInterrupt):
        list(make(clips, flow_set, interrupted))
    assert len(list(flow_set.path.rglob("*.npy"))) == 2
    assert [p.name for p in flow_set.path.rglob(".*")] == []
    assert words(clips, flow_set) == ["there", "there", "done"]


def test_unreadable_clips_are_named_and_the_rest_goes_on(clips: list[ClipRecord], flow_set: FlowSet) -> None:
    clips[0].path.write_bytes(b"")
    clips[1].path.unlink()
    ended = {e.clip.id: (e.word, e.reason) for e in make(clips, flow_set, marked)}
    assert ended == {
        "0.mp4": ("unreadable", "the file is empty (0 bytes)"),
        "1.mp4": ("unreadable", "No such file or directory"),
        "2.mp4": ("done", ""),
    }
    # there is nothing to make for them
    assert flow_set.missing(clips) == 0
    assert words(clips, flow_set) == ["unreadable", "there", "unreadable"]


def test_frames_that_the_estimator_cannot_take(clips: list[ClipRecord], flow_set: FlowSet) -> None:
    def too_small(pairs: torch.Tensor) -> torch.Tensor:
        raise ShapeError("needs frames of 128 pixels, not 48", fix="use the estimator dis")

    # all of them, most likely: nothing is written
    with pytest.raises(ShapeError, match=r"0.mp4: needs frames of 128 pixels, not 48; use the estimator dis"):
        list(make(clips, flow_set, too_small))
    assert flow_set.missing(clips) == 3
    # one among others is left out
    words(clips[:1], flow_set)
    assert words(clips, flow_set, too_small) == ["there", "unreadable", "unreadable"]


def test_too_little_space_is_said_before_the_start(clips: list[ClipRecord], flow_set: FlowSet, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = sum(frames * 2 * 48 * 64 * 2 for frames in (5, 9, 13))
    usage = shutil.disk_usage(flow_set.folder)
    monkeypatch.setattr(flow_files.shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    with pytest.raises(MissingError, match=r"the flow of 3 clips needs about 0\.00 GiB, and 0\.00 GiB are free; free space there"):
        list(make(clips, flow_set, marked))
    assert not list(flow_set.path.rglob("*.npy"))
    monkeypatch.setattr(flow_files.shutil, "disk_usage", lambda _: usage._replace(free=needed))
    assert words(clips, flow_set) == ["done"] * 3


def test_a_folder_that_cannot_be_written(clips: list[ClipRecord], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    refused = FlowSet(tmp_path / "file", "dis", None, 4)
    for action in (lambda: refused.announce(None), lambda: list(make(clips, refused, marked))):
        with pytest.raises(MissingError, match=r"flow cannot be written: .*another --folder"):
            action()


def test_sets_are_found_by_the_name_their_weights_were_asked_for(tmp_path: Path) -> None:
    first, second, other = (FlowSet(tmp_path, "raft-small", weights, 8) for weights in ("raft-small a.pth", "raft-small b.pth", "random"))
    assert len({first.path, second.path, other.path, FlowSet(tmp_path, "raft-small", "random", 4).path}) == 4
    asks = {name: ClipFlow(estimator="raft-small", weights=name) for name in (None, "A", "random", "raft-small a.pth")}
    assert find(tmp_path, asks[None], 8) is None
    first.announce(None)
    first.announce("A")
    first.announce("A")
    other.announce("random")
    assert json.loads((first.path / "about.json").read_text())["asked"] == [None, "A"]
    assert find(tmp_path, asks[None], 8) == find(tmp_path, asks["A"], 8) == find(tmp_path, asks["raft-small a.pth"], 8) == first
    assert find(tmp_path, asks["random"], 8) == other
    assert find(tmp_path, asks[None], 4) is None
    assert find(tmp_path, ClipFlow(estimator="dis"), 8) is None
    # what the default stands for has changed: neither is taken silently
    second.announce(None)
    with pytest.raises(UsageError, match=r"with the weights 'raft-small a\.pth' and 'raft-small b\.pth'"):
        find(tmp_path, asks[None], 8)
    (second.path / "about.json").write_text("{")
    assert find(tmp_path, asks[None], 8) == first


def test_digests_follow_the_content_and_survive_torn_lines(tmp_path: Path) -> None:
    video = tmp_path / "odd\tname.mp4"
    video.write_bytes(b"one")
    digests = VideoDigests(tmp_path)
    one = digests.of(video, remember=True)
    listed = tmp_path / "videos.tsv"
    listed.write_text(listed.read_text() + "abc\t12")
    os.utime(video, ns=(0, 5))
    # remembered by size and time of change: a file that keeps both is not read again
    two = VideoDigests(tmp_path).of(video, remember=True)
    assert one == two
    listed.write_text(listed.read_text().replace(one, "f" * 64))
    assert VideoDigests(tmp_path).of(video) == one  # the second entry stands on the torn line, the first is of another time
    video.write_bytes(b"two")
    assert VideoDigests(tmp_path).of(video) != one


def test_real_containers(real_clips: Path, tmp_path: Path) -> None:
    """Odd sizes, a rotation tag, an edit list, B-frames: as many flows as frames, of the stored size; what is broken is named."""
    names = ("x_odd_171x129.mp4", "dec_video_90.mov", "x_truncated_noindex.mp4", "x_audio_only.mp4")
    flow_set = FlowSet(tmp_path, "dis", None, 8)
    ended: list[Ended] = list(make([record(real_clips / name) for name in names], flow_set, marked))
    assert [e.word for e in ended] == ["done", "done", "unreadable", "unreadable"]
    for e in ended[:2]:
        info = probe(e.clip.path)
        height, width = flow_files.stored_size(info)
        assert min(height, width) == min(256, info.height, info.width)
        assert stored(flow_set, e.clip).shape == (info.frames, 2, height, width)
