"""Accuracy of a model on the test clips of a data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from benchctl.data.clip_set import ClipSet
from benchctl.data.loading import LoadSettings, UnreadableLog, test_batches
from benchctl.engine.step import autocast
from benchctl.metrics import top_k
from benchctl.record import Measurement
from benchctl.spec import Precision


@dataclass
class Evaluation:
    """Scores of every readable test clip."""

    #: softmax scores, averaged over views: (clips, classes), float32, on the CPU
    scores: Tensor
    labels: Tensor
    unreadable: dict[str, str] = field(default_factory=dict)
    #: clips that the list names and the folder lacks
    missing: tuple[str, ...] = ()

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
    try:
        for batch in test_batches(clips, settings, log=log):
            # view by view: the memory is that of one batch, whatever the number of views
            views = [_scores(model, view.to(device), precision) for view in batch.clips.unbind(1)]
            scores.append(torch.stack(views).mean(0).cpu())
            labels.append(batch.labels)
    finally:
        model.train(was_training)
    return Evaluation(torch.cat(scores), torch.cat(labels), dict(log.reasons), clips.missing)


def _scores(model: nn.Module, clips_BTCHW: Tensor, precision: Precision) -> Tensor:
    with autocast(precision, clips_BTCHW.device.type):
        logits: Tensor = model(clips_BTCHW)
    return logits.float().softmax(-1)


def clip_notes(unreadable: dict[str, str], missing: tuple[str, ...]) -> dict[str, Any]:
    """Notes that name the clips which took no part."""
    found: dict[str, Any] = {}
    if unreadable:
        found["unreadable_clips"] = [f"{clip}: {reason}" for clip, reason in unreadable.items()]
    if missing:
        found["missing_clips"] = list(missing)
    return found
