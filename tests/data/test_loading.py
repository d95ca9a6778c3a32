from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from benchctl.data import decode as decoding
from benchctl.data import list_file, loading
from benchctl.data.clip_set import ClipSet
from benchctl.data.encode import write_mp4
from benchctl.data.loading import Batch, LoadSettings, UnreadableLog, train_batches
from benchctl.data.sampling import eval_indices
from benchctl.data.transforms import eval_views
from benchctl.errors import BenchctlError, DataMissing, UsageError
from benchctl.spec import ClipShape, Recipe

TRAIN, TEST, BROKEN = 9, 5, ("train3.mp4", "test1.mp4")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, textured_frames: Callable[..., np.ndarray]) -> ClipSet:
    """Nine clips to train on and five to test on; one of each is broken."""
    root = tmp_path_factory.mktemp("clips")
    for split, number in (("train", TRAIN), ("test", TEST)):
        for i in range(number):
            write_mp4(root / f"{split}{i}.mp4", textured_frames(10 + i, seed=i), fps=10)
        (root / f"{split}.txt").write_text("".join(f"{split}{i}.mp4 {i % 2}\n" for i in range(number)))
    (root / BROKEN[0]).write_bytes(b"")
    (root / BROKEN[1]).write_bytes((root / BROKEN[1]).read_bytes()[:700])
    return list_file.load(root, list_file.Options())


def settings(batch_size: int = 4, **recipe: object) -> LoadSettings:
    return LoadSettings(ClipShape(frames=4, resolution=32, batch_size=batch_size), Recipe.model_validate(recipe), time_limit_seconds=30)


def same(ours: list[Batch], theirs: list[Batch]) -> bool:
    return len(ours) == len(theirs) and all(
        a.ids == b.ids and torch.equal(a.labels, b.labels) and torch.equal(a.clips, b.clips) for a, b in zip(ours, theirs)
    )


def test_training_batches_are_full_and_leave_out_only_what_is_unreadable(clips: ClipSet) -> None:
    log = UnreadableLog()
    batches = list(islice(train_batches(clips, settings(), seed=0, log=log), 8))
    assert all(batch.clips.shape == (4, 4, 3, 32, 32) and batch.clips.dtype == torch.float32 for batch in batches)
    assert all(batch.labels.dtype == torch.int64 for batch in batches)
    labels = {record.id: record.label for record in clips.train}
    assert all(batch.labels.tolist() == [labels[i] for i in batch.ids] for batch in batches)
    assert log.reasons == {"train3.mp4": "the file is empty (0 bytes)"}
    # 32 clips are four epochs of the eight readable ones, each in another order
    ids = [i for batch in batches for i in batch.ids]
    epochs = [ids[start : start + 8] for start in range(0, 32, 8)]
    assert all(set(epoch) == set(labels) - {"train3.mp4"} for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_a_clip_looks_different_in_every_epoch_and_for_every_seed(clips: ClipSet) -> None:
    def first_clips(seed: int) -> list[torch.Tensor]:
        batches = islice(train_batches(clips, settings(), seed=seed), 4)
        return [clip for batch in batches for name, clip in zip(batch.ids, batch.clips) if name == "train0.mp4"]

    one, two = first_clips(0)
    assert not torch.equal(one, two)
    assert not torch.equal(one, first_clips(1)[0])
    assert torch.equal(one, first_clips(0)[0])


@pytest.mark.parametrize("start", [1, 2, 5])
def test_resuming_gives_the_same_batches_and_decodes_nothing_before(start: int, clips: ClipSet, monkeypatch: pytest.MonkeyPatch) -> None:
    log = UnreadableLog()
    whole = list(islice(train_batches(clips, settings(), seed=3, log=log), 7))
    # what a checkpoint at that step would hold; later entries do no harm
    saved = pickle.loads(pickle.dumps(log))
    decoded: list[str] = []
    honest = loading.decode
    monkeypatch.setattr(loading, "decode", lambda path, *a, **k: decoded.append(path.name) or honest(path, *a, **k))
    resumed = list(islice(train_batches(clips, settings(), seed=3, start_step=start, log=saved), 7 - start))
    assert same(resumed, whole[start:])
    assert len(decoded) == 4 * len(resumed)


def test_loader_processes_change_nothing(clips: ClipSet) -> None:
    logs = UnreadableLog(), UnreadableLog()
    alone = list(islice(train_batches(clips, settings(), seed=0, log=logs[0]), 5))
    shared = list(islice(train_batches(clips, settings(loader_workers=2), seed=0, log=logs[1]), 5))
    assert same(alone, shared)
    assert logs[0].reasons == logs[1].reasons == {"train3.mp4": "the file is empty (0 bytes)"}


def test_every_readable_test_clip_comes_once_with_all_its_views(clips: ClipSet) -> None:
    log = UnreadableLog()
    batches = list(loading.test_batches(clips, settings(3, eval_clips=2, eval_crops=3, sampling="uniform"), log=log))
    assert [batch.ids for batch in batches] == [("test0.mp4", "test2.mp4", "test3.mp4"), ("test4.mp4",)]
    assert [tuple(batch.clips.shape) for batch in batches] == [(3, 6, 4, 3, 32, 32), (1, 6, 4, 3, 32, 32)]
    assert list(log.reasons) == ["test1.mp4"]
    assert len(log) == 1
    record, normalisation = clips.test[2], settings().normalisation
    frames = decoding.decode(record.path, range(12))
    expected = [eval_views(frames[view], 32, normalisation, 3) for view in eval_indices("uniform", 12, 4, 1, 2)]
    assert torch.equal(batches[0].clips[1], torch.cat(expected))


def test_counts_add_up(clips: ClipSet) -> None:
    log = UnreadableLog()
    read = Counter(i for batch in loading.test_batches(clips, settings(2), log=log) for i in batch.ids)
    assert set(read.values()) == {1}
    assert sum(read.values()) + len(log) == len(clips.test) == TEST


def test_flipping_needs_a_data_set_that_allows_it(clips: ClipSet) -> None:
    with pytest.raises(UsageError, match="would change their class; set 'flip: false'"):
        train_batches(clips, settings(flip=True), seed=0)


def unreadable_set(clips: ClipSet, tmp_path: Path) -> ClipSet:
    for record in clips.train + clips.test:
        (tmp_path / record.id).write_bytes(b"")
    for split in ("train", "test"):
        (tmp_path / f"{split}.txt").write_text("".join(f"{r.id} {r.label}\n" for r in getattr(clips, split)))
    return list_file.load(tmp_path, list_file.Options())


def test_a_set_of_which_nothing_can_be_decoded_is_an_error(clips: ClipSet, tmp_path: Path) -> None:
    broken = unreadable_set(clips, tmp_path)
    with pytest.raises(DataMissing, match=r"none of 9 clips can be decoded \(first: train\d.mp4: the file is empty"):
        next(train_batches(broken, settings(), seed=0))
    with pytest.raises(DataMissing, match=r"none of 5 clips can be decoded \(first: test0.mp4"):
        next(loading.test_batches(broken, settings()))


def test_clips_that_vanish_in_the_middle_end_the_training_with_an_error(clips: ClipSet, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = train_batches(clips, settings(), seed=0)
    next(batches)

    def gone(path: Path, *_: object, **__: object) -> None:
        raise loading.ClipUnreadable("no such file", where=str(path))

    monkeypatch.setattr(loading, "decode", gone)
    with pytest.raises(DataMissing, match="can be decoded"):
        next(batches)


def test_a_set_without_test_clips_is_an_error(clips: ClipSet) -> None:
    import dataclasses

    with pytest.raises(DataMissing, match="has no test clip"):
        loading.test_batches(dataclasses.replace(clips, test=()), settings())


class _Killed(loading.ClipDataset):
    def __getitem__(self, key: tuple[int, int]) -> loading._Item:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_a_loader_process_that_dies_is_one_line(clips: ClipSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "ClipDataset", _Killed)
    with pytest.raises(BenchctlError, match="a loader process died; lower 'loader_workers'"):
        next(train_batches(clips, settings(loader_workers=1), seed=0))
