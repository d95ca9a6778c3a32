"""`benchctl list` and `benchctl show`."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from benchctl.cli.app import app
from benchctl.cli.options import Database, Json, reading
from benchctl.errors import UnknownName

if TYPE_CHECKING:
    from types import ModuleType

    from benchctl.store.store import Store


@app.command("list")
def list_(
    what: Annotated[
        Literal["methods", "datasets", "suites", "tables", "figures", "runs", "published", "pins"], typer.Argument(help="What to list.")
    ],
    db: Database = None,
    as_json: Json = False,
) -> None:
    """List what there is, one a line."""
    listed = {"runs": lambda: _runs(db), "suites": _suites, "published": _published, "pins": _pins}
    rows = listed.get(what, lambda: _registered(what))()
    if as_json:
        typer.echo(json.dumps({"schema_version": 1, what: [{"name": name, "summary": summary} for name, summary in rows]}, indent=2))
        return
    width = max((len(name) for name, _ in rows), default=0)
    for name, summary in rows:
        typer.echo(f"{name:<{width}}  {summary}".rstrip())


@app.command()
def show(
    what: Annotated[
        str, typer.Argument(metavar="METHOD|CELL|RUN", help="A method preset, or the (beginning of the) id of a cell or a run.")
    ],
    db: Database = None,
) -> None:
    """Show everything known about a method preset, a cell or a run, as JSON."""
    from benchctl import lookup

    if what in lookup.entries("method"):
        document = _method(what)
    else:
        with reading(db) as store:
            document = _stored(store, what)
    typer.echo(json.dumps(document, indent=2))


def _stored(store: Store, what: str) -> dict[str, Any]:
    for describe in (_run, _cell):
        with contextlib.suppress(UnknownName):
            return describe(store, what)
    raise UnknownName(
        f"no method, cell or run is called '{what}'", fix="see 'benchctl list methods', 'benchctl list runs' and 'benchctl plan SUITE'"
    )


def _run(store: Store, run_id: str) -> dict[str, Any]:
    run = store.run(run_id)
    record = run.record.model_dump(mode="json")
    suite = json.loads(record.pop("suite_json"))
    return {
        **record,
        "status": run.status,
        "finished_at": run.finished_at,
        "cells": run.cells,
        "results": run.results,
        "suite_after_set": suite,
    }


def _cell(store: Store, cell_id: str) -> dict[str, Any]:
    cell = store.cell(cell_id)
    document: dict[str, Any] = {"cell": cell.id, "label": cell.label, **cell.model_dump(mode="json", exclude_none=True)}
    result = store.latest_results([cell.id]).get(cell.id)
    if result is None:
        return {**document, "result": None}
    measurements = [m.model_dump(mode="json", exclude_none=True) for m in store.measurements(result.result_id)]
    document["result"] = {
        "run": result.run_id,
        "outcome": result.outcome.value,
        "reason": result.reason,
        "device": result.device,
        "started_at": result.started_at,
        "seconds": result.seconds,
        "notes": result.notes,
        "code": result.code,
        "checkpoint": result.checkpoint,
        "measurements": measurements,
    }
    return document


def _registered(what: str) -> list[tuple[str, str]]:
    from benchctl import lookup

    return [(entry.name, entry.summary) for entry in lookup.entries(what.removesuffix("s")).values()]


def _suites() -> list[tuple[str, str]]:
    from benchctl import suite_file

    return [(name, suite_file.load(str(path)).suite.description) for name, path in suite_file.shipped().items()]


def _pins() -> list[tuple[str, str]]:
    """Each shipped file of pins, and why it was set last."""
    from benchctl import pins

    loaded = [pins.load(path) for path in pins.shipped().values()]
    return [(each.suite, f"{len(each.cells)} cells, {each.history[-1].date}: {each.history[-1].reason}") for each in loaded]


def _published() -> list[tuple[str, str]]:
    """Each paper, and each of its tables."""
    from benchctl.report import published

    rows = []
    for path in published.shipped().values():
        paper = published.load(path)
        counts = published.counts(paper)
        total = published.TableCounts(*map(sum, zip(*counts.values())))
        rows.append((paper.paper, f"{paper.title} ({paper.year or paper.venue}): {total}"))
        rows += [(f"{paper.paper} {table.table}", f"{table.caption}: {counts[table.table]}") for table in paper.tables]
    return rows


def _runs(db: str | None) -> list[tuple[str, str]]:
    with reading(db) as store:
        return [
            (run.record.run_id, f"{run.record.suite}: {run.status}, {run.results} of {run.cells} cells ran, began {run.record.started_at}")
            for run in store.runs()
        ]


def _method(preset: str) -> dict[str, Any]:
    from benchctl import lookup, pretrained_on
    from benchctl.plan import paper_recipe

    entry = lookup.entry("method", preset)
    module = lookup.load("method", preset)
    config = module.Config.model_validate(entry.value)
    return {
        "method": preset,
        "summary": entry.summary,
        "file": entry.module,
        "config": config.model_dump(mode="json"),
        "attention": list(config.backends()),
        "recipe": paper_recipe(module, preset, None).model_dump(mode="json"),
        "recipe_by_dataset": _by_dataset(module, preset),
        "pretraining": pretrained_on.declared(config) if config.brings() else pretrained_on.NONE,
        "about": module.__doc__,
    }


def _by_dataset(module: ModuleType, preset: str) -> dict[str, Any]:
    """What differs from the recipe on data sets for which the paper has one of its own."""
    from benchctl import lookup
    from benchctl.plan import paper_recipe

    usual = paper_recipe(module, preset, None).model_dump(mode="json")
    found = {}
    for dataset in lookup.entries("dataset"):
        own = paper_recipe(module, preset, dataset).model_dump(mode="json")
        if own != usual:
            found[dataset] = {key: value for key, value in own.items() if value != usual[key]}
    return found
