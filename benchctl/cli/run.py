"""`benchctl run`: run every cell of a suite that is not done."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from benchctl.cli.app import app
from benchctl.cli.options import (
    Database,
    DeviceName,
    Json,
    LaunchName,
    Only,
    Settings,
    SuiteName,
    database_url,
    results_folder,
    with_launch,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchctl.plan import Plan
    from benchctl.run.runner import Runner, Summary
    from benchctl.spec import Cell
    from benchctl.store.store import Store


@app.command()
def run(
    suite: SuiteName,
    db: Database = None,
    only: Only = None,
    settings: Settings = None,
    launch: LaunchName = None,
    device: DeviceName = "auto",
    fresh: Annotated[bool, typer.Option("--fresh", help="Run finished cells again.")] = False,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="CELL", help="Go on from where this cell, the same with another launch, was stopped."),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", min=1, help="Time limit of one cell; default: the suite's.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", min=1, help="Processes that predict at the same time; default: one per core, at most 4."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a suite. The same command again goes on where the last one ended.

    Several runs may share a database: each cell is executed by one of them.
    """
    from benchctl.cli import machine
    from benchctl.cli.planning import planned
    from benchctl.cli.progress import listener
    from benchctl.run import runner as running
    from benchctl.run.tasks import Hands, follow, tasks
    from benchctl.store.store import Store

    url = database_url(db)
    several = tasks()
    if several is not None and not several.first:
        follow(several, results_folder(url))
        return
    facts = machine.facts(device)
    with Store.open(url) as store, ExitStack() as stack:
        plan, loaded = planned(suite, with_launch(settings, launch), only, make_data=True)
        machine.check_launches(plan.suite.launch, facts, device, several)
        record = machine.run_record(loaded, facts)
        others = stack.enter_context(Hands(several, results_folder(url))) if several is not None else None
        how = running.Settings(
            folder=results_folder(url),
            device=device,
            cuda=facts.cuda,
            fresh=fresh,
            workers=workers or min(facts.cores, 4),
            timeout_s=timeout,
            resume=_resumed(store, plan, resume) if resume else None,
            hands=others,
        )
        with listener() as listening:
            runner = running.Runner(plan, store, record, how, listening)
            with _interruptible(runner):
                summary = runner.run()
    _print(summary, len(plan.cells), as_json)
    if summary.interrupted:
        raise typer.Exit(130)
    if summary.failures:
        raise typer.Exit(1)


def _resumed(store: Store, plan: Plan, name: str) -> Cell:
    """The cell of that id, which some cell of the plan must go on from."""
    from benchctl.errors import UsageError

    found = store.cell(name)
    if not any(cell.kin == found.kin and cell.id != found.id for cell in plan.cells):
        what = f"no cell of this plan trains the same as {found.label} with other processes"
        raise UsageError(what, where=f"--resume {name}", fix="only the launch may differ")
    return found


@contextmanager
def _interruptible(runner: Runner) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) finishes cleanly, the second ends at once."""

    def handle(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        print("benchctl: finishing; press Ctrl-C again to end at once", file=sys.stderr)  # noqa: T201
        runner.interrupt()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print(summary: Summary, total: int, as_json: bool) -> None:
    from benchctl.record import Outcome

    counts = {outcome.value: summary.count(outcome) for outcome in Outcome if summary.count(outcome)}
    left = total - summary.reused - len(summary.results) - len(summary.others)
    if as_json:
        failed = [{"cell": r.cell_id, "outcome": r.outcome.value, "reason": r.reason} for r in summary.results if r.outcome.failure]
        document = {
            "schema_version": 1,
            "run": summary.run_id,
            "cells": total,
            "reused": summary.reused,
            "done_by_other_runs": len(summary.others),
            "outcomes": counts,
            "not_run": left,
            "interrupted": summary.interrupted,
            "failed": failed,
        }
        typer.echo(json.dumps(document, indent=2))
        return
    parts = [f"{count} {word}" for word, count in counts.items()]
    if summary.reused:
        parts.append(f"{summary.reused} done before")
    if summary.others:
        failed_there = sum(result.outcome.failure for result in summary.others)
        parts.append(f"{len(summary.others)} done by other runs" + (f" ({failed_there} of them failed)" if failed_there else ""))
    if left:
        parts.append(f"{left} not run")
    typer.echo(f"run {summary.run_id}: {total} cells: {', '.join(parts)}")
