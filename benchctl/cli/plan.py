"""`benchctl plan`: what a suite comes to, before anything is executed."""

from __future__ import annotations

import json
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchctl.cli.app import app
from benchctl.cli.options import Database, DeviceName, Json, LaunchName, Only, Settings, SuiteName, database_url, with_launch
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchctl.plan import Plan
    from benchctl.run.gpus_needed import Fit, GpusNeeded
    from benchctl.run.predictions import Predicted
    from benchctl.spec import Cell
    from benchctl.store.store import Store


@app.command()
def plan(
    suite: SuiteName,
    db: Database = None,
    only: Only = None,
    settings: Settings = None,
    launch: LaunchName = None,
    device: DeviceName = "auto",
    predict: Annotated[
        bool, typer.Option("--predict/--no-predict", help="Count MACs and predict memory; known predictions are shown either way.")
    ] = True,
    gpu_memory: Annotated[
        float | None, typer.Option("--gpu-memory", min=2, metavar="GIB", help="Also tell how many GPUs of so many GiB each training needs.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List every cell: new, done or stale (and why), MACs, predicted memory and what training comes to. Executes nothing.

    A data set that is not here is planned with its published number of classes.
    """
    from benchctl.cli import machine
    from benchctl.cli.planning import planned
    from benchctl.store.store import Store

    expanded, _ = planned(suite, with_launch(settings, launch), only, make_data=False)
    facts = machine.facts(device)
    needed: list[GpusNeeded] = []
    if gpu_memory is not None and not predict:
        raise UsageError("the number of GPUs is a prediction", where="--gpu-memory", fix="leave out --no-predict")
    with Store.open(database_url(db)) as store:
        predictions = {p.cell.id: p for p in _predictions(expanded.cells, store, facts.cores if predict else 0)}
        rows = [_row(cell, store_result, predictions.get(cell.id), device, facts.cuda) for cell, store_result in _known(expanded, store)]
        if gpu_memory is not None:
            from benchctl.run.gpus_needed import gpus_needed

            needed = gpus_needed(expanded.cells, int(gpu_memory * 2**30), lambda cells: _predictions(cells, store, facts.cores))
    absent = [{"name": source.ref.name, "num_classes": source.num_classes} for source in expanded.data.absent]
    if as_json:
        answer: dict[str, Any] = {"schema_version": 1, "suite": expanded.suite.name, "absent_data": absent, "cells": rows}
        if gpu_memory is not None:
            answer |= {"gpu_memory_gib": gpu_memory, "gpus_needed": [_need_row(need) for need in needed]}
        typer.echo(json.dumps(answer, indent=2))
        return
    _print(rows)
    if gpu_memory is not None:
        _print_needed(needed, gpu_memory)
    for each in absent:
        classes = f"cells are planned with its published number of classes ({each['num_classes']})"
        typer.echo(f"data set {each['name']} is not here: {classes}, and cannot be run")


def _known(expanded: Plan, store: Store) -> Iterator[tuple[Cell, Any]]:
    known = store.latest_results([cell.id for cell in expanded.cells])
    return ((cell, known.get(cell.id)) for cell in expanded.cells)


def _predictions(cells: Sequence[Cell], store: Store, cores: int) -> Iterator[Predicted]:
    from benchctl.run.predictions import Predictor
    from benchctl.run.provenance import cost_digests
    from benchctl.run.runner import PREDICTION_SECONDS

    with tempfile.TemporaryDirectory(prefix="benchctl-plan-") as folder:
        predictor = Predictor(store, Path(folder), workers=min(cores, 4), stop=threading.Event())
        yield from predictor.predict(cells, cost_digests, timeout_s=PREDICTION_SECONDS)


def _row(cell: Cell, known: Any, predicted: Predicted | None, device: Any, cuda: bool) -> dict[str, Any]:
    from benchctl.plan import execution, state
    from benchctl.run.provenance import code_digests

    result = predicted.result if predicted else None
    macs = result.value("macs", kind="all") if result else None
    where = execution(cell, device, cuda, macs)
    standing = state(cell, known, code_digests(cell), where)
    memory = {"source": "predicted", "device": "cuda"}
    step_flops = result.value("train_step_flops", kind="executed") if result else None
    steps = cell.steps(step_flops)
    return {
        "cell": cell.id,
        "method": cell.method,
        "options": cell.options or {},
        "variant": cell.variant,
        "task": cell.task,
        "frames": cell.shape.frames,
        "resolution": cell.shape.resolution,
        "batch_size": cell.shape.batch_size,
        "precision": cell.precision,
        "attention": cell.attention,
        "seed": cell.seed,
        "steps": steps,
        "train_flops": steps * step_flops if steps and step_flops else None,
        # what is given, not what is predicted: hours do not follow from operations
        "v100_gpu_hours": cell.budget.amount if cell.budget and cell.budget.match_on == "v100_gpu_hours" else None,
        "state": standing.word,
        "why": standing.reason or None,
        "macs": macs,
        "predicted_allocated_bytes": result.value("peak_memory_bytes", kind="allocated", **memory) if result else None,
        "predicted_reserved_bytes": result.value("peak_memory_bytes", kind="reserved", **memory) if result else None,
        "predicted_outcome": result.outcome.value if result else None,
        "predicted_reason": result.reason if result else None,
        "executes_on": where.device,
        "not_measured": where.reason or None,
    }


def _print(rows: list[dict[str, Any]]) -> None:
    """A table on standard output, and under it why cells are stale, do not fit, or are not measured here."""
    from benchctl.report.render import columns

    shown = [_texts(row) for row in rows]
    # what only trainings have is a column only where one has it
    titles = tuple(title for title in shown[0] if title not in _OF_TRAINING or any(texts[title] for texts in shown))
    typer.echo(columns(titles, [[texts[title] for title in titles] for texts in shown], right=_NUMBERS))
    counts = {word: sum(row["state"] == word for row in rows) for word in ("new", "stale", "done")}
    typer.echo(f"\n{len(rows)} cells: " + ", ".join(f"{count} {word}" for word, count in counts.items() if count))
    for key, title in (("why", "state"), ("predicted_reason", "predicted"), ("not_measured", "not measured here")):
        for reason in dict.fromkeys(row[key] for row in rows if row[key]):
            about = [row["cell"] for row in rows if row[key] == reason]
            names = (
                "all cells" if len(about) == len(rows) else ", ".join(about[:3]) + (f" and {len(about) - 3} more" if len(about) > 3 else "")
            )
            typer.echo(f"{title}: {reason} ({names})")


#: columns that only trainings have, and all those of numbers
_OF_TRAINING = ("training PFLOPs", "V100 GPU-hours")
_NUMBERS = ("seed", "steps", "MACs", "predicted memory", *_OF_TRAINING)


def _texts(row: dict[str, Any]) -> dict[str, str]:
    """A row of the table by its titles."""
    if row["predicted_outcome"] == "failed":
        memory = "trace failed"
    elif row["predicted_allocated_bytes"] is None:
        memory = "not predicted"
    else:
        memory = f"{row['predicted_allocated_bytes'] / 2**30:,.2f} GiB" + (" oom" if row["predicted_outcome"] == "oom" else "")
    return {
        "cell": row["cell"],
        "method": row["variant"],
        "task": row["task"],
        "batch x frames x pixels": f"{row['batch_size']}x{row['frames']}x{row['resolution']}",
        "precision": row["precision"],
        "attention": row["attention"],
        "seed": str(row["seed"]),
        "steps": str(row["steps"]) if row["steps"] else "",
        "state": row["state"],
        "MACs": f"{row['macs'] / 1e9:,.2f} G" if row["macs"] is not None else "not counted",
        "predicted memory": memory,
        "training PFLOPs": f"{row['train_flops'] / 1e15:,.6g}" if row["train_flops"] is not None else "",
        "V100 GPU-hours": f"{row['v100_gpu_hours']:,g}" if row["v100_gpu_hours"] is not None else "",
        "executes on": row["executes_on"] or "nothing",
    }


def _without_launch(cell: Cell) -> str:
    """The method, without how many GPUs the suite gives it: that is the question."""
    return cell.model_copy(update={"launch": None}).variant


def _engine(cell: Cell) -> str:
    if cell.launch is None or cell.launch.engine == "plain":
        return "ddp"
    offload = f" offload {cell.launch.offload}" if cell.launch.offload != "none" else ""
    return f"deepspeed zero{cell.launch.zero}{offload}"


def _need_row(need: GpusNeeded) -> dict[str, Any]:
    def fit(found: Fit | None) -> dict[str, Any] | None:
        if found is None:
            return None
        return {"gpus": found.launch.gpus, "clips_per_pass": found.clips, "predicted_reserved_bytes": found.reserved_bytes}

    return {
        "method": _without_launch(need.cell),
        "engine": _engine(need.cell),
        "batch_size": need.cell.shape.batch_size,
        "frames": need.cell.shape.frames,
        "resolution": need.cell.shape.resolution,
        "at_once": fit(need.at_once),
        "one_by_one": fit(need.one_by_one),
        "reason": need.reason,
    }


def _print_needed(needed: list[GpusNeeded], gib: float) -> None:
    """Under the plan: how many GPUs hold a step of each training."""
    from benchctl.gpu_models import DEFAULT_GPU
    from benchctl.report.render import columns
    from benchctl.run.gpus_needed import LEFT_BYTES, MOST_GPUS

    if not needed:
        typer.echo("\nno cell trains, so none needs a number of GPUs")
        return
    kinds = ", ".join(sorted({need.cell.gpu or DEFAULT_GPU for need in needed}))
    typer.echo(
        f"\nGPUs of {gib:g} GiB that hold a training step, predicted for the {kinds}; {LEFT_BYTES / 2**30:g} GiB of each is left free"
    )
    titles = (
        "method",
        "engine",
        "batch x frames x pixels",
        "GPUs",
        "clips each",
        "GiB each",
        "GPUs, clip by clip",
        "GiB each, clip by clip",
    )

    def texts(found: Fit | None, reason: str | None) -> tuple[str, str, str]:
        if found is None:
            return ("?" if reason else f"over {MOST_GPUS}", "", "")
        return str(found.launch.gpus), str(found.clips), f"{found.reserved_bytes / 2**30:.1f}"

    rows = []
    for need in needed:
        shape = need.cell.shape
        once, single = texts(need.at_once, need.reason), texts(need.one_by_one, need.reason)
        rows.append(
            [
                _without_launch(need.cell),
                _engine(need.cell),
                f"{shape.batch_size}x{shape.frames}x{shape.resolution}",
                *once,
                single[0],
                single[2],
            ]
        )
    typer.echo(columns(titles, rows, right=titles[3:]))
    for reason in dict.fromkeys(need.reason for need in needed if need.reason):
        typer.echo(f"not predicted: {reason}")
