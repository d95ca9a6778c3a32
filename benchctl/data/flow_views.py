"""Optical flow of the frames that a view is made of: read from files that were made beforehand, or exact from the data set itself.

Stored flow leads from every frame i to frame min(i + stride, last). Those are the pairs that dense sampling with the same stride makes,
the frames it repeats at a clip's end included, and no other sampling does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchctl import lookup
from benchctl.data.clip_set import ClipRecord
from benchctl.data.content_files import digest_of, listed, typed_command
from benchctl.data.flow_files import find
from benchctl.data.sampling import Indices
from benchctl.data.transforms import Flow
from benchctl.errors import ClipUnreadable, DataMissing, UsageError
from benchctl.folders import flow_folder
from benchctl.spec import ClipFlow, DatasetRef


@dataclass(frozen=True)
class PrecomputedFlow:
    """Flow from files, for dense sampling with its stride."""

    flow: ClipFlow
    stride: int
    dataset: DatasetRef
    #: folder of all sets
    folder: Path

    @property
    def description(self) -> str:
        """Where it comes from, for the result."""
        by = self.flow.estimator if self.flow.weights is None else f"{self.flow.estimator} ({self.flow.weights})"
        return f"precomputed by {by}, stride {self.stride}"

    def require(self, clips: Sequence[ClipRecord]) -> None:
        """Raise DataMissing where some of `clips` have no flow; it says with which command they get it."""
        flow_set = find(self.folder, self.flow, self.stride)
        missing = flow_set.missing(clips) if flow_set else len(clips)
        if missing:
            what = f"{missing} of {len(clips)} clips have no flow ({self.flow.estimator}, stride {self.stride}) under {self.folder}"
            raise DataMissing(what, fix=f"run '{self._command()}'")

    def read(self, clip: ClipRecord, indices: Indices, available: int) -> Flow:
        """float32 (T, 2, h, w): from each of the frames `indices` (T,) to the next, in pixels of h x w; 0 in the last one.

        Args:
            clip: the clip.
            indices: as dense sampling gives them.
            available: frames of the clip.

        Raises:
            UsageError: they are others.
            ClipUnreadable: the clip has no flow, or one of another length.
        """
        if not np.array_equal(indices[1:], np.minimum(indices[:-1] + self.stride, available - 1)):
            fix = f"set 'sampling: dense' and 'frame_stride: {self.stride}' in the recipe"
            raise UsageError(f"precomputed flow fits dense sampling with stride {self.stride} only", fix=fix)
        flow_set = find(self.folder, self.flow, self.stride)
        file = flow_set.file(digest_of(clip.path)) if flow_set else self.folder
        try:
            stored = np.load(file, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            note = flow_set.note(file.stem) if flow_set else file
            reason = note.read_text(encoding="utf-8") if note.is_file() else f"{type(error).__name__} on {file}"
            raise ClipUnreadable(f"it has no flow: {reason}", where=str(clip.path)) from None
        if stored.ndim != 4 or stored.shape[:2] != (available, 2):
            raise ClipUnreadable(f"its flow {stored.shape} is of another length; delete {file}", where=str(clip.path))
        read = np.zeros((len(indices), *stored.shape[1:]), np.float32)
        read[:-1] = stored[indices[:-1]]
        return read

    def _command(self) -> str:
        """What makes it, as typed."""
        words = ["--estimator", self.flow.estimator, "--stride", str(self.stride)]
        if self.flow.weights is not None:
            words += ["--weights", self.flow.weights]
        return typed_command("flow", self.dataset, words)


@dataclass(frozen=True)
class ExactFlow:
    """Flow that a data set carries, for any sampling."""

    dataset: DatasetRef

    @property
    def description(self) -> str:
        """Where it comes from, for the result."""
        return f"exact, from {self.dataset.name}"

    def require(self, _clips: Sequence[ClipRecord]) -> None:
        """Nothing: the plan has seen that the data set carries it."""

    def read(self, clip: ClipRecord, indices: Indices, _available: int) -> Flow:
        """As `PrecomputedFlow.read`, of any frames, in pixels of the file.

        Raises:
            ClipUnreadable: the clip's own is missing or torn.
        """
        module: Any = lookup.load("dataset", self.dataset.name)
        between = np.asarray(module.exact_flow(clip, indices.tolist()), np.float32).transpose(0, 3, 1, 2)
        return np.concatenate([between, np.zeros((1, *between.shape[1:]), np.float32)])


FlowSource: TypeAlias = PrecomputedFlow | ExactFlow


def flow_source(flow: ClipFlow, dataset: DatasetRef, stride: int) -> FlowSource:
    """Who gives clips of `dataset` the flow that a method asks for."""
    if flow.estimator == "exact":
        return ExactFlow(dataset)
    return PrecomputedFlow(flow, stride, dataset, flow_folder())


def check_flow(flow: ClipFlow, stride: int, dataset: DatasetRef, root: Path) -> None:
    """Raise DataMissing where clips of the data set at `root` have no flow."""
    located, clips = listed(dataset, root)
    flow_source(flow, located, stride).require(clips)
