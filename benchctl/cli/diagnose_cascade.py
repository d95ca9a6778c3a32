"""`benchctl diagnose cascade`: a cheap cell answers where it is confident, another one the rest."""

from __future__ import annotations

import json
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from benchctl.cli.diagnose import CellName, diagnose, ended, kept_file
from benchctl.cli.options import Database, reading
from benchctl.errors import Inconclusive

if TYPE_CHECKING:
    from benchctl.metrics.cascade import Step
    from benchctl.metrics.scores import Scores
    from benchctl.store.store import Store

#: shares of the clips at which the text shows the cascade
_SHOWN = 10


@diagnose.command()
def cascade(
    first: CellName,
    host: CellName,
    db: Database = None,
    form: Annotated[Literal["text", "json"], typer.Option("--format", help="json: every threshold.")] = "text",
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE.png", help="Draw it too.")] = None,
) -> None:
    """FIRST answers clips that it is confident about, HOST the rest: accuracy and mean MACs over all thresholds."""
    from benchctl.metrics.cascade import cascade as steps_of
    from benchctl.metrics.scores import aligned
    from benchctl.visualize import cascade_figure, png

    if output is not None:
        png.check(output)
    with reading(db) as store:
        (name, scores, macs), (host_name, host_scores, host_macs) = (_judged(store, cell) for cell in (first, host))
    steps = steps_of(*aligned(scores, host_scores), macs, host_macs)
    if output is not None:
        cascade_figure.save(steps, name, host_name, output)
    if form == "json":
        document = {"schema_version": 1, "first": name, "host": host_name, "clips": len(scores.ids), "steps": [_json(s) for s in steps]}
        typer.echo(json.dumps(document, indent=2))
        return
    _print(steps, name, host_name, len(scores.ids))
    if output is not None:
        typer.echo(str(output))


def _judged(store: Store, name: str) -> tuple[str, Scores, float]:
    """How a cell is called, its scores, and the MACs of one clip with all its views."""
    from benchctl.metrics.scores import read

    cell, result = ended(store, name)
    scores = read(kept_file(cell, result.notes.get("scores"), "scores"))
    macs = next((m.value for m in store.measurements(result.result_id) if (m.metric, m.kind) == ("macs", "all")), None)
    if macs is None:
        raise Inconclusive(f"the operations of cell {cell.id} ({cell.label}) were not counted", fix="run its suite again with --fresh")
    return f"{cell.variant} at {cell.shape.frames} frames", scores, macs * cell.recipe.eval_clips * cell.recipe.eval_crops


def _json(step: Step) -> dict[str, Any]:
    return {**asdict(step), "threshold": step.threshold if isfinite(step.threshold) else None}


def _print(steps: tuple[Step, ...], first: str, host: str, clips: int) -> None:
    from benchctl.metrics.cascade import at_coverage, best

    typer.echo(f"first: {first}\nhost:  {host}\n{clips} clips\n")
    typer.echo("answered by the first  from confidence  right of those  right of all  mean MACs (G)")
    for step in [at_coverage(steps, n / _SHOWN) for n in range(_SHOWN + 1)]:
        typer.echo(_line(step))
    typer.echo(f"\nmost accurate:\n{_line(best(steps))}")


def _line(step: Step) -> str:
    confidence = f"{step.threshold:.3f}" if isfinite(step.threshold) else "never"
    answered = "none" if step.answered_accuracy is None else f"{step.answered_accuracy:.1%}"
    return f"{step.coverage:>21.1%}  {confidence:>15}  {answered:>14}  {step.accuracy:>12.1%}  {step.macs / 1e9:>13,.4f}"
