"""`benchctl diagnose weight-similarity`: what two cells learned, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from benchctl.cli.diagnose import diagnose
from benchctl.cli.options import Database, reading
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from benchctl.layers.pretrained import State
    from benchctl.report.table import Table
    from benchctl.visualize.weight_similarity import LayerSimilarity

Model = Annotated[str, typer.Argument(metavar="CELL", help="The (beginning of the) id of a cell that was trained, or a checkpoint file.")]


@diagnose.command("weight-similarity")
def weight_similarity(
    first: Model,
    second: Model,
    db: Database = None,
    form: Annotated[Literal["text", "json", "csv"], typer.Option("--format", help="How to print it.")] = "text",
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE.png", help="Draw it too.")] = None,
) -> None:
    """Print the cosine between the weights of two models, layer by layer: which layers the training of one moved elsewhere."""
    from benchctl.report.render import render
    from benchctl.visualize import png, weight_similarity_figure
    from benchctl.visualize.weight_similarity import layer_similarities

    if output is not None:
        png.check(output)
    (name, weights), (other_name, other_weights) = (_weights(model, db) for model in (first, second))
    layers = layer_similarities(weights, other_weights)
    if all(row.cosine is None for row in layers):
        why = f"{layers[0].layer}: {layers[0].reason}" if layers else "they hold no matrix or kernel"
        raise UsageError(f"the models have no layer in common ({why})", where=f"{first} {second}", fix="name two of one architecture")
    typer.echo(render(_table(name, other_name, layers, form), form))
    if output is not None:
        weight_similarity_figure.save(weight_similarity_figure.Picture(name, other_name, layers), output)
        # the table alone is the answer on standard output
        typer.echo(str(output), err=True)


def _weights(model: str, db: str | None) -> tuple[str, State]:
    """What the model is called, and its weights."""
    from benchctl.cli.diagnose import ended, kept_file
    from benchctl.layers.pretrained import read

    if Path(model).is_file():
        return model, read(Path(model))
    if Path(model).suffix or Path(model).name != model:
        # an id has neither dots nor slashes
        raise UsageError("no such checkpoint", where=model, fix="name the file that a training left, or a cell")
    with reading(db) as store:
        cell, result = ended(store, model)
    return f"{cell.label} ({cell.id[:8]})", read(kept_file(cell, result.checkpoint, "checkpoint"))


def _table(first: str, second: str, layers: tuple[LayerSimilarity, ...], form: str) -> Table:
    """The answer as every table; for people, with four decimals."""
    from benchctl.report.table import NOT_RECORDED, UNAVAILABLE, Column, Table, Value

    def shown(cosine: float | None) -> Value:
        return UNAVAILABLE if cosine is None else f"{cosine: .4f}" if form == "text" else cosine

    columns = (
        Column("layer", "layer"),
        Column("cosine", "cosine"),
        Column("elements", "elements"),
        Column("reason", "reason", text="never"),
    )
    rows = tuple((row.layer, shown(row.cosine), row.elements, row.reason or NOT_RECORDED) for row in layers)
    missing = (f"{row.layer}: {row.reason}" for row in layers if row.cosine is None)
    notes = ("Matrices and kernels, flattened; biases and normalisations are left out.", *missing)
    return Table("weight_similarity", f"weight similarity: {first} and {second}", columns, rows, notes)
