"""Training under a budget, judged at shares of it on the way, with a checkpoint to go on from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from benchctl.budget import TIMED
from benchctl.data.clip_set import ClipSet
from benchctl.data.loading import Batch, LoadSettings, UnreadableLog, train_batches
from benchctl.engine import checkpoint
from benchctl.engine.budget import PACED_STEPS, WARMUP_STEPS, Allowance, Used
from benchctl.engine.ranks import ALONE, Ranks
from benchctl.engine.step import Batch as StepBatch
from benchctl.engine.step import TrainingStep, learning_rate, learning_rate_at
from benchctl.errors import BenchctlError
from benchctl.record import Measurement, Outcome
from benchctl.spec import Cell

#: seconds between two checkpoints
CHECKPOINT_SECONDS = 60.0
#: share of the steps, at the end, whose mean loss is reported
FINAL_SHARE = 0.1
#: the metric that a loss is, by what is learned; values are scaled to deviation 1 before
_LOSSES = {"classes": "loss", "reconstruction": "reconstruction_loss", "values": "scaled_squared_error"}

#: judges the model as it is: scores by metric
Judge = Callable[[], dict[str, float]]
#: reads the joules that the device has used since a moment of its own
Meter = Callable[[], float]


class Stop(Protocol):
    """Something that says whether to stop."""

    def is_set(self) -> bool:
        """Whether to stop now."""


@dataclass(frozen=True)
class Judged:
    """What the model scored after a share of its budget, and what it had used by then."""

    share: float
    scores: dict[str, float]
    steps: int
    seconds: float

    @property
    def kind(self) -> str:
        """Of its measurements."""
        return f"{100 * self.share:g}%"


@dataclass
class Progress:
    """How far a training is; kept in its checkpoints."""

    losses: list[float] = field(default_factory=list)
    used: Used = field(default_factory=Used)
    #: steps that were expected in all, once that was known
    planned: int | None = None
    judged: list[Judged] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)

    def stored(self) -> dict[str, Any]:
        """As `restored` reads it."""
        return asdict(self)

    @classmethod
    def restored(cls, kept: dict[str, Any]) -> Progress:
        """From what `stored` gave."""
        judged = [Judged(**one) for one in kept["judged"]]
        return cls(list(kept["losses"]), Used(**kept["used"]), kept["planned"], judged, dict(kept["unreadable"]))

    def measurements(self, cell: Cell, allowance: Allowance, device: str) -> tuple[Measurement, ...]:
        """What the training used, what it scored on the way, and where its loss ended."""
        used = self.used
        samples = used.steps * cell.shape.batch_size
        final = self.losses[-max(1, round(FINAL_SHARE * used.steps)) :]
        found = [
            Measurement(metric="steps", value=used.steps),
            Measurement(metric="samples", value=samples),
            Measurement(metric="frames_seen", value=samples * cell.shape.frames),
            Measurement(metric="train_seconds", value=used.seconds, device=device),
            Measurement(metric="budget_used", value=allowance.matched_share(used)),
            Measurement(metric="unreadable_clips", value=len(self.unreadable), kind="train"),
        ]
        if self.planned is not None:
            found.append(Measurement(metric="planned_steps", value=self.planned))
        if used.seconds > 0:
            found.append(Measurement(metric="stall_fraction", value=min(1.0, used.waited_seconds / used.seconds), device=device))
        if final and all(map(math.isfinite, final)):
            found.append(Measurement(metric=_LOSSES[cell.objective], value=sum(final) / len(final), kind="train"))
        return (*found, *self._on_the_way(allowance.step_flops, device))

    def _on_the_way(self, step_flops: int | None, device: str) -> Iterator[Measurement]:
        for judged in self.judged:
            yield Measurement(metric="train_seconds", value=judged.seconds, kind=judged.kind, device=device)
            if step_flops is not None:
                yield Measurement(metric="train_flops", value=judged.steps * step_flops, kind=judged.kind)
            for metric, value in judged.scores.items():
                yield Measurement(metric=metric, value=value, kind=judged.kind, device=device)


@dataclass(frozen=True)
class Ending:
    """How a training ended."""

    outcome: Outcome
    reason: str | None
    progress: Progress
    checkpoint: Path | None
    #: the limit that ended it, in words
    stop_reason: str | None = None


class _Wishes:
    """Whether to stop, and whether to write a checkpoint: what all ranks do at the same step, since each step makes them say it."""

    def __init__(self, stop: Stop, ranks: Ranks) -> None:
        self._stop = stop
        self._ranks = ranks
        self._heard_stop = False
        self._heard_save = False
        self._saved_at = time.monotonic()

    def own(self) -> tuple[float, float]:
        """What this rank wishes."""
        return float(not self._ranks.alone and self._stop.is_set()), float(time.monotonic() - self._saved_at > CHECKPOINT_SECONDS)

    def heard(self, everyone: list[tuple[float, ...]]) -> None:
        """What all ranks wished; the clock is that of the first."""
        self._heard_stop = any(stop for stop, _ in everyone)
        self._heard_save = bool(everyone[0][1])

    @property
    def to_stop(self) -> bool:
        """Alone, as soon as it is asked for."""
        return self._stop.is_set() if self._ranks.alone else self._heard_stop

    @property
    def to_save(self) -> bool:
        """When the last checkpoint is old."""
        return self._heard_save

    def saved(self) -> None:
        """A checkpoint was written."""
        self._saved_at = time.monotonic()


@dataclass
class Training:
    """One training: what learns, from what, under which budget."""

    cell: Cell
    step: TrainingStep
    clips: ClipSet
    settings: LoadSettings
    allowance: Allowance
    #: where its checkpoint lies
    folder: Path
    #: judges the model on the way; None: nobody does
    judge: Judge | None = None
    #: reads the device's energy; None: it is not metered
    meter: Meter | None = None
    #: what was used of the same budget before, by the trials of a search
    before: Used = field(default_factory=Used)
    #: this process among those that train together; `settings` are for its share of the batch
    ranks: Ranks = ALONE
    #: clips of one forward pass; None: the whole share
    micro_batch: int | None = None
    #: a checkpoint of a cell that trains the same with other processes, to go on from where there is none of this one's own
    resume: Path | None = None

    def run(self, stop: Stop) -> Ending:
        """Train until the budget is used up, from the checkpoint in `folder` if there is one.

        The order and the content of batches, and on a CPU every byte of the result, are the same however often it was stopped and
        wherever it was judged, as long as no clock limits it.
        """
        progress = self._resumed()
        used = progress.used
        log = UnreadableLog(progress.unreadable)
        batches = train_batches(self.clips, self.settings, seed=self.cell.seed, start_step=used.steps - self.before.steps, log=log)
        self.step.start()
        passed = max((j.share for j in progress.judged), default=self.allowance.share(self.before))
        shares = [share for share in sorted(self._shares()) if share > passed]
        wishes = _Wishes(stop, self.ranks)
        while (reached := self.allowance.end(used)) is None:
            if wishes.to_stop:
                planned = self.allowance.planned_steps(used)
                reason = f"stopped after {used.steps} of {planned} steps"
                return Ending(Outcome.INTERRUPTED, reason, progress, self._save(progress, log))
            loss = self._one(batches, used, wishes)
            progress.losses.append(loss)
            if not math.isfinite(loss):
                reason = f"the loss became {loss} at step {used.steps} of {self.allowance.planned_steps(used)}"
                return Ending(Outcome.DIVERGED, reason, progress, None)
            if progress.planned is None and (not self._timed or used.steps - self.before.steps >= PACED_STEPS):
                progress.planned = self.allowance.planned_steps(used)
            while shares and shares[0] < 1.0 and self.allowance.share(used) >= shares[0]:
                self._judge(shares.pop(0), progress)
            if wishes.to_save and self.allowance.end(used) is None:
                self._save(progress, log)
                wishes.saved()
        return Ending(Outcome.OK, None, progress, self._save(progress, log), reached)

    @property
    def _timed(self) -> bool:
        return any(name in TIMED for name in self.allowance.budget.limits)

    def _shares(self) -> tuple[float, ...]:
        return self.allowance.budget.evaluate_at if self.judge is not None else ()

    def _one(self, batches: Iterator[Batch], used: Used, wishes: _Wishes) -> float:
        """One step, which all ranks make together; its loss."""
        ranks = self.ranks
        ranks.beat(f"loading the batch of step {used.steps + 1}")
        began, cpu, energy = time.monotonic(), time.process_time(), self.meter() if self.meter else 0.0
        batch = next(batches)
        waited = time.monotonic() - began
        self.step.set_learning_rate(self._learning_rate(used))
        ranks.beat(f"computing step {used.steps + 1}")
        # also the synchronisation that makes the clock true
        value = float(self.step.learn(list(self._micro_batches(batch))))
        joules = self.meter() - energy if self.meter else 0.0
        own = (value, time.monotonic() - began, waited, time.process_time() - cpu, joules, *wishes.own())
        everyone = ranks.exchange(*own)
        wishes.heard([row[5:] for row in everyone])
        losses, seconds, waiting, cpu_seconds, energies = zip(*(row[:5] for row in everyone))
        used.steps += 1
        used.seconds += max(seconds)
        used.waited_seconds += max(waiting)
        used.cpu_seconds += sum(cpu_seconds)
        if self.meter:
            used.joules = (used.joules or 0.0) + sum(energies)
        if used.steps - self.before.steps == WARMUP_STEPS:
            used.note_warmup()
        return sum(losses) / len(losses)

    def _micro_batches(self, batch: Batch) -> Iterator[StepBatch]:
        """Parts of this rank's share of the batch, on its device."""
        device = torch.device(self.step.device)
        size = self.micro_batch or len(batch.labels)
        parts = zip(*(tensor.split(size) for tensor in (*batch.inputs, batch.labels)))
        for *inputs, labels in parts:
            yield tuple(tensor.to(device, non_blocking=True) for tensor in inputs), labels.to(device, non_blocking=True)

    def _learning_rate(self, used: Used) -> float:
        before, recipe = self.before, self.step.recipe
        if not self._timed:
            planned = self.allowance.planned_steps(used)
            return learning_rate(used.steps - before.steps, planned - before.steps, recipe)
        began = self.allowance.share(before)
        return learning_rate_at((self.allowance.share(used) - began) / (1 - began), recipe)

    def _judge(self, share: float, progress: Progress) -> None:
        """Judge the model, and leave it and the random state as they were."""
        assert self.judge is not None, "nobody asks for shares without a judge"
        with torch.random.fork_rng(devices=[self.step.device] if self.step.device_type == "cuda" else []):
            scores = self.judge()
        self.step.start()
        progress.judged.append(Judged(share, scores, progress.used.steps, progress.used.seconds))

    def _save(self, progress: Progress, log: UnreadableLog) -> Path:
        self.ranks.beat("saving a checkpoint")
        # what another rank could not read was none of this one's clips, until their number changes
        progress.unreadable = {clip: reason for reasons in self.ranks.gather(log.reasons) for clip, reason in reasons.items()}
        return checkpoint.save(self.folder, self.step, progress.used.steps, self.cell, progress.stored(), self.ranks)

    def _resumed(self) -> Progress:
        path = self.folder / checkpoint.FILE
        own = path.is_file()
        if not own and self.resume is None:
            # nothing of a warm-up is left of what was used before
            return Progress(used=replace(self.before, warmup_steps=0))
        content: dict[str, Any] = checkpoint.load(self.resume if self.resume is not None and not own else path)
        if content.get("kin") != self.cell.kin:
            what = f"cell {content['cell']} trained something else than {self.cell.id}"
            raise BenchctlError(what, where=str(self.resume), fix="only the launch may differ")
        checkpoint.restore(self.step, content, self.ranks)
        return Progress.restored(content["record"])
