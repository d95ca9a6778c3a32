"""Batches of clips, the same for any number of loader processes.

What a clip looks like in an epoch is drawn from (seed, epoch, clip, repetition), the order of an epoch from (seed, epoch), and how a
batch is mixed from (seed, step), so none of it depends on which process decodes a clip. A clip that cannot be decoded is left out,
counted and named; no other takes its place in the order, and the next readable one fills the batch.

The next batch is loaded while one is used: by the loader processes, or where there are none by a thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from benchctl.data.ahead import Waiting, made_ahead
from benchctl.data.augment import ClipAugmentation, Mixing, check_augmentation
from benchctl.data.clip_set import ClipRecord, ClipSet
from benchctl.data.decode import TIME_LIMIT_SECONDS, ClipInfo, decode, probe
from benchctl.data.flow_views import FlowSource
from benchctl.data.index import ClipIndex
from benchctl.data.kept import KeptFrames
from benchctl.data.pyav_file import Frames
from benchctl.data.room import check_room
from benchctl.data.sampling import Indices, eval_indices, train_indices
from benchctl.data.scaling import Scaling
from benchctl.data.track_views import TrackSource
from benchctl.data.transforms import (
    Flow,
    Normalisation,
    as_channels,
    drawn_view,
    eval_scaling,
    eval_views,
    normalised,
    with_flow,
)
from benchctl.errors import BenchctlError, ClipUnreadable, DataMissing, UsageError
from benchctl.recipe import Recipe
from benchctl.spec import Modality
from benchctl.vocabulary import ClipShape

if TYPE_CHECKING:
    import torch

#: epoch, index of the clip, and which of its repetitions in a batch
Key: TypeAlias = tuple[int, int, int]
#: bytes of decoded frames that a process keeps, unless told otherwise
KEPT_BYTES = 2**30


@dataclass(frozen=True)
class LoadSettings:
    """How clips become batches."""

    #: frames and pixels that are read of each video; without `pixels`, only its batch size means anything
    shape: ClipShape
    recipe: Recipe
    normalisation: Normalisation = field(default_factory=Normalisation)
    #: seconds after which one clip counts as unreadable
    time_limit_seconds: float = TIME_LIMIT_SECONDS
    #: who gives optical flow with each clip; None: clips are RGB alone
    flow: FlowSource | None = None
    #: who gives point tracks with each clip; None: none are read
    tracks: TrackSource | None = None
    #: whether pixels are read; without, videos are not even opened
    pixels: bool = True
    #: what the videos must hold
    modality: Modality = "rgb"
    #: what is known of clips beforehand; None: each is decoded completely when it is first met
    index: ClipIndex | None = None
    #: bytes of decoded frames that each process keeps for the next epoch, where clips are small; 0: none
    kept_bytes: int = KEPT_BYTES
    #: whether batches lie in page-locked memory, from which a GPU copies faster; needs CUDA
    pinned: bool = False
    #: of the processes that share the clips, this one and how many they are: to train, clip p of the order is for process p modulo
    #: `ranks`, and the batch size is of one process; to test, the same of the list
    rank: int = 0
    ranks: int = 1


@dataclass(frozen=True)
class Batch:
    """Readable clips only."""

    #: what the model is given, in its order, float32: pixels, then tracks. To train (B, ...), to test (B, V, ...) with V = eval_clips *
    #: eval_crops views, crops fastest. Pixels are (T, C, R, R): C is 3 for RGB or 1 for depth, and 2 more with flow, x and y in pixels of
    #: the view to the next frame, 0 in the last one. Tracks are (T', N, 3): x and y from -1 (left, top) to 1, and 1 where visible, else 0
    inputs: tuple[torch.Tensor, ...]
    #: int64 (B,) of classes; where clips are mixed, float32 (B, K) of each class's share; or float32 (B, K) of numbers, each scaled to
    #: mean 0 and deviation 1 over the training clips
    labels: torch.Tensor
    ids: tuple[str, ...]

    @property
    def clips(self) -> torch.Tensor:
        """The first of `inputs`."""
        return self.inputs[0]


@dataclass
class UnreadableLog:
    """Clips that could not be decoded. Store `reasons` with a checkpoint: resuming at a step needs to know what was left out."""

    #: clip id -> why, in the order they were met
    reasons: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.reasons)

    def add(self, clip: ClipRecord, reason: str) -> None:
        """Note that `clip` is left out."""
        self.reasons.setdefault(clip.id, reason)


@dataclass(frozen=True)
class _Item:
    """One clip as a loader process hands it over: its tensors, or the reason why there are none."""

    index: int
    inputs: tuple[torch.Tensor, ...] | None
    reason: str = ""


class ClipDataset:
    """Map-style data set over `records`: (epoch, index, repetition) to one `_Item`.

    Without a seed the views are the fixed ones for testing.
    """

    def __init__(self, records: tuple[ClipRecord, ...], settings: LoadSettings, seed: int | None = None) -> None:
        self.records = records
        self._settings = settings
        self._seed = seed
        self._augmentation = ClipAugmentation(settings.recipe, settings.normalisation.mean)
        #: what probing found, so that each process decodes a clip completely only once
        self._probed: dict[int, ClipInfo] = {}
        # clips to test on are read once
        self._kept = KeptFrames(0 if seed is None else settings.kept_bytes, len(records))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: Key) -> _Item:
        try:
            return _Item(key[1], tuple(self._inputs(key)))
        except ClipUnreadable as unreadable:
            return _Item(key[1], None, unreadable.what)

    def _inputs(self, key: Key) -> Iterator[torch.Tensor]:
        _, index, _ = key
        rng = None if self._seed is None else _clip_rng(self._seed, key)
        if self._settings.pixels:
            yield self._pixels(index, rng)
        if self._settings.tracks is not None:
            yield self._tracks(self._settings.tracks, index, rng)

    def _pixels(self, index: int, rng: np.random.Generator | None) -> torch.Tensor:
        path, limit = self.records[index].path, self._settings.time_limit_seconds
        if index not in self._probed:
            known = self._settings.index.info(self.records[index]) if self._settings.index is not None else None
            self._probed[index] = known or probe(path, time_limit_seconds=limit)
        info = self._probed[index]
        return self._fixed_views(index, info) if rng is None else self._drawn_view(index, info, rng)

    def _drawn_view(self, index: int, info: ClipInfo, rng: np.random.Generator) -> torch.Tensor:
        """(T, C, R, R)."""
        settings, shape, recipe = self._settings, self._settings.shape, self._settings.recipe
        asked = train_indices(recipe.sampling, info.frames, shape.frames, recipe.frame_stride, rng)[0]
        view = drawn_view((info.height, info.width), shape.resolution, rng, flip=recipe.flip is True, crop_scale=recipe.crop_scale)
        frames = view.cut(self._decoded(index, info, asked, view.scaling))
        flow = self._flow(index, asked, info)
        clip = normalised(as_channels(self._augmentation.recoloured(frames, rng)), settings.normalisation)
        clip = self._augmentation.erased(clip, rng)
        return clip if flow is None else with_flow(clip, view.flow(flow))

    def _decoded(self, index: int, info: ClipInfo, indices: Indices, scaling: Scaling) -> Frames:
        """The frames, which must hold what the method reads, and fit into memory; from memory where they are kept."""
        if index in self._kept.frames:
            return scaling.frames(self._kept.frames[index][indices])
        check_room(info, len(indices))
        limit = self._settings.time_limit_seconds
        if self._kept.takes(info):
            whole = decode(info.path, np.arange(info.frames), info=info, time_limit_seconds=limit)
            self._check_modality(whole, info)
            self._kept.add(index, whole)
            return scaling.frames(whole[indices])
        frames = decode(info.path, indices, info=info, scaling=scaling, time_limit_seconds=limit)
        self._check_modality(frames, info)
        return frames

    def _check_modality(self, frames: Frames, info: ClipInfo) -> None:
        found: Modality = "depth" if frames.shape[-1] == 1 else "rgb"
        if found != self._settings.modality:
            other = f"it holds {found}, and the method reads {self._settings.modality}"
            raise ClipUnreadable(other, where=str(info.path), fix="name a method that reads it, or its option 'modality'")

    def _flow(self, index: int, asked: Indices, info: ClipInfo) -> Flow | None:
        source = self._settings.flow
        return None if source is None else source.read(self.records[index], asked, info.frames)

    def _fixed_views(self, index: int, info: ClipInfo) -> torch.Tensor:
        """(eval_clips * eval_crops, T, C, R, R)."""
        import torch

        settings, shape, recipe = self._settings, self._settings.shape, self._settings.recipe
        asked = eval_indices(recipe.sampling, info.frames, shape.frames, recipe.frame_stride, recipe.eval_clips)
        frames = self._decoded(index, info, asked.ravel(), eval_scaling((info.height, info.width), shape.resolution))
        views = [
            eval_views(clip, shape.resolution, settings.normalisation, recipe.eval_crops, flow=self._flow(index, view, info))
            for view, clip in zip(asked, np.split(frames, len(asked)))
        ]
        return torch.cat(views)

    def _tracks(self, source: TrackSource, index: int, rng: np.random.Generator | None) -> torch.Tensor:
        """(T', N, 3) to train, (eval_clips * eval_crops, T', N, 3) to test: tracks have no crops, each is there once for each of them."""
        import torch

        record, recipe = self.records[index], self._settings.recipe
        available = source.length(record)
        if rng is not None:
            asked = train_indices(recipe.sampling, available, source.frames, recipe.frame_stride, rng)
            return torch.from_numpy(source.read(record, asked[0], rng))
        views = eval_indices(recipe.sampling, available, source.frames, recipe.frame_stride, recipe.eval_clips)
        tracks = np.stack([source.read(record, view, None) for view in views])
        return torch.from_numpy(tracks).repeat_interleave(recipe.eval_crops, dim=0)


def _clip_rng(seed: int, key: Key) -> np.random.Generator:
    epoch, index, repetition = key
    spawned = (repetition,) if repetition else ()
    return np.random.default_rng(np.random.SeedSequence([seed, epoch, index], spawn_key=spawned))


def train_batches(
    clip_set: ClipSet, settings: LoadSettings, *, seed: int, start_step: int = 0, log: UnreadableLog | None = None
) -> Waiting[Batch]:
    """Full batches without end, every clip once an epoch in a shuffled order. An epoch's last clips share a batch with the next one's.

    With repeated augmentation a clip's repetitions follow each other in one batch, and count once. `start_step` resumes behind that many
    batches without decoding them. `log` then holds what the run that is resumed left out; what is met from now on is added to it.

    Raises:
        UsageError: the recipe flips, and this data set's classes do not allow it; or it augments what cannot be augmented that way.
        DataMissing: no training clip can be decoded, or clips lack the flow or the tracks that were asked for, those to test on included.
        BenchctlError: a loader process died.
    """
    if settings.recipe.flip == "if-safe":
        settings = replace(settings, recipe=settings.recipe.model_copy(update={"flip": clip_set.flip_safe}))
    recipe, shape = settings.recipe, settings.shape
    if recipe.flip and not clip_set.flip_safe:
        raise UsageError(f"mirrored clips of '{clip_set.name}' would change their class", fix="set 'flip: if-safe' in the recipe")
    check_augmentation(
        recipe,
        batch_size=shape.batch_size,
        pixels=settings.pixels,
        modality=settings.modality,
        flow=settings.flow is not None,
        tracks=settings.tracks is not None,
        classes=not clip_set.targets,
    )
    if settings.flow is not None:
        settings.flow.require((*clip_set.train, *clip_set.test))
    if settings.tracks is not None:
        settings.tracks.require((*clip_set.train, *clip_set.test))
    log = log if log is not None else UnreadableLog()
    dataset = ClipDataset(clip_set.train, settings, seed)
    times = recipe.repeated_augmentation
    once = _shuffled(clip_set.train, seed, start_step * (shape.batch_size // times), log, (settings.rank, settings.ranks))
    order = ((epoch, index, repetition) for epoch, index in once for repetition in range(times))
    batches = _batches(clip_set, dataset, settings, _readable(dataset, order, settings, log), partial=False)
    if recipe.mixup or recipe.cutmix:
        batches = _mixed(batches, Mixing(recipe.mixup, recipe.cutmix, len(clip_set.classes), seed), start_step)
    return Waiting(batches)


def _mixed(batches: Iterator[Batch], mixing: Mixing, start_step: int) -> Iterator[Batch]:
    for step, batch in enumerate(batches, start_step):
        clips, labels = mixing(batch.clips, batch.labels, step)
        yield Batch((clips,), labels, batch.ids)


def test_batches(clip_set: ClipSet, settings: LoadSettings, *, log: UnreadableLog | None = None) -> Iterator[Batch]:  # noqa: PT028
    """Every readable test clip of this process once, in the order of the list, each with all its views; the last batch may be smaller.

    Raises:
        DataMissing: there is no test clip, none can be decoded, or some lack the flow or the tracks that were asked for.
        BenchctlError: a loader process died.
    """
    if not clip_set.test:
        raise DataMissing(f"'{clip_set.name}' has no test clip", fix="name some in its list")
    if settings.flow is not None:
        settings.flow.require(clip_set.test)
    if settings.tracks is not None:
        settings.tracks.require(clip_set.test)
    log = log if log is not None else UnreadableLog()
    dataset = ClipDataset(clip_set.test, settings)
    order = ((0, index, 0) for index in range(settings.rank, len(dataset), settings.ranks))
    return _batches(clip_set, dataset, settings, _readable(dataset, order, settings, log), partial=True)


def _shuffled(
    records: tuple[ClipRecord, ...], seed: int, skip: int, log: UnreadableLog, share: tuple[int, int]
) -> Iterator[tuple[int, int]]:
    """(epoch, index) without end, behind the first `skip` clips that are not in `log`; every `share[1]`-th from `share[0]` on."""
    rank, ranks = share
    for epoch in count():
        # the first that is this process's own, in an order that goes on from epoch to epoch
        begin = (rank - epoch * len(records)) % ranks
        order = np.random.default_rng([seed, epoch]).permutation(len(records))[begin::ranks].tolist()
        known = sum(records[index].id not in log.reasons for index in order)
        if skip >= known > 0:
            skip -= known
            continue
        for index in order:
            if records[index].id in log.reasons:
                continue
            if skip:
                skip -= 1
                continue
            yield epoch, index
        if all(record.id in log.reasons for record in records):
            raise _none_readable(log, len(records))


def _readable(dataset: ClipDataset, order: Iterator[Key], settings: LoadSettings, log: UnreadableLog) -> Iterator[_Item]:
    """The items of `order` that could be decoded, in order."""
    found = False
    for item in _loaded(dataset, order, settings):
        if item.inputs is None:
            log.add(dataset.records[item.index], item.reason)
            continue
        found = True
        yield item
    if not found:
        raise _none_readable(log, len(dataset))


def _none_readable(log: UnreadableLog, clips: int) -> DataMissing:
    first, reason = next(iter(log.reasons.items()))
    return DataMissing(f"none of {clips} clips can be decoded (first: {first}: {reason})", fix="check the videos")


def _loaded(dataset: ClipDataset, order: Iterator[Key], settings: LoadSettings) -> Iterator[_Item]:
    """One item for each of `order`, decoded ahead of its use by a thread or in loader processes."""
    workers = settings.recipe.loader_workers
    if workers == 0:
        yield from made_ahead(dataset.__getitem__, order, settings.shape.batch_size)
        return
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(
        dataset,  # type: ignore[arg-type]  # what it needs is __getitem__; subclassing would import torch with this module
        batch_size=None,
        sampler=order,
        num_workers=workers,
        # a batch and one clip for each process are under way at any time
        prefetch_factor=1 + -(-settings.shape.batch_size // workers),
        # a forked child would inherit the locks of decoders, CUDA and NVML threads in whatever state they were
        multiprocessing_context="spawn",
    )
    items = iter(loader)
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise BenchctlError("a loader process died", fix="lower 'loader_workers', or free memory and /dev/shm") from error
        yield item


def _batches(clip_set: ClipSet, dataset: ClipDataset, settings: LoadSettings, items: Iterator[_Item], *, partial: bool) -> Iterator[Batch]:
    """Stack `items` by the batch size."""
    import torch

    def stacked(group: list[_Item]) -> Batch:
        records = [dataset.records[item.index] for item in group]
        inputs = tuple(_stacked(tensors, settings.pinned) for tensors in zip(*(item.inputs for item in group if item.inputs is not None)))
        labels = torch.from_numpy(clip_set.scaled_values(records)) if clip_set.targets else torch.tensor([r.label for r in records])
        return Batch(inputs, labels, tuple(record.id for record in records))

    group: list[_Item] = []
    for item in items:
        group.append(item)
        if len(group) == settings.shape.batch_size:
            yield stacked(group)
            group = []
    if group and partial:
        yield stacked(group)


def _stacked(tensors: tuple[torch.Tensor, ...], pinned: bool) -> torch.Tensor:
    """Along a new first axis, into page-locked memory where `pinned`: in one copy, not two."""
    import torch

    if not pinned:
        return torch.stack(tensors)
    out = torch.empty((len(tensors), *tensors[0].shape), dtype=tensors[0].dtype, pin_memory=True)
    return torch.stack(tensors, out=out)
