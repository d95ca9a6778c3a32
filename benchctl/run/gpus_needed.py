"""The fewest GPUs that hold a training step, by prediction alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchctl.launch import Launch
from benchctl.plan import cost_key
from benchctl.record import CellResult, Outcome
from benchctl.run.predictions import Predicted
from benchctl.spec import Cell

#: more than these are not tried
MOST_GPUS = 64
#: of each GPU, left for CUDA's context and the buffers of NCCL, which torch's allocator does not count
LEFT_BYTES = 2**30

#: what predicts cells, in any order
Predict = Callable[[Sequence[Cell]], Iterable[Predicted]]


@dataclass(frozen=True)
class Fit:
    """How a step is held by the fewest GPUs."""

    launch: Launch
    #: clips of one forward pass on one of them
    clips: int
    #: predicted, on each of them
    reserved_bytes: int


@dataclass
class _Search:
    """Bisects the numbers of GPUs that may hold a step: if so many do, more do."""

    cell: Cell
    numbers: list[int]
    micro_batch: int | None
    #: places in `numbers`: all below do not hold it, all from the second on do
    low: int = 0
    high: int = 0
    fit: Fit | None = None
    reason: str | None = None

    @property
    def open(self) -> bool:
        return self.reason is None and self.low < self.high

    def asks(self, capacity_bytes: int) -> Cell:
        """The cell whose prediction halves what is left."""
        gpus = self.numbers[(self.low + self.high) // 2]
        launch = (self.cell.launch or Launch()).model_copy(update={"gpus": gpus, "nodes": 1, "micro_batch": self.micro_batch})
        return self.cell.model_copy(update={"launch": launch, "memory_cap_bytes": capacity_bytes})

    def hears(self, asked: Cell, result: CellResult) -> None:
        """Take what was predicted of it."""
        middle = (self.low + self.high) // 2
        if result.outcome is Outcome.OOM:
            self.low = middle + 1
        elif result.outcome is Outcome.OK:
            self.high = middle
            reserved = result.value("peak_memory_bytes", kind="reserved", source="predicted", device="cuda")
            assert asked.launch is not None, "the search gives one"
            assert reserved is not None, "a prediction that ended has its memory"
            clips = asked.launch.micro_batches(asked.shape.batch_size)[0]
            self.fit = Fit(asked.launch, clips, int(reserved))
        else:
            self.reason = result.reason or result.outcome.value


@dataclass(frozen=True)
class GpusNeeded:
    """What one training needs."""

    cell: Cell
    #: each GPU takes its whole share of the batch at once; None: not even `MOST_GPUS` hold it
    at_once: Fit | None
    #: one clip after the other, and gradients added up
    one_by_one: Fit | None
    #: why nothing could be predicted
    reason: str | None


def gpus_needed(cells: Iterable[Cell], gpu_bytes: int, predict: Predict) -> list[GpusNeeded]:
    """For each kind of training step among `cells`, the fewest GPUs of that memory, under the engine of the cell's launch.

    Numbers are powers of two that divide the batch.

    Args:
        cells: those that do not train are left out, and of those that differ in seed, data or budget alone all but the first.
        gpu_bytes: memory of one GPU, of which `LEFT_BYTES` are left free.
        predict: predicts cells.
    """
    searches: list[tuple[_Search, _Search]] = []
    for cell in _different(cells):
        numbers = [n for n in (2**k for k in range(MOST_GPUS.bit_length())) if cell.shape.batch_size % n == 0]
        whole, single = (_Search(cell, numbers, micro, high=len(numbers)) for micro in (None, 1))
        searches.append((whole, single))
    every = [search for pair in searches for search in pair]
    while waiting := [(search, search.asks(gpu_bytes - LEFT_BYTES)) for search in every if search.open]:
        results = {predicted.cell.id: predicted.result for predicted in predict([asked for _, asked in waiting])}
        for search, asked in waiting:
            search.hears(asked, results[asked.id])
    return [GpusNeeded(whole.cell, whole.fit, single.fit, whole.reason or single.reason) for whole, single in searches]


def _different(cells: Iterable[Cell]) -> Iterable[Cell]:
    """Trainings whose steps are not the same."""
    seen: set[str] = set()
    for cell in cells:
        if cell.task not in ("train", "pretrain"):
            continue
        launch = (cell.launch or Launch()).model_copy(update={"gpus": 1, "nodes": 1, "micro_batch": None})
        key = cost_key(cell.model_copy(update={"launch": launch}), {})
        if key not in seen:
            seen.add(key)
            yield cell
