from __future__ import annotations

import pickle
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
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
from benchctl.recipe import Recipe
from benchctl.vocabulary import ClipShape

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


def settings(batch_size: int = 4, kept_bytes: int = 0, **recipe: object) -> LoadSettings:
    shape = ClipShape(frames=4, resolution=32, batch_size=batch_size)
    return LoadSettings(shape, Recipe.model_validate(recipe), time_limit_seconds=30, kept_bytes=kept_bytes)


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
    for thread in threading.enumerate():  # what is under way when batches are given up ends by itself
        if thread.name.startswith("load"):
            thread.join(30)
    # what a checkpoint at that step would hold; later entries do no harm
    saved = pickle.loads(pickle.dumps(log))
    decoded: list[str] = []
    honest = loading.decode
    monkeypatch.setattr(loading, "decode", lambda path, *a, **k: decoded.append(path.name) or honest(path, *a, **k))
    resumed = list(islice(train_batches(clips, settings(), seed=3, start_step=start, log=saved), 7 - start))
    assert same(resumed, whole[start:])
    taken = [i for batch in resumed for i in batch.ids]
    assert decoded[: len(taken)] == taken
    assert len(decoded) <= len(taken) + 4  # a batch ahead


def test_loader_processes_change_nothing(clips: ClipSet) -> None:
    logs = UnreadableLog(), UnreadableLog()
    alone = list(islice(train_batches(clips, settings(), seed=0, log=logs[0]), 5))
    shared = list(islice(train_batches(clips, settings(loader_workers=2), seed=0, log=logs[1]), 5))
    assert same(alone, shared)
    assert logs[0].reasons == logs[1].reasons == {"train3.mp4": "the file is empty (0 bytes)"}


#: all that is drawn for a clip and for a batch, at once
EVERYTHING = {
    "crop_scale": 0.3,
    "rand_augment": "rand-m7-n2-mstd0.5-inc1",
    "color_jitter": 0.4,
    "random_erasing": 0.5,
    "mixup": 0.8,
    "cutmix": 1.0,
    "repeated_augmentation": 2,
}


def test_augmented_batches_are_the_same_in_loader_processes_and_after_resuming(clips: ClipSet) -> None:
    whole = list(islice(train_batches(clips, settings(**EVERYTHING), seed=5), 6))
    log = UnreadableLog({"train3.mp4": "empty"})
    assert same(list(islice(train_batches(clips, settings(**EVERYTHING), seed=5, start_step=4, log=log), 2)), whole[4:])
    assert same(list(islice(train_batches(clips, settings(loader_workers=1, **EVERYTHING), seed=5), 6)), whole)
    assert not torch.equal(next(train_batches(clips, settings(**EVERYTHING), seed=6)).clips, whole[0].clips)
    for batch in whole:
        assert batch.labels.shape == (4, 2)
        assert batch.labels.dtype == torch.float32
        assert torch.allclose(batch.labels.sum(1), torch.ones(4))


def test_a_repeated_clip_is_drawn_anew_and_counts_once(clips: ClipSet) -> None:
    batches = list(islice(train_batches(clips, settings(repeated_augmentation=2), seed=0), 8))
    for batch in batches:
        assert batch.ids[0::2] == batch.ids[1::2]
        assert not torch.equal(batch.clips[0], batch.clips[1])
    once = [i for batch in batches for i in batch.ids[::2]]
    assert len(set(once[:8])) == len(set(once[8:])) == 8
    # the first of its repetitions is the clip without them
    alone = list(islice(train_batches(clips, settings(), seed=0), 4))
    assert all(torch.equal(batch.clips[::2], alone[n // 2].clips[n % 2 * 2 :][:2]) for n, batch in enumerate(batches))
    resumed = list(islice(train_batches(clips, settings(repeated_augmentation=2), seed=0, start_step=5, log=UnreadableLog()), 1))
    assert len(resumed) == 1


def test_frames_that_are_kept_change_nothing(clips: ClipSet) -> None:
    read = list(islice(train_batches(clips, settings(), seed=2), 6))
    assert same(list(islice(train_batches(clips, settings(kept_bytes=2**20), seed=2), 6)), read)


def test_small_clips_are_decoded_once_and_large_ones_as_asked(clips: ClipSet, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: Counter[str] = Counter()
    honest = loading.decode
    monkeypatch.setattr(loading, "decode", lambda path, *a, **k: counted.update([path.name]) or honest(path, *a, **k))
    list(islice(train_batches(clips, settings(kept_bytes=2**20), seed=2), 8))
    assert set(counted.values()) == {1}
    # a clip of 10 to 18 frames of 48 x 64 pixels is 92 to 166 kB
    counted.clear()
    list(islice(train_batches(clips, settings(kept_bytes=300_000), seed=2), 8))
    assert max(counted.values()) >= 4


def test_time_spent_waiting_is_known(clips: ClipSet) -> None:
    batches = train_batches(clips, settings(), seed=0)
    assert batches.waited_seconds == 0
    next(batches)
    first = batches.waited_seconds
    assert first > 0
    next(batches)
    assert batches.waited_seconds > first


def test_pinned_batches_are_stacked_into_page_locked_memory(clips: ClipSet, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    asked: list[bool] = []
    honest = torch.empty

    def empty(*size: object, pin_memory: bool = False, **more: object) -> torch.Tensor:
        asked.append(pin_memory)
        return honest(*size, **more)  # page-locking needs CUDA

    plain = next(train_batches(clips, settings(), seed=0))
    monkeypatch.setattr(torch, "empty", empty)
    pinned = next(train_batches(clips, dataclasses.replace(settings(), pinned=True), seed=0))
    assert True in asked
    assert same([pinned], [plain])


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
    with pytest.raises(UsageError, match="would change their class; set 'flip: if-safe'"):
        train_batches(clips, settings(flip=True), seed=0)


def test_clips_are_flipped_if_it_is_safe(clips: ClipSet) -> None:
    def three(clip_set: ClipSet, flip: object) -> list[Batch]:
        return list(islice(train_batches(clip_set, settings(flip=flip), seed=0), 3))

    safe = replace(clips, flip_safe=True)
    assert same(three(clips, "if-safe"), three(clips, False))
    assert same(three(safe, "if-safe"), three(safe, True))
    assert not same(three(safe, True), three(safe, False))


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
        list(islice(batches, 3))  # the one that was under way is still whole


def test_a_set_without_test_clips_is_an_error(clips: ClipSet) -> None:
    import dataclasses

    with pytest.raises(DataMissing, match="has no test clip"):
        loading.test_batches(dataclasses.replace(clips, test=()), settings())


class _Killed(loading.ClipDataset):
    def __getitem__(self, key: loading.Key) -> loading._Item:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_a_loader_process_that_dies_is_one_line(clips: ClipSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "ClipDataset", _Killed)
    with pytest.raises(BenchctlError, match="a loader process died; lower 'loader_workers'"):
        next(train_batches(clips, settings(loader_workers=1), seed=0))
