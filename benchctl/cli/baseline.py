"""`benchctl baseline`: moving pins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchctl.cli.app import app
from benchctl.cli.options import Database, reading
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from benchctl.pins import Pins

baseline = typer.Typer(help="Set what later results are compared with.", no_args_is_help=True)
app.add_typer(baseline, name="baseline")


@baseline.callback()
def _group() -> None:
    """A group, although it has one command."""


@baseline.command()
def accept(
    pins: Annotated[Path, typer.Argument(metavar="PINS", help="The file of pins; it is made where there is none.")],
    run: Annotated[str, typer.Option("--run", metavar="ID", help="The run whose results become the pins; a unique beginning is enough.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why they move; it stands in the file's history.")],
    db: Database = None,
    prune: Annotated[bool, typer.Option("--prune", help="Remove the pins of cells that the run did not plan.")] = False,
    times: Annotated[
        bool, typer.Option("--times", help="Also keep times, for the record: the gate compares only those that were taken in turns.")
    ] = False,
) -> None:
    """Record what a run came to as pins, with the reason and what they were before."""
    import datetime

    from benchctl import pins as pinning
    from benchctl.cli import as_pins
    from benchctl.cli.output import write

    if not reason.strip():
        raise UsageError("the reason is empty", where="--reason", fix="say why the pins move: whoever reviews the file reads it")
    before = pinning.load(pins) if pins.exists() else None
    with reading(db) as store:
        found, results = as_pins.of_run(store, run)
    run_id = found.record.run_id
    if before and before.suite != results.suite:
        raise UsageError(
            f"run '{run_id}' is of suite '{results.suite}', the pins are of '{before.suite}'", where=str(pins), fix="use another file"
        )
    if found.cells > len(results.cells):
        raise UsageError(
            f"{found.cells - len(results.cells)} of {found.cells} cells of run '{run_id}' have no result", fix="run the suite to its end"
        )
    _endings(results)
    if not times:
        results = results.model_copy(update={"cells": tuple(pin.model_copy(update={"times": {}}) for pin in results.cells)})
    today = datetime.datetime.now(datetime.UTC).date()
    accepted = pinning.accept(before, results, run=run_id, reason=reason.strip(), date=today, keep=not prune)
    for change in accepted.changes:
        typer.echo(change)
    if accepted.others and not prune:
        typer.echo(f"{len(accepted.others)} pins stay that run '{run_id}' did not plan; --prune removes them", err=True)
    if not accepted.changes:
        typer.echo(f"{pins}: run '{run_id}' came to what is pinned already; nothing was written", err=True)
        return
    write(pinning.written(accepted.pins), pins)
    typer.echo(f"{pins}: {len(accepted.pins.cells)} cells, {len(accepted.changes)} changes", err=True)


def _endings(results: Pins) -> None:
    """A cell that failed is nothing to compare with."""
    from benchctl.record import Outcome

    bad = [pin for pin in results.cells if pin.outcome not in (Outcome.OK, Outcome.OOM)]
    if bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise UsageError(
            f"{bad[0].words.label} ended as {bad[0].outcome}{more}: that is nothing to compare with", fix="mend it, and run the suite again"
        )
