"""How good a model is on the test clips of a data set: of classes the accuracy, of numbers their correlation and error.

Clips that were cut from one video are judged together, by the mean of what was said of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchctl.atomic_file import replacing
from benchctl.data.clip_set import ClipRecord, ClipSet
from benchctl.data.loading import Batch, LoadSettings, UnreadableLog, test_batches
from benchctl.engine.ranks import ALONE, Ranks
from benchctl.engine.step import autocast
from benchctl.errors import MissingError
from benchctl.metrics import pearson, rmse, top_k
from benchctl.record import Measurement, packed
from benchctl.spec import Precision

#: file of a cell's scores in its folder
SCORES = "scores.npz"


@dataclass
class Evaluation:
    """What was said of every readable test clip, or of every video where clips were cut from videos."""

    #: float64 on the CPU, averaged over views and clips: softmax scores (clips, classes), or predictions (clips, targets) in their units
    scores: Tensor
    #: int64 (clips,) of classes, or float64 (clips, targets) of values
    labels: Tensor
    #: of the clips, or of the videos
    ids: tuple[str, ...] = ()
    unreadable: dict[str, str] = field(default_factory=dict)
    #: clips that the list names and the folder lacks
    missing: tuple[str, ...] = ()
    #: names of the values; empty: classes
    targets: tuple[str, ...] = ()
    #: readable clips
    clips: int = 0

    def save(self, file: Path) -> None:
        """Write ids, labels and scores, as `benchctl.metrics.scores` reads them; of values, these are values and predictions.

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
        """Top-1 and top-5, or correlation and error of each target, and the number of clips and of videos they are over."""
        counts = [Measurement(metric="clips", value=self.clips, kind="test", device=device)]
        if self.clips != len(self.ids):
            counts.append(Measurement(metric="clips", value=len(self.ids), kind="videos", device=device))
        return (*(self._of_values(device) if self.targets else self._of_classes(device)), *counts)

    def correct(self) -> dict[str, Any]:
        """Which clips are in their class, as `benchctl.record.correctness` reads it: one bit a clip, in the order of their names."""
        order = sorted(range(len(self.ids)), key=self.ids.__getitem__)
        right = (self.scores.argmax(1) == self.labels).numpy()[order]
        return packed([self.ids[i] for i in order], right.tolist())

    def _of_classes(self, device: str) -> list[Measurement]:
        """With fewer than 6 classes there is no top-5."""
        classes = self.scores.shape[1]
        fifth = (
            Measurement(metric="top5", value=top_k.accuracy(self.scores, self.labels, 5), device=device)
            if classes > 5
            else Measurement(metric="top5", value=None, device=device, reason=f"{classes} classes")
        )
        return [Measurement(metric="top1", value=top_k.accuracy(self.scores, self.labels, 1), device=device), fifth]

    def _of_values(self, device: str) -> list[Measurement]:
        found = []
        for index, target in enumerate(self.targets):
            said, true = self.scores[:, index].numpy(), self.labels[:, index].numpy()
            r, root, reason = None, None, "the model answers with what is no finite number"
            if np.isfinite(said).all():
                r, root = pearson.correlation(said, true), rmse.error(said, true)
                reason = f"{'values' if np.ptp(true) == 0 else 'predictions'} are the same for all test clips"
            for name, value in (("pearson_r", r), ("rmse", root)):
                why = reason if value is None else None
                found.append(Measurement(metric=name, value=value, kind=target, device=device, reason=why))
        return found


@torch.no_grad()
def evaluate(
    model: nn.Module, clips: ClipSet, settings: LoadSettings, precision: Precision, ranks: Ranks = ALONE, *, together: bool = False
) -> Evaluation:
    """Judge every readable test clip: softmax, or numbers, averaged over its views, one forward pass a view; then over those of its video.

    An unreadable clip is counted and named; no other takes its place. Several ranks share the clips, and all get the same evaluation;
    with `together`, they make their forward passes together, as divided weights need it.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    log = UnreadableLog()
    own: dict[str, Tensor] = {}
    try:
        # a rank without a clip of its own takes the first: it is judged twice, and counted once
        rank = ranks.rank if ranks.rank < len(clips.test) else 0
        mine = replace(settings, rank=rank, ranks=ranks.world)
        for batch in _in_step(test_batches(clips, mine, log=log), ranks if together else ALONE):
            ranks.beat("judging")
            answers = [_answer(model, view, precision) for view in _views(batch, device)]
            if not clips.targets:
                answers = [answer.softmax(-1) for answer in answers]
            own.update(zip(batch.ids, torch.stack(answers).mean(0).cpu()))
    finally:
        model.train(was_training)
    found: dict[str, Tensor] = {}
    for scores, reasons in ranks.gather((own, log.reasons)):
        found |= scores
        log.reasons |= reasons
    records = [record for record in clips.test if record.id in found]
    return _judged_together(records, torch.stack([found[record.id] for record in records]).double(), clips, log)


def _in_step(batches: Iterator[Batch], ranks: Ranks) -> Iterator[Batch]:
    """The batches; a rank that has no more of them repeats its last one until no rank has any."""
    last: Batch | None = None
    while True:
        batch = next(batches, None)
        if not any(has for (has,) in ranks.exchange(float(batch is not None))):
            return
        last = batch or last
        assert last is not None, "there is a readable clip, or an error was raised"
        yield last


def _judged_together(records: Sequence[ClipRecord], scores: Tensor, clips: ClipSet, log: UnreadableLog) -> Evaluation:
    """The mean over the clips of each video, in the order in which videos first come; values are put back on their scale."""
    if clips.targets:
        mean, deviation = (torch.from_numpy(part) for part in clips.scale)
        scores = scores * deviation + mean
    # the two kinds of name are kept apart: a video may be called like a clip
    members: dict[tuple[bool, str], list[int]] = {}
    for index, record in enumerate(records):
        members.setdefault((bool(record.video), record.video or record.id), []).append(index)
    firsts = [records[indices[0]] for indices in members.values()]
    labels = torch.tensor([r.values for r in firsts], dtype=torch.float64) if clips.targets else torch.tensor([r.label for r in firsts])
    return Evaluation(
        scores=torch.stack([scores[indices].mean(0) for indices in members.values()]),
        labels=labels,
        ids=tuple(name for _, name in members),
        unreadable=dict(log.reasons),
        missing=clips.missing,
        targets=clips.targets,
        clips=len(records),
    )


@torch.no_grad()
def reconstruct(
    model: nn.Module, clips: ClipSet, settings: LoadSettings, precision: Precision, ranks: Ranks = ALONE, *, together: bool = False
) -> Measurement:
    """Mean loss of a pre-training over the test clips and their views, with the same things hidden each time."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total, seen = 0.0, 0.0
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            rank = ranks.rank if ranks.rank < len(clips.test) else 0
            seen_ids: set[str] = set()
            for batch in _in_step(test_batches(clips, replace(settings, rank=rank, ranks=ranks.world)), ranks if together else ALONE):
                repeated = rank != ranks.rank or not seen_ids.isdisjoint(batch.ids)
                seen_ids.update(batch.ids)
                for view in _views(batch, device):
                    with autocast(precision, device.type):
                        loss = float(model(*view))
                    if not repeated:
                        total += loss * len(batch.ids)
                        seen += len(batch.ids)
    finally:
        model.train(was_training)
    everyone = ranks.exchange(total, seen)
    total, seen = (sum(column) for column in zip(*everyone))
    return Measurement(metric="reconstruction_loss", value=total / seen, kind="test", device=device.type)


def _views(batch: Batch, device: torch.device) -> Iterator[tuple[Tensor, ...]]:
    """What the model is given, view by view: the memory is that of one batch, whatever the number of views."""
    for view in range(batch.inputs[0].shape[1]):
        yield tuple(tensor[:, view].to(device) for tensor in batch.inputs)


def _answer(model: nn.Module, inputs: tuple[Tensor, ...], precision: Precision) -> Tensor:
    """Logits or scaled numbers, in fp32."""
    with autocast(precision, inputs[0].device.type):
        answer: Tensor = model(*inputs)
    return answer.float()


def recorded(evaluation: Evaluation, folder: Path | None, device: str) -> tuple[list[Measurement], dict[str, Any]]:
    """How good a model is, and notes: which clips it was right about, and where the scores of all of them are kept, if in `folder`."""
    notes: dict[str, Any] = {}
    if folder is not None:
        file = folder / SCORES
        evaluation.save(file)
        notes["scores"] = str(file)
    if not evaluation.targets:
        notes["correct"] = evaluation.correct()
    unreadable = Measurement(metric="unreadable_clips", value=len(evaluation.unreadable), kind="test")
    return [*evaluation.measurements(device), unreadable], notes


def clip_notes(unreadable: dict[str, str], missing: tuple[str, ...]) -> dict[str, Any]:
    """Notes that name the clips which took no part."""
    found: dict[str, Any] = {}
    if unreadable:
        found["unreadable_clips"] = [f"{clip}: {reason}" for clip, reason in unreadable.items()]
    if missing:
        found["missing_clips"] = list(missing)
    return found
