"""The efficiency table: what each cell costs, and what it scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchctl.report.costs import COST_COLUMNS, SCORE_COLUMNS, Costs
from benchctl.report.footnotes import footnotes
from benchctl.report.over_seeds import unmatched
from benchctl.report.readings import MEMORY_COLUMNS, memory_values, of_cell, preference
from benchctl.report.table import CELL_COLUMNS, OUTCOME_COLUMNS, Selection, Table, cell_values, outcome_values, selected

if TYPE_CHECKING:
    from benchctl.store.store import Store

TABLE = "parameters, MACs, peak memory, latency and accuracy of every cell"


def build(store: Store, selection: Selection) -> Table:
    """One row per selected cell, from the newest attempt at it.

    Its memory is one reading: the GPU's where it was measured, else its prediction, else the CPU's; the memory table has them all.

    Raises:
        UnknownName: no such suite or run.
        Inconclusive: no selected cell was attempted yet.
    """
    with selected(store, selection) as (snapshot, cells):
        costs = Costs(snapshot)
        memory = sorted(snapshot.readings("peak_memory_bytes"), key=preference)
        budgets = tuple(unmatched(snapshot, cells))
    shown = [of_cell(cell, memory)[:1] for cell in cells]
    rows = []
    for cell, readings in zip(cells, shown):
        cost, score = costs.of(cell)
        memory_part = memory_values(cell, readings[0] if readings else None)
        rows.append((*cell_values(cell), *cost, *memory_part, *score, *outcome_values(cell)))
    columns = (*CELL_COLUMNS, *COST_COLUMNS, *MEMORY_COLUMNS, *SCORE_COLUMNS, *OUTCOME_COLUMNS)
    return Table("efficiency", TABLE, columns, tuple(rows), (*footnotes(cells, shown), *budgets))


def build_published(store: Store, selection: Selection) -> Table:
    """The same cells beside the numbers that papers print about them; as `benchctl.report.comparison.build`."""
    from benchctl.report import comparison

    return comparison.build(store, selection)
