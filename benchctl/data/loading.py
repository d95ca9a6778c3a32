"""Batches of clips, the same for any number of loader processes.

What a clip looks like in an epoch is drawn from (seed, epoch, clip), and the order of an epoch from (seed, epoch), so neither
depends on which process decodes it. A clip that cannot be decoded is left out, counted and named; no other takes its place in the
order, and the next readable one fills the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from benchctl.data.clip_set import ClipRecord, ClipSet
from benchctl.data.decode import TIME_LIMIT_SECONDS, ClipInfo, Frames, decode, probe
from benchctl.data.flow_views import FlowSource
from benchctl.data.index import ClipIndex
from benchctl.data.room import check_room
from benchctl.data.sampling import Indices, eval_indices, train_indices
from benchctl.data.track_views import TrackSource
from benchctl.data.transforms import Flow, Normalisation, eval_views, train_view
from benchctl.errors import BenchctlError, ClipUnreadable, DataMissing, UsageError
from benchctl.spec import ClipShape, Modality, Recipe

if TYPE_CHECKING:
    import torch


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


@dataclass(frozen=True)
class Batch:
    """Readable clips only."""

    #: what the model is given, in its order, float32: pixels, then tracks. To train (B, ...), to test (B, V, ...) with V = eval_clips *
    #: eval_crops views, crops fastest. Pixels are (T, C, R, R): C is 3 for RGB or 1 for depth, and 2 more with flow, x and y in pixels of
    #: the view to the next frame, 0 in the last one. Tracks are (T', N, 3): x and y from -1 (left, top) to 1, and 1 where visible, else 0
    inputs: tuple[torch.Tensor, ...]
    #: int64 (B,) of classes, or float32 (B, K) of numbers, each scaled to mean 0 and deviation 1 over the training clips
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
    """Map-style data set over `records`: (epoch, index) to one `_Item`. Without a seed the views are the fixed ones for testing."""

    def __init__(self, records: tuple[ClipRecord, ...], settings: LoadSettings, seed: int | None = None) -> None:
        self.records = records
        self._settings = settings
        self._seed = seed
        #: what probing found, so that each process decodes a clip completely only once
        self._probed: dict[int, ClipInfo] = {}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> _Item:
        epoch, index = key
        try:
            return _Item(index, tuple(self._inputs(epoch, index)))
        except ClipUnreadable as unreadable:
            return _Item(index, None, unreadable.what)

    def _inputs(self, epoch: int, index: int) -> Iterator[torch.Tensor]:
        rng = None if self._seed is None else np.random.default_rng([self._seed, epoch, index])
        if self._settings.pixels:
            yield self._pixels(index, rng)
        if self._settings.tracks is not None:
            yield self._tracks(self._settings.tracks, index, rng)

    def _pixels(self, index: int, rng: np.random.Generator | None) -> torch.Tensor:
        settings, shape, recipe = self._settings, self._settings.shape, self._settings.recipe
        path, limit = self.records[index].path, settings.time_limit_seconds
        if index not in self._probed:
            known = settings.index.info(self.records[index]) if settings.index is not None else None
            self._probed[index] = known or probe(path, time_limit_seconds=limit)
        info = self._probed[index]
        if rng is None:
            return self._fixed_views(index, info)
        asked = train_indices(recipe.sampling, info.frames, shape.frames, recipe.frame_stride, rng)
        frames = self._decoded(info, asked[0])
        flow = self._flow(index, asked[0], info)
        return train_view(frames, shape.resolution, settings.normalisation, rng, flip=recipe.flip, flow=flow)

    def _decoded(self, info: ClipInfo, indices: Indices) -> Frames:
        """The frames, which must hold what the method reads, and fit into memory."""
        check_room(info, len(indices))
        frames = decode(info.path, indices, info=info, time_limit_seconds=self._settings.time_limit_seconds)
        found: Modality = "depth" if frames.shape[-1] == 1 else "rgb"
        if found != self._settings.modality:
            other = f"it holds {found}, and the method reads {self._settings.modality}"
            raise ClipUnreadable(other, where=str(info.path), fix="name a method that reads it, or its option 'modality'")
        return frames

    def _flow(self, index: int, asked: Indices, info: ClipInfo) -> Flow | None:
        source = self._settings.flow
        return None if source is None else source.read(self.records[index], asked, info.frames)

    def _fixed_views(self, index: int, info: ClipInfo) -> torch.Tensor:
        """(eval_clips * eval_crops, T, C, R, R)."""
        import torch

        settings, shape, recipe = self._settings, self._settings.shape, self._settings.recipe
        asked = eval_indices(recipe.sampling, info.frames, shape.frames, recipe.frame_stride, recipe.eval_clips)
        frames = self._decoded(info, asked.ravel())
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


def train_batches(
    clip_set: ClipSet, settings: LoadSettings, *, seed: int, start_step: int = 0, log: UnreadableLog | None = None
) -> Iterator[Batch]:
    """Full batches without end, every clip once an epoch in a shuffled order. An epoch's last clips share a batch with the next one's.

    `start_step` resumes behind that many batches without decoding them. `log` then holds what the run that is resumed left out;
    what is met from now on is added to it.

    Raises:
        UsageError: the recipe flips, and this data set's classes do not allow it.
        DataMissing: no training clip can be decoded, or clips lack the flow or the tracks that were asked for, those to test on included.
        BenchctlError: a loader process died.
    """
    if settings.recipe.flip and not clip_set.flip_safe:
        raise UsageError(f"mirrored clips of '{clip_set.name}' would change their class", fix="set 'flip: false' in the recipe")
    if settings.flow is not None:
        settings.flow.require((*clip_set.train, *clip_set.test))
    if settings.tracks is not None:
        settings.tracks.require((*clip_set.train, *clip_set.test))
    log = log if log is not None else UnreadableLog()
    dataset = ClipDataset(clip_set.train, settings, seed)
    order = _shuffled(clip_set.train, seed, start_step * settings.shape.batch_size, log)
    return _batches(clip_set, dataset, settings, _readable(dataset, order, settings, log), partial=False)


def test_batches(clip_set: ClipSet, settings: LoadSettings, *, log: UnreadableLog | None = None) -> Iterator[Batch]:  # noqa: PT028
    """Every readable test clip once, in the order of the list, each with all its views; the last batch may be smaller.

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
    order = ((0, index) for index in range(len(dataset)))
    return _batches(clip_set, dataset, settings, _readable(dataset, order, settings, log), partial=True)


def _shuffled(records: tuple[ClipRecord, ...], seed: int, skip: int, log: UnreadableLog) -> Iterator[tuple[int, int]]:
    """(epoch, index) without end, behind the first `skip` clips that are not in `log`."""
    for epoch in count():
        order = np.random.default_rng([seed, epoch]).permutation(len(records)).tolist()
        known = sum(record.id not in log.reasons for record in records)
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


def _readable(dataset: ClipDataset, order: Iterator[tuple[int, int]], settings: LoadSettings, log: UnreadableLog) -> Iterator[_Item]:
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


def _loaded(dataset: ClipDataset, order: Iterator[tuple[int, int]], settings: LoadSettings) -> Iterator[_Item]:
    """One item for each of `order`, decoded here or in loader processes."""
    workers = settings.recipe.loader_workers
    if workers == 0:
        yield from (dataset[key] for key in order)
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
        inputs = tuple(torch.stack(tensors) for tensors in zip(*(item.inputs for item in group if item.inputs is not None)))
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
