"""What the results database holds, in the form of pins: the one thing that `check`, `compare` and `baseline accept` read of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from benchctl import pins
from benchctl.errors import Inconclusive, UsageError

if TYPE_CHECKING:
    from benchctl.pins import Pins
    from benchctl.store.reading import Snapshot
    from benchctl.store.store import Store
    from benchctl.store.stored import StoredRun


def of_suite(store: Store, suite: str) -> Pins:
    """What `suite` came to as it was last asked for.

    Raises:
        Inconclusive: it was never run, or its last run has not ended.
    """
    run = next((run for run in store.runs() if run.record.suite == suite), None)
    if run is None:
        raise Inconclusive(f"suite '{suite}' was never run", where=str(store.location), fix=f"run it first: benchctl run {suite}")
    _ended(store, run)
    with store.snapshot(suite=suite) as snapshot:
        return _pins(store, snapshot, suite)


def so_far(store: Store, suite: str) -> Pins | None:
    """What `suite` came to as it was last asked for, ended or not; None: nothing yet."""
    if not any(run.record.suite == suite for run in store.runs()):
        return None
    with store.snapshot(suite=suite) as snapshot:
        found = list(_pieces(snapshot))
    return pins.of_results(suite, found) if found else None


def of_run(store: Store, run_id: str) -> tuple[StoredRun, Pins]:
    """A run (id or unique beginning), and what its cells came to.

    Raises:
        Inconclusive: it has not ended.
        UnknownName: no such run.
    """
    run = store.run(run_id)
    _ended(store, run)
    with store.snapshot(run=run.record.run_id) as snapshot:
        return run, _pins(store, snapshot, run.record.suite)


def _ended(store: Store, run: StoredRun) -> None:
    if run.status == "running":
        raise Inconclusive(
            f"run '{run.record.run_id}' of suite '{run.record.suite}' has not ended",
            where=str(store.location),
            fix="wait for it; where its process is gone, run the suite again, which goes on where it stopped",
        )


def _pins(store: Store, snapshot: Snapshot, suite: str) -> Pins:
    found = list(_pieces(snapshot))
    if not found:
        raise Inconclusive(f"suite '{suite}' has no results", where=str(store.location), fix=f"run it first: benchctl run {suite}")
    return pins.of_results(suite, found)


def _pieces(snapshot: Snapshot) -> Iterator[pins.Pieces]:
    contents, environments, measurements = snapshot.contents(), snapshot.environments(), snapshot.measurements()
    for row in snapshot.cells():
        if row.result_id is None or row.run_id is None or row.outcome is None:
            continue
        words = {name: getattr(row, name) for name in pins.CellWords.model_fields if name not in ("options", "start")}
        options = row.options.split()
        start = next((word for word in options if word.startswith("start=")), "")
        rest = " ".join(word for word in options if word != start)
        try:
            described = pins.CellWords(**words, options=rest, start=start.removeprefix("start="))
        except ValueError as problem:  # what another version planned
            raise UsageError(f"cell {row.cell_id} cannot be read: {problem}") from None
        content = json.loads(contents[row.cell_id])
        checkpoint = content.get("checkpoint", "")
        yield pins.Pieces(
            cell=row.cell_id,
            words=described,
            device=row.device or "none",
            outcome=row.outcome,
            reason=row.reason,
            environment=environments[row.run_id],
            measurements=measurements.get(row.result_id, ()),
            notes=row.notes,
            data=content.get("data_fingerprint"),
            judges=checkpoint.removeprefix("cell:") if checkpoint.startswith("cell:") else None,
        )
