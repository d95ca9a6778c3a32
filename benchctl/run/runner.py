"""Runs a plan: predictions by warm workers, executions one at a time in fresh ones, every result stored as it comes.

The runner is the sole writer of the database. What a worker says reaches it as a file, which is validated before it is stored;
a missing, torn or malformed file is an outcome. Killed at any moment, the next run goes on where this one was.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from benchctl.errors import StoreError
from benchctl.plan import Device, Execution, Plan, execution, refusal, state
from benchctl.record import CellResult, Measurement, Outcome, RunRecord
from benchctl.run.job import Job
from benchctl.run.launch import RankedWorker
from benchctl.run.predictions import Predictor
from benchctl.run.process import Answer, Worker, ask
from benchctl.run.provenance import code_digests, cost_digests
from benchctl.spec import Cell
from benchctl.store.store import Store

#: time limit of one prediction in seconds: a minute would be slow
PREDICTION_SECONDS = 600.0


@dataclass(frozen=True)
class Settings:
    """How to run."""

    #: where logs, checkpoints and work files go
    folder: Path
    device: Device = "auto"
    #: whether a GPU can be used here
    cuda: bool = False
    fresh: bool = False
    workers: int = 2
    #: time limit of one cell in seconds; None: the suite's
    timeout_s: float | None = None
    #: a cell that others, which train the same with other processes, go on from; None: each from its own checkpoint alone
    resume: Cell | None = None


class Listener(Protocol):
    """Whoever shows progress."""

    def begin(self, total: int, done: int) -> None:
        """`total` cells, `done` of which need not run."""

    def start(self, cell: Cell, what: str) -> None:
        """Work on `cell` began."""

    def finish(self, cell: Cell, result: CellResult) -> None:
        """`result` is stored."""


@dataclass
class Summary:
    """What a run came to."""

    run_id: str
    reused: int = 0
    results: list[CellResult] = field(default_factory=list)
    interrupted: bool = False

    def count(self, outcome: Outcome) -> int:
        """Cells of this run that ended so."""
        return sum(result.outcome is outcome for result in self.results)

    @property
    def failures(self) -> int:
        """Cells of this run that count as failed."""
        return sum(result.outcome.failure for result in self.results)


class Runner:
    """One `benchctl run`."""

    def __init__(self, plan: Plan, store: Store, record: RunRecord, settings: Settings, listener: Listener) -> None:
        self._plan = plan
        self._store = store
        self._record = record
        self._settings = settings
        self._listener = listener
        self._stop = threading.Event()
        self._folder = settings.folder / "work" / record.run_id
        self._summary = Summary(record.run_id)
        #: newest checkpoint by train cell
        self._checkpoints: dict[str, str] = {}

    def interrupt(self) -> None:
        """Finish cleanly as soon as possible; for a signal handler."""
        self._stop.set()

    def run(self) -> Summary:
        """Run every cell that is not done, and say how each ended."""
        self._store.begin_run(self._record, self._plan.cells)
        waiting = self._unfinished()
        self._listener.begin(len(self._plan.cells), self._summary.reused)
        try:
            for cell, predicted, where in self._predict(waiting):
                self._execute(cell, predicted, where)
                if self._stop.is_set():
                    break
        except BaseException:
            # where the database itself is the trouble, the first error is the one to tell
            with contextlib.suppress(StoreError):
                self._store.finish_run(self._record.run_id, "failed")
            raise
        self._drop_empty_logs()
        self._summary.interrupted = self._stop.is_set()
        self._store.finish_run(self._record.run_id, "interrupted" if self._summary.interrupted else "finished")
        return self._summary

    def _unfinished(self) -> list[Cell]:
        # also those that `--only` left out
        needed = [name for cell in self._plan.cells if (name := _needed_cell(cell))]
        known = self._store.latest_results([*(cell.id for cell in self._plan.cells), *needed])
        self._checkpoints = {cell_id: result.checkpoint for cell_id, result in known.items() if result.checkpoint and result.outcome.final}
        waiting = []
        for cell in self._plan.cells:
            result = known.get(cell.id)
            # what is too large for this CPU was too large before
            where = execution(cell, self._settings.device, self._settings.cuda, macs=None)
            if self._settings.fresh or state(cell, result, code_digests(cell), where).word != "done":
                waiting.append(cell)
        self._summary.reused = len(self._plan.cells) - len(waiting)
        return waiting

    def _predict(self, cells: list[Cell]) -> Iterable[tuple[Cell, CellResult, Execution]]:
        """Store cells that end with their prediction as it comes; return the others, in the order of the plan."""
        predictor = Predictor(self._store, self._folder, workers=self._settings.workers, stop=self._stop)
        to_execute: dict[str, tuple[Cell, CellResult, Execution]] = {}
        # closed also when storing fails: its workers would otherwise go on to the last cell
        with contextlib.closing(predictor.predict(cells, cost_digests, timeout_s=self._timeout(PREDICTION_SECONDS))) as predictions:
            for cell, result in predictions:
                if result.outcome is Outcome.INTERRUPTED:
                    continue
                if (refused := refusal(cell, result)) is not None:
                    outcome, reason = refused
                    self._finish(cell, result.model_copy(update={"outcome": outcome, "reason": reason}))
                    continue
                where = execution(cell, self._settings.device, self._settings.cuda, result.value("macs", kind="all"))
                # a GPU that is here decides for itself whether the step fits
                if where.device is None or (result.outcome is Outcome.OOM and where.device != "cuda"):
                    self._finish(cell, _with_note(result, "not_measured", where.reason))
                else:
                    to_execute[cell.id] = (cell, result, where)
        return [to_execute[cell.id] for cell in cells if cell.id in to_execute]

    def _execute(self, cell: Cell, predicted: CellResult, where: Execution) -> None:
        self._listener.start(cell, f"{cell.task} on {where.device}")
        started_at, clock = _now(), time.monotonic()
        log = self._folder / f"{cell.id}.log"
        job = self._job(cell, where, predicted)
        if isinstance(job, Answer):
            answer: CellResult | Answer = job
        else:
            worker = self._worker(cell, log)
            try:
                answer = ask(worker, job, self._folder, timeout_s=self._timeout(self._plan.suite.timeout_s), stop=self._stop)
            finally:
                worker.end()
        if isinstance(answer, Answer):
            answer = CellResult(
                cell_id=cell.id, outcome=answer.outcome, reason=answer.reason, started_at=started_at, seconds=time.monotonic() - clock
            )
        result = _merge(answer, predicted, where)
        self._finish(cell, _with_note(result, "log", str(log)) if result.outcome.failure else result)

    def _worker(self, cell: Cell, log: Path) -> Worker | RankedWorker:
        """A fresh process, or as many as the cell's launch asks for."""
        launch = cell.launch
        if launch is None or (launch.ranks == 1 and launch.engine == "plain"):
            return Worker(log)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return RankedWorker(log, launch, threads=max(1, cores // launch.gpus))

    def _job(self, cell: Cell, where: Execution, predicted: CellResult) -> Job | Answer:
        step_flops = tuple(m for m in predicted.measurements if m.metric == "train_step_flops")
        checkpoint = None
        trained = _needed_cell(cell)
        if trained is not None:
            checkpoint = self._checkpoints.get(trained)
            if checkpoint is None:
                return Answer(Outcome.SKIPPED, f"cell {trained}, which trains it, left no checkpoint")
        elif cell.checkpoint is not None:
            checkpoint = cell.checkpoint.removeprefix("file:")
        if checkpoint is not None and not Path(checkpoint).is_file():
            return Answer(Outcome.SKIPPED, f"checkpoint {checkpoint} is not there; train again with --fresh")
        root = self._plan.root(cell)
        folder = self._checkpoint_folder(cell)
        if self._settings.fresh and cell.task != "profile":
            shutil.rmtree(folder, ignore_errors=True)
        return Job(
            kind="execute",
            cell=cell,
            device=where.device,
            data_root=str(root) if root else None,
            checkpoint_folder=str(folder) if cell.task != "profile" else None,
            checkpoint=checkpoint,
            resume=self._resume(cell),
            step_flops=step_flops or None,
            micro_batch=predicted.notes.get("micro_batch"),
        )

    def _resume(self, cell: Cell) -> str | None:
        """The checkpoint of the cell that this one goes on from, if it is to."""
        other = self._settings.resume
        if other is None or other.kin != cell.kin or other.id == cell.id:
            return None
        # none there: the worker says so
        return str(self._checkpoint_folder(other) / "checkpoint.pt")

    def _checkpoint_folder(self, cell: Cell) -> Path:
        """Where a train cell keeps its checkpoint: another one once the code changed, so that no training is half one, half the other."""
        code = hashlib.sha256(json.dumps(code_digests(cell), sort_keys=True).encode()).hexdigest()
        return self._settings.folder / "checkpoints" / f"{cell.id}-{code[:8]}"

    def _finish(self, cell: Cell, result: CellResult) -> None:
        result = result.model_copy(update={"code": code_digests(cell), "started_at": result.started_at or _now()})
        self._store.add_result(self._record.run_id, result)
        if result.checkpoint and result.outcome.final:
            self._checkpoints[cell.id] = result.checkpoint
        self._summary.results.append(result)
        self._listener.finish(cell, result)

    def _drop_empty_logs(self) -> None:
        for log in self._folder.glob("*.log"):
            if log.stat().st_size == 0:
                log.unlink()
        with contextlib.suppress(OSError):
            # fails where a log is left to be read, or where nothing ran
            self._folder.rmdir()

    def _timeout(self, otherwise: float) -> float:
        return self._settings.timeout_s or otherwise


def _needed_cell(cell: Cell) -> str | None:
    """The cell whose checkpoint `cell` evaluates or starts from."""
    kind, _, name = (cell.checkpoint or cell.start or "").partition(":")
    return name if kind == "cell" else None


def _merge(executed: CellResult, predicted: CellResult, where: Execution) -> CellResult:
    """One result of what was measured and what was counted and predicted; each keeps its source."""
    measured = {_key(m) for m in executed.measurements}
    measurements = (*executed.measurements, *(m for m in predicted.measurements if _key(m) not in measured))
    notes = {**predicted.notes, **executed.notes}
    if predicted.outcome is Outcome.FAILED:
        notes["prediction_failed"] = predicted.reason
    update = {"measurements": measurements, "notes": notes, "device": where.device, "seconds": executed.seconds + predicted.seconds}
    return executed.model_copy(update=update)


def _key(m: Measurement) -> tuple[str, str, str, str, int]:
    return m.metric, m.kind, m.source, m.device, m.rep


def _with_note(result: CellResult, name: str, text: str) -> CellResult:
    return result.model_copy(update={"notes": {**result.notes, name: text}}) if text else result


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
