"""Every clip of a data set decoded once, in processes that may die."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from benchctl.data import index, manifest, verify
from benchctl.data.clip_set import ClipRecord, ClipSet
from benchctl.data.decode import probe
from benchctl.data.encode import write_mp4
from benchctl.data.index import Entry, Table
from benchctl.data.verify import Balance, Verification, look, look_at
from benchctl.errors import BenchctlError

Make = Callable[..., np.ndarray]

HEADER = "path,class,split\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, textured_frames: Make) -> Path:
    """Seven clips: two classes, one clip is there twice, one is broken, one is missing."""
    monkeypatch.setenv("BENCHCTL_INDEX", str(tmp_path / "index"))
    root = tmp_path / "data"
    root.mkdir()
    for i in range(5):
        write_mp4(root / f"{i}.mp4", textured_frames(10 + 10 * i, seed=i), fps=10)
    shutil.copy(root / "1.mp4", root / "copy.mp4")
    (root / "torn.mp4").write_bytes(b"not a video")
    rows = ["0,a,train", "1,a,train", "copy,a,train", "2,b,train", "torn,b,train", "3,a,test", "4,b,test", "gone,b,test"]
    (root / "manifest.csv").write_text(HEADER + "".join(f"{row.replace(',', '.mp4,', 1)}\n" for row in rows))
    return root


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads in the place of processes, which take a second to begin, where nothing else is tested of them."""
    monkeypatch.setattr(verify, "_pool", ThreadPoolExecutor)


def clips_of(root: Path) -> ClipSet:
    return manifest.load(root, manifest.Options())


def run(root: Path) -> tuple[Verification, Counter[str]]:
    verification = Verification(clips_of(root))
    return verification, Counter(ended.word for ended in verification.run(2))


def test_what_is_found_of_a_data_set(folder: Path) -> None:
    verification, words = run(folder)
    assert words == {"done": 6, "unreadable": 1}
    assert (verification.looked_at, verification.known, verification.torn, verification.outdated) == (7, 0, "", False)
    summary = verification.summary()
    train, test = summary.train, summary.test
    assert (train.clips, train.readable, train.repeated, test.clips, test.readable, test.repeated) == (5, 4, 1, 2, 2, 0)
    # 10, 20, 20 and 30 frames, and 40 and 50, at 10 a second
    assert train.duration_seconds == pytest.approx(8.0)
    assert test.duration_seconds == pytest.approx(9.0)
    assert train.size_bytes == sum((folder / f"{name}.mp4").stat().st_size for name in ("0", "1", "copy", "2", "torn"))
    assert train.balance == Balance(1, 2.0, 3, ("b",), ("a",))
    assert test.balance == Balance(1, 1.0, 1, ("a", "b"), ("a", "b"))
    assert summary.unreadable.keys() == {"torn.mp4"}
    assert summary.decoders == dict(Counter(probe(folder / f"{n}.mp4").decoder for n in (0, 1, 1, 2, 3, 4)))
    assert summary.leaks == []
    # what processes found is what is found here
    table = index.read(verification.file)
    for record in (*clips_of(folder).train, *clips_of(folder).test):
        assert table.entry(record.path) == look(record.path, 60)

    again, words = run(folder)
    assert words == {"there": 6, "unreadable": 1}
    assert (again.looked_at, again.known) == (0, 7)
    assert again.summary() == summary


def test_only_what_is_new_or_changed_is_decoded_again(threads: None, folder: Path, textured_frames: Make) -> None:
    first, _ = run(folder)
    before = first.file.read_bytes()
    run(folder)
    assert first.file.read_bytes() == before
    # touched: the same data set, the same file
    os.utime(folder / "0.mp4", ns=(0, 12345))
    again, words = run(folder)
    assert (again.looked_at, again.known, again.file) == (1, 6, first.file)
    assert words == {"done": 1, "there": 5, "unreadable": 1}
    # one more, and one of another size: another data set, which takes over what it knew of this one
    write_mp4(folder / "torn.mp4", textured_frames(10, seed=77), fps=10)
    write_mp4(folder / "gone.mp4", textured_frames(10, seed=78), fps=10)
    again, words = run(folder)
    assert again.file != first.file
    assert words == {"done": 2, "there": 6}
    assert (again.looked_at, again.known) == (2, 6)
    assert run(folder)[1] == {"there": 8}
    assert len(index.read(again.file).lines) == 8


def test_stopped_anywhere_it_goes_on(threads: None, folder: Path) -> None:
    verification = Verification(clips_of(folder))
    running = verification.run(1)
    for _ in range(3):
        next(running)
    running.close()
    assert index.part_of(verification.file).exists()
    again, words = run(folder)
    assert (again.looked_at, again.known) == (4, 3)
    assert words.total() == 7
    assert not index.part_of(verification.file).exists()
    assert len(index.read(verification.file).lines) == 7


def test_a_torn_index_and_one_by_other_decoders_are_made_anew(threads: None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = run(folder)
    whole = first.file.read_bytes()
    first.file.write_bytes(whole[:-5])
    again, _ = run(folder)
    assert (again.torn, again.looked_at) == ("it is cut short, or was changed by hand", 7)
    assert first.file.read_bytes() == whole
    monkeypatch.setattr(verify, "versions", lambda: {"PyAV": "99"})
    again, _ = run(folder)
    assert (again.torn, again.outdated, again.looked_at) == ("", True, 7)
    assert run(folder)[0].looked_at == 0


def test_clips_elsewhere_that_are_the_same_data_set_are_kept_beside(threads: None, folder: Path, tmp_path: Path) -> None:
    here, _ = run(folder)
    other = Path(shutil.copytree(folder, tmp_path / "elsewhere"))  # with the times of change
    there, words = run(other)
    assert there.file == here.file
    assert words["done"] == 6
    assert run(folder)[0].looked_at == run(other)[0].looked_at == 0


def test_numbers_have_no_balance(threads: None, folder: Path) -> None:
    (folder / "manifest.csv").write_text("path,x,split\n0.mp4,1,train\n1.mp4,2,train\n2.mp4,3,test\n")
    clips = manifest.load(folder, manifest.Options(targets=("x",)))
    verification = Verification(clips)
    assert len(list(verification.run(1))) == 3
    assert verification.summary().train.balance is verification.summary().test.balance is None


def test_what_may_be_otherwise_the_next_time_is_looked_at_again(threads: None, folder: Path, tmp_path: Path) -> None:
    verification = Verification(clips_of(folder))
    reasons = {ended.clip.id: ended.reason for ended in verification.run(1, time_limit_seconds=0)}
    assert reasons.pop("torn.mp4").startswith("cannot be opened")
    assert set(reasons.values()) == {"not decoded within 0 s"}
    again, words = run(folder)
    assert (again.looked_at, again.known) == (6, 1)
    assert words["done"] == 6
    gone = look(tmp_path / "nothing.mp4", 60)
    assert (gone.word, gone.digest, gone.reason) == ("undecided", "", "No such file or directory")


def test_a_clip_that_changes_while_it_is_decoded_is_undecided(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, honest = folder / "0.mp4", verify.probe

    def slow(path: Path, **given: float) -> object:
        info = honest(path, **given)
        os.utime(path, ns=(0, 12345))
        return info

    monkeypatch.setattr(verify, "probe", slow)
    first, second = look(path, 60), look(path, 60)
    assert (first.word, first.digest, first.reason) == ("undecided", "", "it changed while it was decoded")
    assert second.word == "readable"


def deadly(path: Path, _time_limit_seconds: float) -> Entry:
    """`look`, with a decoder that takes its process along."""
    if path.name.startswith("deadly"):
        os.kill(os.getpid(), signal.SIGKILL)
    return Entry(path, index.Stamp(0, 0), "", "undecided", reason="fine")


def test_a_decoder_that_crashes_costs_one_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "look", deadly)
    names = [f"{'deadly' if i == 1 else 'fine'}{i}.mp4" for i in range(4)]
    clips = [ClipRecord(name, tmp_path / name, 0, "train") for name in names]
    found = {clip.id: entry for clip, entry in look_at(clips, 1, 60)}
    assert {name: entry.word for name, entry in found.items()} == {n: "unreadable" if "deadly" in n else "undecided" for n in names}
    assert found["deadly1.mp4"].reason == "the process that decoded it died"
    assert not multiprocessing.active_children()


def never() -> None:
    os._exit(1)


def test_processes_that_cannot_begin_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_begin", never)
    clips = [ClipRecord("0.mp4", tmp_path / "0.mp4", 0, "train")]
    with pytest.raises(BenchctlError, match="processes that decode end as soon as they begin"):
        list(look_at(clips, 1, 60))


def test_the_torture_set(real_clips: Path, tmp_path: Path) -> None:
    """Every real clip ends as `probe` says, and is written and read as it ended."""
    clips = [ClipRecord(path.name, path, 0, "train") for path in sorted(real_clips.iterdir())]
    table, seen = Table({"PyAV": "0"}), {}
    for clip, entry in look_at(clips, 2, 60):
        table.put(entry)
        seen[clip.id] = entry
    index.write(tmp_path / "torture-0000000000000000.tsv", table)
    back = index.read(tmp_path / "torture-0000000000000000.tsv")
    assert {clip.id: back.entry(clip.path) for clip in clips} == seen
    words = Counter(entry.word for entry in seen.values())
    assert words == {"readable": 18, "unreadable": 5}
    decoders = {name: seen[name].info.decoder for name in ("x_xvid_bframes.avi", "x_cutcopy_editlist.mp4")}
    assert decoders == {"x_xvid_bframes.avi": "sparse", "x_cutcopy_editlist.mp4": "pyav"}
