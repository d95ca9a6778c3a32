"""Costs of cells without executing them, by warm workers, each cost once: what is known is taken from the store."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple, Protocol

from pydantic import ValidationError

from benchctl import plan
from benchctl.record import CellResult, Outcome
from benchctl.run.job import Job
from benchctl.run.process import Answer, Worker, ask
from benchctl.spec import Cell


class PredictionCache(Protocol):
    """The part of the store that keeps predictions."""

    def get_prediction(self, key: str) -> str | None:
        """The JSON kept under `key`."""

    def put_prediction(self, key: str, json: str) -> None:
        """Keep `json` under `key`."""


class Predicted(NamedTuple):
    """The prediction for one cell; `result` has its own cell's id."""

    cell: Cell
    result: CellResult


class Predictor:
    """Predicts many cells with a few warm workers; with none, only what the cache holds.

    Only the calling thread touches the cache, which is a database with one writer.
    """

    def __init__(self, cache: PredictionCache, folder: Path, *, workers: int, stop: threading.Event) -> None:
        self._cache = cache
        self._folder = folder
        self._workers = workers
        self._stop = stop

    def predict(self, cells: Sequence[Cell], code: Callable[[Cell], Mapping[str, str]], *, timeout_s: float) -> Generator[Predicted]:
        """Predictions as they come, cached ones first. Ends early when `stop` is set."""
        waiting: dict[str, list[Cell]] = {}
        for cell in cells:
            waiting.setdefault(plan.cost_key(cell, code(cell)), []).append(cell)
        for key in list(waiting):
            known = self._known(key)
            if known is not None:
                yield from (_for(cell, known) for cell in waiting.pop(key))
        for key, result in self._ask(waiting, timeout_s):
            if result.outcome in (Outcome.OK, Outcome.OOM):
                self._cache.put_prediction(key, result.model_dump_json())
            yield from (_for(cell, result) for cell in waiting[key])

    def _known(self, key: str) -> CellResult | None:
        kept = self._cache.get_prediction(key)
        if kept is None:
            return None
        try:
            return CellResult.model_validate_json(kept)
        except ValidationError:
            # written by an older benchctl: it is only a cache
            return None

    def _ask(self, waiting: dict[str, list[Cell]], timeout_s: float) -> Iterator[tuple[str, CellResult]]:
        count = min(self._workers, len(waiting))
        if not count:
            return
        idle: queue.SimpleQueue[Worker | None] = queue.SimpleQueue()
        for _ in range(count):
            idle.put(None)
        numbers = iter(range(1_000_000))

        def one(cell: Cell) -> CellResult:
            worker = idle.get()
            try:
                if self._stop.is_set():
                    return _failed(cell, Answer(Outcome.INTERRUPTED, "interrupted by the user"))
                if worker is None or not worker.alive:
                    worker = Worker(self._folder / f"predict-{next(numbers)}.log", threads=1)
                answer = ask(worker, Job(kind="predict", cell=cell), self._folder, timeout_s=timeout_s, stop=self._stop)
            finally:
                idle.put(worker)
            return answer if isinstance(answer, CellResult) else _failed(cell, answer)

        with ThreadPoolExecutor(count, thread_name_prefix="predict") as pool:
            futures: dict[Future[CellResult], str] = {pool.submit(one, cells[0]): key for key, cells in waiting.items()}
            try:
                while futures:
                    for future in wait(futures, return_when=FIRST_COMPLETED).done:
                        yield futures.pop(future), future.result()
            finally:
                for future in futures:
                    future.cancel()
                for _ in range(count):
                    worker = idle.get()
                    if worker is not None:
                        worker.end()


def _for(cell: Cell, result: CellResult) -> Predicted:
    return Predicted(cell, result.model_copy(update={"cell_id": cell.id}))


def _failed(cell: Cell, answer: Answer) -> CellResult:
    return CellResult(cell_id=cell.id, outcome=answer.outcome, reason=answer.reason, started_at="", seconds=0)
