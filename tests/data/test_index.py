"""The index of a data set: what it keeps, what it notices, and that training with it is training without it."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from benchctl.data import index, list_file, loading
from benchctl.data.clip_set import ClipSet
from benchctl.data.decode import probe, versions
from benchctl.data.encode import write_mp4
from benchctl.data.index import ClipIndex, Entry, Stamp, Table, content_hash, index_of, stamp_of
from benchctl.data.loading import LoadSettings, UnreadableLog, train_batches
from benchctl.data.verify import look
from benchctl.errors import ClipUnreadable, MissingError, UsageError
from benchctl.recipe import Recipe
from benchctl.spec import DatasetRef
from benchctl.vocabulary import ClipShape

Make = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, textured_frames: Make) -> Path:
    """Six clips to train on and three to test on; one of each is broken."""
    root = tmp_path_factory.mktemp("clips")
    for split, number in (("train", 6), ("test", 3)):
        for i in range(number):
            write_mp4(root / f"{split}{i}.mp4", textured_frames(8 + i, seed=10 * number + i), fps=10)
        (root / f"{split}.txt").write_text("".join(f"{split}{i}.mp4 {i % 2}\n" for i in range(number)))
    (root / "train3.mp4").write_bytes(b"")
    (root / "test1.mp4").write_bytes((root / "test1.mp4").read_bytes()[:700])
    return root


@pytest.fixture
def clips(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClipSet:
    """A copy that may be changed, and no index."""
    monkeypatch.setenv("BENCHCTL_INDEX", str(tmp_path / "index"))
    return list_file.load(Path(shutil.copytree(original, tmp_path / "clips")), list_file.Options())


def indexed(clips: ClipSet) -> Path:
    """The file that holds what is found of all clips, looked at here and now."""
    table = Table(versions())
    for record in (*clips.train, *clips.test):
        table.put(look(record.path, 30))
    file = index.file_of(clips)
    index.write(file, table)
    return file


def test_it_lies_in_its_folder_by_name_and_fingerprint(clips: ClipSet, tmp_path: Path) -> None:
    assert index.file_of(clips) == tmp_path / "index" / f"list_file-{clips.fingerprint[:16]}.tsv"
    assert index_of(clips) is None
    assert index_of(replace(clips, train=clips.train[:1])) is None
    file = indexed(clips)
    assert index_of(clips) == ClipIndex(file)


def test_what_is_read_is_what_was_written(clips: ClipSet) -> None:
    table = index.read(indexed(clips))
    assert (table.torn, table.decoders) == ("", versions())
    for record in (*clips.train, *clips.test):
        entry = table.entry(record.path)
        assert entry is not None
        content = record.path.read_bytes()
        assert entry.digest == hashlib.sha256(content).hexdigest()
        assert entry.stamp == Stamp(len(content), record.path.stat().st_mtime_ns)
        if record.id in ("train3.mp4", "test1.mp4"):
            with pytest.raises(ClipUnreadable) as caught:
                probe(record.path)
            assert (entry.word, entry.info, entry.reason) == ("unreadable", None, caught.value.what)
        else:
            assert (entry.word, entry.info) == ("readable", probe(record.path))


def test_the_file_is_a_table_sorted_by_path(clips: ClipSet) -> None:
    file = indexed(clips)
    _, *lines, last = file.read_text().splitlines()
    assert lines == sorted(lines)
    assert [len(line.split("\t")) for line in lines] == [6] * 9
    assert last == '{"clips": 9}'
    before = file.read_bytes()
    assert indexed(clips).read_bytes() == before, "the same clips give the same bytes"


def test_names_that_a_table_cannot_hold_as_they_are() -> None:
    table = Table(versions())
    names = [Path("/a\tb/c\nd.mp4"), Path("/\udcff.mp4"), Path('/"quoted".mp4'), Path("/视频.mp4")]
    lines = b"".join(table.put(Entry(path, Stamp(1, 2), "d", "unreadable", reason=f"a\tb\n{n}")) for n, path in enumerate(names))
    assert lines.isascii()
    assert lines.count(b"\n") == 4
    for n, path in enumerate(names):
        assert table.entry(path) == Entry(path, Stamp(1, 2), "d", "unreadable", reason=f"a\tb\n{n}")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text[:-1], "cut short"),
        (lambda text: text[: len(text) // 2], "cut short"),
        (lambda text: text.replace(text.splitlines()[3] + "\n", ""), "cut short"),
        (lambda text: text.partition("\n")[2], "first line"),
        (lambda text: text.replace('"benchctl_index": 1', '"benchctl_index": 99'), "first line"),
        (lambda text: "", "first line"),
    ],
)
def test_a_torn_file_is_noticed_and_training_goes_on_without_it(change: Callable[[str], str], reason: str, clips: ClipSet) -> None:
    file = indexed(clips)
    file.write_text(change(file.read_text()))
    table = index.read(file)
    assert reason in table.torn
    assert not table.lines
    found = index_of(clips)
    assert found is not None
    assert found.info(clips.train[0]) is None


def test_a_file_of_other_bytes_is_torn(clips: ClipSet) -> None:
    file = indexed(clips)
    file.write_bytes(b"\xff\xfe" + file.read_bytes())
    assert index.read(file).torn == "it holds bytes that are no text"


def test_lines_that_are_none_are_of_no_clip(clips: ClipSet) -> None:
    file = indexed(clips)
    whole = index.read(file)
    path = clips.train[0].path
    line = whole.lines[index._key(path)]
    assert whole.entry(path) is not None
    for wrong in (
        line.replace('"frames"', '"pictures"'),
        line.replace('"rotation": 0, ', ""),
        line[:-1],
        line.replace("readable", "x"),
        "x",
    ):
        assert Table(lines={index._key(path): wrong}).entry(path) is None


def test_lines_that_were_added_are_read_with_it(clips: ClipSet) -> None:
    file = indexed(clips)
    whole = index.read(file)
    some = Table(versions(), dict(list(whole.lines.items())[:4]))
    index.write(file, some)
    rest = [look(r.path, 30) for r in (*clips.train, *clips.test) if some.entry(r.path) is None]
    with index.adding(file, versions()) as part:
        for entry in rest:
            part.write(some.put(entry))
        part.write(b'"/torn.mp4"\t12')  # as a kill leaves it
    assert index.read(file).lines == whole.lines
    index.write(file, index.read(file))
    assert not index.part_of(file).exists()
    # lines alone are an index too
    with index.adding(file, versions()) as part:
        part.write(some.put(rest[0]))
    file.unlink()
    assert len(index.read(file).lines) == 1
    assert index_of(clips) == ClipIndex(file)
    # what other decoders added later counts for what was there before
    index.write(file, whole)
    with index.adding(file, {"PyAV": "99"}) as part:
        part.write(some.put(rest[0]))
    assert index.read(file).decoders == {"PyAV": "99"}
    assert len(index.read(file).lines) == 1


def test_a_folder_that_cannot_be_written(clips: ClipSet, tmp_path: Path) -> None:
    (tmp_path / "index").touch()
    with pytest.raises(MissingError, match=r"index: the index cannot be written: .*; free space there, or set BENCHCTL_INDEX"):
        index.write(index.file_of(clips), Table(versions()))


def test_a_folder_of_frames_is_a_clip(tmp_path: Path) -> None:
    for name, content in (("2.jpg", b"second"), ("1.jpg", b"first")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "inner").mkdir()
    expected = hashlib.sha256(hashlib.sha256(b"first").digest() + hashlib.sha256(b"second").digest()).hexdigest()
    assert content_hash(tmp_path) == expected
    before = stamp_of(tmp_path)
    assert before.size_bytes == 11
    os.utime(tmp_path / "1.jpg", ns=(0, before.changed_ns + 5))
    assert stamp_of(tmp_path) == (11, before.changed_ns + 5)
    (tmp_path / "3.jpg").write_bytes(b"third")
    assert stamp_of(tmp_path).size_bytes == 16
    assert content_hash(tmp_path) != expected


# ---- training ----


def settings(clips: ClipSet, *, use: bool, **recipe: object) -> LoadSettings:
    shape = ClipShape(frames=4, resolution=32, batch_size=2)
    return LoadSettings(shape, Recipe.model_validate(recipe), time_limit_seconds=30, index=index_of(clips) if use else None)


def bytes_of(clips: ClipSet, load: LoadSettings) -> tuple[list[object], dict[str, str]]:
    """Everything that batches hold, and what was left out."""
    log = UnreadableLog()
    batches = [*islice(train_batches(clips, load, seed=1, log=log), 5), *loading.test_batches(clips, load, log=log)]
    return [(b.ids, b.labels.tolist(), b.clips.numpy().tobytes()) for b in batches], log.reasons


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_the_same_with_an_index(workers: int, clips: ClipSet) -> None:
    without = bytes_of(clips, settings(clips, use=False, loader_workers=workers))
    indexed(clips)
    assert bytes_of(clips, settings(clips, use=True, loader_workers=workers)) == without
    assert without[1].keys() == {"train3.mp4", "test1.mp4"}


def test_clips_that_the_index_holds_are_not_probed(clips: ClipSet, monkeypatch: pytest.MonkeyPatch) -> None:
    indexed(clips)
    probed: list[str] = []
    honest = loading.probe
    monkeypatch.setattr(loading, "probe", lambda path, **k: probed.append(path.name) or honest(path, **k))
    bytes_of(clips, settings(clips, use=True))
    assert probed == []
    # one that changed is, once
    path = clips.train[0].path
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    bytes_of(clips, settings(clips, use=True))
    assert probed == ["train0.mp4"]


def test_a_clip_that_was_repaired_is_read(clips: ClipSet, original: Path) -> None:
    indexed(clips)
    shutil.copy(original / "train2.mp4", clips.train[3].path)
    assert bytes_of(clips, settings(clips, use=True))[1].keys() == {"test1.mp4"}


def test_what_is_undecided_or_by_other_decoders_is_not_known(clips: ClipSet, monkeypatch: pytest.MonkeyPatch) -> None:
    file, record = indexed(clips), clips.train[0]
    assert ClipIndex(file).info(record) == probe(record.path)
    monkeypatch.setattr(index, "versions", lambda: {"PyAV": "99"})
    assert ClipIndex(file).info(record) is None
    monkeypatch.undo()
    table = Table(versions())
    table.put(look(record.path, 0))
    index.write(file, table)
    entry = index.read(file).entry(record.path)
    assert entry is not None
    assert (entry.word, entry.reason, len(entry.digest)) == ("undecided", "not decoded within 0 s", 64)
    assert ClipIndex(file).info(record) is None
    record.path.unlink()
    assert ClipIndex(file).info(record) is None, "who decodes it says that it is gone"


def test_loader_processes_are_sent_its_name_alone(clips: ClipSet) -> None:
    found = ClipIndex(indexed(clips))
    assert found.info(clips.train[0]) is not None
    sent = pickle.dumps(found)
    assert len(sent) < 1000
    assert pickle.loads(sent) == found
    assert pickle.loads(sent).info(clips.train[0]) == found.info(clips.train[0])
    assert torch.equal(*(next(train_batches(clips, replace(settings(clips, use=True), index=i), seed=0)).clips for i in (found, None)))


# ---- leakage ----


def test_clips_on_both_sides_of_the_split(clips: ClipSet, original: Path) -> None:
    dataset, root = DatasetRef(name="list_file"), clips.train[0].path.parent
    shutil.copy(clips.train[2].path, clips.test[0].path)
    shutil.copy(clips.train[2].path, clips.train[4].path)
    (clips.test[1].path).write_bytes(b"")  # as train3.mp4, but neither is a clip
    clips = list_file.load(root, list_file.Options())
    assert index.check_leakage(dataset, root, clips.fingerprint) == "", "no index, no check"
    file = indexed(clips)
    table = index.read(file)
    (leak,) = index.leaks(clips, table)
    assert (leak.train.id, leak.test.id) == ("train2.mp4", "test0.mp4")
    assert (index.repeated(clips.train, table), index.repeated(clips.test, table)) == (1, 0)
    line = "list_file: 'test0.mp4' to test on is also trained on, as 'train2.mp4'; take it out of one of the splits"
    for check in (lambda: index.refuse("list_file", [leak]), lambda: index.check_leakage(dataset, root, clips.fingerprint)):
        with pytest.raises(UsageError) as caught:
            check()
        assert str(caught.value) == line
    with pytest.raises(UsageError, match=r"as 'train2.mp4', and 1 more of the test clips; take it out"):
        index.refuse("list_file", [leak, leak])

    # other content since then
    before = clips.test[0].path.stat()
    shutil.copy(original / "test0.mp4", clips.test[0].path)
    os.truncate(clips.test[0].path, before.st_size)
    assert list_file.load(root, list_file.Options()).fingerprint == clips.fingerprint
    assert index.check_leakage(dataset, root, clips.fingerprint) == ""

    file.write_text("")
    said = index.check_leakage(dataset, root, clips.fingerprint)
    assert said == f"{file}: its first line is not that of an index of this version; 'benchctl data verify list_file' makes the index anew"
