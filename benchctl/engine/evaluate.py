"""How good a model is on the test clips of a data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchctl.atomic_file import replacing
from benchctl.data.clip_set import ClipSet
from benchctl.data.loading import Batch, LoadSettings, UnreadableLog, test_batches
from benchctl.engine.step import autocast
from benchctl.errors import MissingError
from benchctl.metrics import top_k
from benchctl.record import Measurement
from benchctl.spec import Precision


@dataclass
class Evaluation:
    """Scores of every readable test clip."""

    #: softmax scores, averaged over views: (clips, classes), float32, on the CPU
    scores: Tensor
    labels: Tensor
    ids: tuple[str, ...] = ()
    unreadable: dict[str, str] = field(default_factory=dict)
    #: clips that the list names and the folder lacks
    missing: tuple[str, ...] = ()

    def save(self, file: Path) -> None:
        """Write ids, labels and scores of all clips, as `benchctl.metrics.scores` reads them.

        Raises:
            MissingError: the disk is full or the folder cannot be written.
        """
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as out:
                np.savez(out, ids=np.array(self.ids), labels=self.labels.numpy(), scores=self.scores.numpy())
        except OSError as problem:
            raise MissingError(f"cannot write scores: {problem.strerror or problem}", where=str(file), fix="free space there") from None

    def measurements(self, device: str) -> tuple[Measurement, ...]:
        """Top-1, top-5 and the number of clips they are over. With fewer than 6 classes there is no top-5."""
        classes = self.scores.shape[1]
        fifth = (
            Measurement(metric="top5", value=top_k.accuracy(self.scores, self.labels, 5), device=device)
            if classes > 5
            else Measurement(metric="top5", value=None, device=device, reason=f"{classes} classes")
        )
        return (
            Measurement(metric="top1", value=top_k.accuracy(self.scores, self.labels, 1), device=device),
            fifth,
            Measurement(metric="clips", value=len(self.labels), kind="test", device=device),
        )


@torch.no_grad()
def evaluate(model: nn.Module, clips: ClipSet, settings: LoadSettings, precision: Precision) -> Evaluation:
    """Score every readable test clip: softmax averaged over its views, one forward pass a view.

    An unreadable clip is counted and named; no other takes its place.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    log = UnreadableLog()
    scores: list[Tensor] = []
    labels: list[Tensor] = []
    ids: list[str] = []
    try:
        for batch in test_batches(clips, settings, log=log):
            scores.append(torch.stack([_scores(model, view, precision) for view in _views(batch, device)]).mean(0).cpu())
            labels.append(batch.labels)
            ids += batch.ids
    finally:
        model.train(was_training)
    return Evaluation(torch.cat(scores), torch.cat(labels), tuple(ids), dict(log.reasons), clips.missing)


@torch.no_grad()
def reconstruct(model: nn.Module, clips: ClipSet, settings: LoadSettings, precision: Precision) -> Measurement:
    """Mean loss of a pre-training over the test clips and their views, with the same things hidden each time."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total, seen = 0.0, 0
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            for batch in test_batches(clips, settings):
                for view in _views(batch, device):
                    with autocast(precision, device.type):
                        total += float(model(*view)) * len(batch.ids)
                    seen += len(batch.ids)
    finally:
        model.train(was_training)
    return Measurement(metric="reconstruction_loss", value=total / seen, kind="test", device=device.type)


def _views(batch: Batch, device: torch.device) -> Iterator[tuple[Tensor, ...]]:
    """What the model is given, view by view: the memory is that of one batch, whatever the number of views."""
    for view in range(batch.inputs[0].shape[1]):
        yield tuple(tensor[:, view].to(device) for tensor in batch.inputs)


def _scores(model: nn.Module, inputs: tuple[Tensor, ...], precision: Precision) -> Tensor:
    with autocast(precision, inputs[0].device.type):
        logits: Tensor = model(*inputs)
    return logits.float().softmax(-1)


def clip_notes(unreadable: dict[str, str], missing: tuple[str, ...]) -> dict[str, Any]:
    """Notes that name the clips which took no part."""
    found: dict[str, Any] = {}
    if unreadable:
        found["unreadable_clips"] = [f"{clip}: {reason}" for clip, reason in unreadable.items()]
    if missing:
        found["missing_clips"] = list(missing)
    return found
