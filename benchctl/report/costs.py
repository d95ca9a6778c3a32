"""The single numbers of a cell that every table carries: what it costs and what it scores, memory aside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchctl.report.table import NOT_RECORDED, Column, Value, absence

if TYPE_CHECKING:
    from benchctl.store.reading import Snapshot
    from benchctl.store.stored import CellRow, Readings

#: column -> metric, its kinds, and whether a count that was taken without executing anything will do
_NUMBERS: dict[str, tuple[str, tuple[str, ...], bool]] = {
    "params": ("params", ("",), True),
    "trainable_params": ("trainable_params", ("",), True),
    "macs": ("macs", ("", "all"), True),
    "macs_without_flow": ("macs", ("without_flow",), True),
    "flops": ("flops", ("", "all"), True),
    "latency_seconds": ("latency_seconds", ("p50",), False),
    "top1": ("top1", ("",), False),
    "top5": ("top5", ("",), False),
    "reconstruction_loss": ("reconstruction_loss", ("test",), False),
}
COST_COLUMNS = (
    Column("params", "params", "count", show="M"),
    Column("trainable_params", "trainable\nparams", "count", show="M"),
    Column("macs", "MACs", "count", show="G"),
    Column("macs_without_flow", "MACs\nwithout flow", "count", show="G", text="present", unlike="macs"),
    Column("flops", "FLOPs", "count", show="G", text="never"),
    Column("latency_seconds", "median\nlatency", "seconds", show="ms", text="present", split=("latency_device",)),
    Column("latency_device", "latency device", text="never"),
)
SCORE_COLUMNS = (
    Column("top1", "top-1", "fraction", show="%", text="present"),
    Column("top5", "top-5", "fraction", show="%", text="present"),
    # of what learns numbers: the mean over them; 'benchctl show CELL' has each
    Column("pearson_r", "Pearson r", "correlation", text="present"),
    # of what learns to rebuild what is hidden from it
    Column("reconstruction_loss", "test loss of\nreconstruction", "squared error", text="present"),
)

_NO_NUMBERS = (None,) * len(_NUMBERS)


class Costs:
    """The values of `COST_COLUMNS` and of `SCORE_COLUMNS`, read in one query."""

    def __init__(self, snapshot: Snapshot) -> None:
        from benchctl.store.reading import Scalar

        wanted = [
            Scalar(metric, kinds, ("measured", "predicted") if counted else ("measured",)) for metric, kinds, counted in _NUMBERS.values()
        ]
        self._numbers = snapshot.scalars(wanted)
        self._correlations = mean_correlations(snapshot.readings("pearson_r"))

    def of(self, cell: CellRow) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
        """The costs and the scores of `cell`; a word for each that it does not have."""
        missing = absence(cell)
        unscored = NOT_RECORDED if cell.task == "profile" else missing  # a profile never scores, however it ended
        numbers = self._numbers.get(cell.result_id, _NO_NUMBERS) if cell.result_id is not None else _NO_NUMBERS
        *costs, top1, top5, rebuilt = numbers
        device = cell.device if costs[-1] is not None and cell.device else missing
        correlation = self._correlations.get(cell.result_id) if cell.result_id is not None else None
        # a cell has no score, however it ended, of what it does not learn
        tells_classes = cell.task != "pretrain" and correlation is None
        scores: tuple[Value, ...] = (
            *(NOT_RECORDED if not tells_classes else unscored if value is None else value for value in (top1, top5)),
            NOT_RECORDED if correlation is None else correlation,
            NOT_RECORDED if cell.task != "pretrain" else unscored if rebuilt is None else rebuilt,
        )
        return (*(missing if value is None else value for value in costs), device), scores


def mean_correlations(readings: Sequence[Readings]) -> dict[int, float]:
    """Pearson's r by result, the mean over its targets; none where one of them has none."""
    found: dict[int, list[float]] = {}
    lacking: set[int] = set()
    for each in readings:
        lacking |= set(each.reasons)
        for result, value in each.values.items():
            found.setdefault(result, []).append(float(value))
    return {result: sum(values) / len(values) for result, values in found.items() if result not in lacking}
