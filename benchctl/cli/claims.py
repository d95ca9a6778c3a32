"""`benchctl claims`: what papers claim, judged by what the database holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from benchctl.cli.app import app
from benchctl.cli.check import Output
from benchctl.cli.options import Database, database_url

if TYPE_CHECKING:
    from benchctl.pins import Pins


@app.command()
def claims(
    suite: Annotated[str | None, typer.Argument(metavar="SUITE", help="Only claims about this suite; default: all.")] = None,
    paper: Annotated[str | None, typer.Option("--paper", metavar="KEY", help="Only those of this paper.")] = None,
    db: Database = None,
    form: Annotated[Literal["text", "json", "markdown"], typer.Option("--format", help="How to print them.")] = "text",
    output: Output = None,
) -> None:
    """Judge the papers' claims: each holds, is contradicted, or is undecided, and then what would decide it is named."""
    from benchctl import claims as claiming
    from benchctl.cli.output import write
    from benchctl.errors import unknown
    from benchctl.report.judgements import render

    files = claiming.shipped()
    if paper is not None and paper not in files:
        raise unknown("paper", paper, files)
    papers = [claiming.load(path) for name, path in files.items() if paper in (None, name)]
    wanted = [(each.paper, claim) for each in papers for claim in each.claims if suite in (None, claim.suite)]
    if not wanted:
        raise unknown("suite with claims", suite or "", {claim.suite for each in papers for claim in each.claims})
    results = _results(db, sorted({claim.suite for _, claim in wanted}))
    write(render([claiming.judge(paper_, claim, results.get(claim.suite)) for paper_, claim in wanted], form), output)


def _results(db: str | None, suites: list[str]) -> dict[str, Pins]:
    """What those of `suites` came to that were run; a database that is not there yet is one without results."""
    from benchctl.cli import as_pins
    from benchctl.store.location import Location
    from benchctl.store.store import Store

    location = Location.parse(database_url(db))
    if location.path is not None and not location.path.exists():
        return {}
    with Store.open(database_url(db), create=False, read_only=True) as store:
        found = {suite: as_pins.so_far(store, suite) for suite in suites}
    return {suite: results for suite, results in found.items() if results is not None}
