"""`benchctl report`: one table of what the database holds."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from benchctl.cli.app import app
from benchctl.cli.options import Database, reading
from benchctl.errors import UsageError

SuiteFilter = Annotated[str | None, typer.Option("--suite", metavar="NAME", help="Only cells of this suite.")]
RunFilter = Annotated[str | None, typer.Option("--run", metavar="ID", help="Only cells of this run; a unique beginning is enough.")]


@app.command()
def report(
    table: Annotated[str, typer.Option("--table", metavar="NAME", help="Which table; 'benchctl list tables' names them.")],
    db: Database = None,
    suite: SuiteFilter = None,
    run: RunFilter = None,
    published: Annotated[bool, typer.Option("--published", help="Beside the numbers that papers print about the same systems.")] = False,
    form: Annotated[Literal["text", "markdown", "csv", "json", "latex"], typer.Option("--format", help="How to print it.")] = "text",
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to FILE instead of standard output.")] = None,
) -> None:
    """Print a table."""
    from benchctl import lookup
    from benchctl.cli.output import write
    from benchctl.report.render import render
    from benchctl.report.table import Selection

    lookup.entry("table", table)
    build = _beside_published(table) if published else lookup.load("table", table).build
    with reading(db) as store:
        built = build(store, Selection(suite=suite, run=run))
    # a terminal is as wide as it is; a file or a pipe takes any width
    width = shutil.get_terminal_size().columns if output is None and sys.stdout.isatty() else None
    write(render(built, form, width=width), output)


def _beside_published(table: str) -> Any:
    """What builds `table` beside published numbers."""
    from benchctl import lookup

    module = lookup.load("table", table)
    if hasattr(module, "build_published"):
        return module.build_published
    able = [name for name in lookup.entries("table") if hasattr(lookup.load("table", name), "build_published")]
    raise UsageError(f"table '{table}' has no published numbers beside it", where="--published", fix=f"tables that have: {', '.join(able)}")
