"""`benchctl plot`: one figure of what the database holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchctl.cli.app import app
from benchctl.cli.options import Database, reading
from benchctl.cli.report import RunFilter, SuiteFilter


@app.command()
def plot(
    figure: Annotated[str, typer.Argument(metavar="FIGURE", help="Which figure; 'benchctl list figures' names them.")],
    db: Database = None,
    suite: SuiteFilter = None,
    run: RunFilter = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="FILE.svg, .png or .pdf; default: FIGURE.svg")
    ] = None,
) -> None:
    """Draw a figure."""
    from benchctl import lookup
    from benchctl.report.table import Selection

    lookup.entry("figure", figure)
    file = output or Path(f"{figure}.svg")
    with reading(db) as store:
        lookup.load("figure", figure).draw(store, Selection(suite=suite, run=run), file)
    typer.echo(str(file))
