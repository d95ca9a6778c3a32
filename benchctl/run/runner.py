"""Runs a plan: predictions by warm workers, executions one at a time in fresh ones, every result stored as it comes.

Of this run, the runner alone writes to the database. What a worker says reaches it as a file, which is validated before it is stored;
a missing, torn or malformed file is an outcome. Killed at any moment, the next run goes on where this one was. Several runs may share a
database: each claims a cell before it executes it, and takes over what the others finished.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from benchctl.errors import StoreError
from benchctl.plan import Device, Execution, Plan, execution, refusal, state
from benchctl.record import CellResult, Measurement, Outcome, RunRecord
from benchctl.run.job import Job
from benchctl.run.launch import RankedWorker
from benchctl.run.lease import LEASE_SECONDS, RENEW_SECONDS, Lease
from benchctl.run.predictions import Predictor
from benchctl.run.process import Answer, Worker, ask
from benchctl.run.provenance import code_digests, cost_digests
from benchctl.run.tasks import Hands
from benchctl.spec import Cell
from benchctl.store.claims import Claim, ClaimAnswer
from benchctl.store.store import Store
from benchctl.store.stored import StoredResult

#: time limit of one prediction in seconds: a minute would be slow
PREDICTION_SECONDS = 600.0
LOOK_AGAIN_SECONDS = 2.0


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
    #: how long a cell is this run's without a sign of life, and how often it gives one, in seconds
    lease_s: float = LEASE_SECONDS
    renew_s: float = RENEW_SECONDS
    #: how often to look again at cells that other runs hold, in seconds
    look_again_s: float = LOOK_AGAIN_SECONDS
    #: the other tasks where a launcher started several; None: this process is alone
    hands: Hands | None = None


class Listener(Protocol):
    """Whoever shows progress."""

    def begin(self, total: int, done: int) -> None:
        """`total` cells, `done` of which need not run."""

    def start(self, cell: Cell, what: str) -> None:
        """Work on `cell` began."""

    def finish(self, cell: Cell, result: CellResult) -> None:
        """`result` is stored."""

    def adopt(self, cell: Cell, result: StoredResult) -> None:
        """Another run finished `cell`."""

    def wait(self, count: int, owners: Sequence[str]) -> None:
        """Nothing can be done until `owners` (host and process) have finished, of which `count` cells wait. May be said repeatedly."""


@dataclass
class Summary:
    """What a run came to."""

    run_id: str
    reused: int = 0
    results: list[CellResult] = field(default_factory=list)
    #: what other runs stored meanwhile of the cells of this one
    others: list[StoredResult] = field(default_factory=list)
    interrupted: bool = False

    def count(self, outcome: Outcome) -> int:
        """Cells of this run that ended so."""
        return sum(result.outcome is outcome for result in self.results)

    @property
    def failures(self) -> int:
        """Cells of this run that count as failed."""
        return sum(result.outcome.failure for result in self.results)


@dataclass(frozen=True)
class _Due:
    """A cell that is not finished."""

    cell: Cell
    #: what is known without executing it
    predicted: CellResult
    #: where it is executed; None: `predicted` is its result
    where: Execution | None


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
        self._owner = f"{socket.gethostname()}, process {os.getpid()}"
        #: of the cell that is executed now
        self._lease: Lease | None = None
        #: newest checkpoint by train cell
        self._checkpoints: dict[str, str] = {}
        #: id of the newest attempt that this run knows, by cell
        self._seen: dict[str, int] = {}

    def interrupt(self) -> None:
        """Finish cleanly as soon as possible; for a signal handler."""
        self._stop.set()
        if self._lease is not None:
            self._lease.stop.set()

    def run(self) -> Summary:
        """Run every cell that is not done, here or by another run that shares the database, and say how each ended."""
        self._store.begin_run(self._record, self._plan.cells)
        waiting = self._unfinished()
        self._listener.begin(len(self._plan.cells), self._summary.reused)
        try:
            self._work(self._predict(waiting))
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
        for each in known.values():
            self._note(each)
        waiting = []
        for cell in self._plan.cells:
            result = known.get(cell.id)
            if self._settings.fresh or state(cell, result, code_digests(cell), self._where_before(cell)).word != "done":
                waiting.append(cell)
        self._summary.reused = len(self._plan.cells) - len(waiting)
        return waiting

    def _where_before(self, cell: Cell) -> Execution:
        # what is too large for this CPU was too large before
        return execution(cell, self._settings.device, self._settings.cuda, macs=None)

    def _note(self, result: StoredResult) -> None:
        self._seen[result.cell_id] = result.result_id
        if result.checkpoint and result.outcome.final:
            self._checkpoints[result.cell_id] = result.checkpoint

    def _predict(self, cells: list[Cell]) -> list[_Due]:
        """Store cells that end with their prediction as it comes; return the others, in the order of the plan."""
        predictor = Predictor(self._store, self._folder, workers=self._settings.workers, stop=self._stop)
        due: dict[str, _Due] = {}
        # closed also when storing fails: its workers would otherwise go on to the last cell
        with contextlib.closing(predictor.predict(cells, cost_digests, timeout_s=self._timeout(PREDICTION_SECONDS))) as predictions:
            for cell, result in predictions:
                if result.outcome is Outcome.INTERRUPTED:
                    continue
                each = self._due(cell, result)
                if each.where is not None or not self._attempt(each):
                    due[cell.id] = each
        return [due[cell.id] for cell in cells if cell.id in due]

    def _due(self, cell: Cell, predicted: CellResult) -> _Due:
        """What is left to do about `cell`."""
        if (refused := refusal(cell, predicted)) is not None:
            outcome, reason = refused
            return _Due(cell, predicted.model_copy(update={"outcome": outcome, "reason": reason}), None)
        where = execution(cell, self._settings.device, self._settings.cuda, predicted.value("macs", kind="all"))
        # a GPU that is here decides for itself whether the step fits
        if where.device is None or (predicted.outcome is Outcome.OOM and where.device != "cuda"):
            return _Due(cell, _with_note(predicted, "not_measured", where.reason), None)
        return _Due(cell, predicted, where)

    def _work(self, due: list[_Due]) -> None:
        """Do what is due; look at what another run holds again, until that has finished it or is gone."""
        while due and not self._stop.is_set():
            needed = {each.cell.id: _needed_cell(each.cell) for each in due}
            held = self._store.holders([*needed, *(name for name in needed.values() if name)])
            left = {each.cell.id: each for each in due}
            for each in due:
                # what a cell needs may be in another run's hands, or need what is
                waits = each.cell.id in held or needed[each.cell.id] in held or needed[each.cell.id] in left
                if not waits and self._attempt(each):
                    del left[each.cell.id]
                if self._stop.is_set():
                    return
            if len(left) == len(due):
                self._listener.wait(len(left), sorted({claim.owner for claim in held.values()}))
                self._stop.wait(self._settings.look_again_s)
            due = list(left.values())

    def _attempt(self, due: _Due) -> bool:
        """Claim a cell and do what is due: whether it is finished, by this run or by another."""
        claim = Claim(due.cell.id, self._record.run_id, self._owner)
        while (answer := self._store.claim(claim, self._settings.lease_s, after=self._seen.get(due.cell.id))) is ClaimAnswer.ATTEMPTED:
            if self._adopt(due):
                return True
        if answer is ClaimAnswer.HELD:
            return False
        with Lease(self._store, claim, seconds=self._settings.lease_s, renew_seconds=self._settings.renew_s) as lease:
            self._lease = lease
            if self._stop.is_set():
                lease.stop.set()
            result = due.predicted if due.where is None else self._execute(due.cell, due.predicted, due.where, lease)
            return self._finish(due.cell, result, lease)

    def _adopt(self, due: _Due) -> bool:
        """Take over what another run stored meanwhile; False: the cell must be done all the same."""
        result = self._store.latest_results([due.cell.id])[due.cell.id]
        self._note(result)
        if result.outcome is Outcome.INTERRUPTED:
            return False
        if result.outcome is Outcome.SKIPPED and due.where is not None and not isinstance(self._checkpoint(due.cell), Answer):
            # what was not there, is here
            return False
        where = self._where_before(due.cell) if due.where is not None else Execution(None)
        # what failed in another run is not tried again by each
        if result.outcome.final and state(due.cell, result, code_digests(due.cell), where).word != "done":
            return False
        self._summary.others.append(result)
        self._listener.adopt(due.cell, result)
        return True

    def _execute(self, cell: Cell, predicted: CellResult, where: Execution, lease: Lease) -> CellResult:
        self._listener.start(cell, f"{cell.task} on {where.device}")
        started_at, clock = _now(), time.monotonic()
        log = self._folder / f"{cell.id}.log"
        job = self._job(cell, where, predicted)
        if isinstance(job, Answer):
            answer: CellResult | Answer = job
        else:
            worker = self._worker(cell, log)
            log = worker.told
            # not asked to end: the checkpoint that it would still write is another run's by now
            lease.on_lost = worker.kill
            try:
                answer = ask(worker, job, self._folder, timeout_s=self._timeout(self._plan.suite.timeout_s), stop=lease.stop)
            finally:
                lease.on_lost = None
                worker.end()
        if isinstance(answer, Answer):
            answer = CellResult(
                cell_id=cell.id, outcome=answer.outcome, reason=answer.reason, started_at=started_at, seconds=time.monotonic() - clock
            )
        result = _merge(answer, predicted, where)
        return _with_note(result, "log", str(log)) if result.outcome.failure else result

    def _worker(self, cell: Cell, log: Path) -> Worker | RankedWorker:
        """A fresh process, or as many as the cell's launch asks for."""
        launch = cell.launch
        if launch is None or (launch.ranks == 1 and launch.engine == "plain"):
            return Worker(log)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return RankedWorker(log, launch, threads=max(1, cores // launch.gpus), hands=self._settings.hands if launch.nodes > 1 else None)

    def _checkpoint(self, cell: Cell) -> str | Answer | None:
        """The file that `cell` evaluates or starts from, or why it is not there; None: it needs none."""
        checkpoint = None
        trained = _needed_cell(cell)
        if trained is not None:
            # a run that shares the database may have trained it since
            for result in self._store.latest_results([trained]).values():
                self._note(result)
            checkpoint = self._checkpoints.get(trained)
            if checkpoint is None:
                return Answer(Outcome.SKIPPED, f"cell {trained}, which trains it, left no checkpoint")
        elif cell.checkpoint is not None:
            checkpoint = cell.checkpoint.removeprefix("file:")
        if checkpoint is not None and not Path(checkpoint).is_file():
            return Answer(Outcome.SKIPPED, f"checkpoint {checkpoint} is not there; train again with --fresh")
        return checkpoint

    def _job(self, cell: Cell, where: Execution, predicted: CellResult) -> Job | Answer:
        step_flops = tuple(m for m in predicted.measurements if m.metric == "train_step_flops")
        checkpoint = self._checkpoint(cell)
        if isinstance(checkpoint, Answer):
            return checkpoint
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

    def _finish(self, cell: Cell, result: CellResult, lease: Lease) -> bool:
        """Store `result`; False: another run has taken the cell."""
        result = result.model_copy(update={"code": code_digests(cell), "started_at": result.started_at or _now()})
        if not lease.settle(result):
            return False
        if result.checkpoint and result.outcome.final:
            self._checkpoints[cell.id] = result.checkpoint
        self._summary.results.append(result)
        self._listener.finish(cell, result)
        return True

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
