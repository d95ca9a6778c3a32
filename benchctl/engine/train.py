"""Training under a budget of steps, with a checkpoint to go on from."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchctl.data.clip_set import ClipSet
from benchctl.data.loading import Batch, LoadSettings, UnreadableLog, train_batches
from benchctl.engine import checkpoint
from benchctl.engine.step import TrainingStep, learning_rate
from benchctl.record import Measurement, Outcome
from benchctl.spec import Cell

#: seconds between two checkpoints
CHECKPOINT_SECONDS = 60.0
#: share of the steps, at the end, whose mean loss is reported
FINAL_SHARE = 0.1
#: the metric that a loss is, by what is learned; values are scaled to deviation 1 before
_LOSSES = {"classes": "loss", "reconstruction": "reconstruction_loss", "values": "scaled_squared_error"}


class Stop(Protocol):
    """Something that says whether to stop."""

    def is_set(self) -> bool:
        """Whether to stop now."""


@dataclass
class Progress:
    """How far a training is; kept in its checkpoints."""

    losses: list[float] = field(default_factory=list)
    #: time in training steps, data loading included, checkpoints and evaluation not
    seconds: float = 0.0
    unreadable: dict[str, str] = field(default_factory=dict)

    def measurements(self, cell: Cell, device: str) -> tuple[Measurement, ...]:
        """What the training used, and where its loss ended."""
        steps = len(self.losses)
        samples = steps * cell.shape.batch_size
        final = self.losses[-max(1, round(FINAL_SHARE * steps)) :]
        return (
            Measurement(metric="steps", value=steps),
            Measurement(metric="samples", value=samples),
            Measurement(metric="frames_seen", value=samples * cell.shape.frames),
            Measurement(metric="train_seconds", value=self.seconds, device=device),
            *(
                [Measurement(metric=_LOSSES[cell.objective], value=sum(final) / len(final), kind="train")]
                if final and all(map(math.isfinite, final))
                else []
            ),
            Measurement(metric="unreadable_clips", value=len(self.unreadable), kind="train"),
        )


@dataclass(frozen=True)
class Ending:
    """How a training ended."""

    outcome: Outcome
    reason: str | None
    progress: Progress
    checkpoint: Path | None


def train(cell: Cell, training: TrainingStep, clips: ClipSet, settings: LoadSettings, folder: Path, stop: Stop) -> Ending:
    """Train for the cell's budget, from the checkpoint in `folder` if there is one.

    The order and the content of batches, and on a CPU every byte of the result, are the same however often it was stopped.
    """
    steps = cell.steps
    assert steps is not None, "a train cell has a budget"
    progress, start = _resume(training, folder)
    log = UnreadableLog(progress.unreadable)
    batches = train_batches(clips, settings, seed=cell.seed, start_step=start, log=log)
    training.start()
    saved_at = time.monotonic()

    def save(step: int) -> Path:
        return checkpoint.save(
            folder, training, step, cell, {"losses": progress.losses, "seconds": progress.seconds, "unreadable": log.reasons}
        )

    for step in range(start, steps):
        if stop.is_set():
            return Ending(Outcome.INTERRUPTED, f"stopped after {step} of {steps} steps", progress, save(step))
        began = time.monotonic()
        training.set_learning_rate(learning_rate(step, steps, cell.recipe))
        loss = _one(training, batches)
        progress.losses.append(loss)
        progress.seconds += time.monotonic() - began
        if not math.isfinite(loss):
            return Ending(Outcome.DIVERGED, f"the loss became {loss} at step {step + 1} of {steps}", progress, None)
        if time.monotonic() - saved_at > CHECKPOINT_SECONDS and step + 1 < steps:
            save(step + 1)
            saved_at = time.monotonic()
    return Ending(Outcome.OK, None, progress, save(steps))


def _one(training: TrainingStep, batches: Iterator[Batch]) -> float:
    batch = next(batches)
    device = next(training.model.parameters()).device
    loss = training.forward((tuple(tensor.to(device) for tensor in batch.inputs), batch.labels.to(device)))
    training.backward(loss)
    training.update()
    # also the synchronisation that makes the clock true
    return float(loss.detach())


def _resume(training: TrainingStep, folder: Path) -> tuple[Progress, int]:
    path = folder / checkpoint.FILE
    if not path.is_file():
        return Progress(), 0
    content: dict[str, Any] = checkpoint.load(path)
    start = checkpoint.restore(training, content)
    kept = content["record"]
    return Progress(list(kept["losses"]), float(kept["seconds"]), dict(kept["unreadable"])), start
