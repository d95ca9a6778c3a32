"""`benchctl report`: one table of what the database holds."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from benchctl.cli.app import app
from benchctl.cli.options import Database, reading

SuiteFilter = Annotated[str | None, typer.Option("--suite", metavar="NAME", help="Only cells of this suite.")]
RunFilter = Annotated[str | None, typer.Option("--run", metavar="ID", help="Only cells of this run; a unique beginning is enough.")]


@app.command()
def report(
    table: Annotated[str, typer.Option("--table", metavar="NAME", help="Which table; 'benchctl list tables' names them.")],
    db: Database = None,
    suite: SuiteFilter = None,
    run: RunFilter = None,
    form: Annotated[Literal["text", "markdown", "csv", "json", "latex"], typer.Option("--format", help="How to print it.")] = "text",
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to FILE instead of standard output.")] = None,
) -> None:
    """Print a table."""
    from benchctl import lookup
    from benchctl.cli.output import write
    from benchctl.report.render import render
    from benchctl.report.table import Selection

    lookup.entry("table", table)
    with reading(db) as store:
        built = lookup.load("table", table).build(store, Selection(suite=suite, run=run))
    # a terminal is as wide as it is; a file or a pipe takes any width
    width = shutil.get_terminal_size().columns if output is None and sys.stdout.isatty() else None
    write(render(built, form, width=width), output)
