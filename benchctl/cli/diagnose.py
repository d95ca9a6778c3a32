"""`benchctl diagnose`: what stored cells learned, compared. The commands that do it are in files of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchctl.cli.app import app
from benchctl.errors import Inconclusive

if TYPE_CHECKING:
    from benchctl.spec import Cell
    from benchctl.store.store import Store
    from benchctl.store.stored import StoredResult

CellName = Annotated[str, typer.Argument(metavar="CELL", help="The (beginning of the) id of a cell that was run.")]

diagnose = typer.Typer(help="Compare what cells learned.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(diagnose, name="diagnose")


@diagnose.callback()
def root() -> None:
    """Compare what cells learned."""


def ended(store: Store, name: str) -> tuple[Cell, StoredResult]:
    """The cell called `name`, and how it ended well.

    Raises:
        UnknownName: no such cell.
        Inconclusive: it was never run to its end.
    """
    cell = store.cell(name)
    result = store.latest_results([cell.id]).get(cell.id)
    if result is None or result.outcome.value != "ok":
        how = "was never run" if result is None else f"ended as {result.outcome.value}"
        raise Inconclusive(f"cell {cell.id} ({cell.label}) {how}", where=str(store.location), fix="run its suite again")
    return cell, result


def kept_file(cell: Cell, path: str | None, what: str) -> Path:
    """The file at `path`, which a cell left.

    Raises:
        Inconclusive: it left none, or it is gone.
    """
    if path is None or not Path(path).is_file():
        where = "" if path is None else f" at {path}"
        raise Inconclusive(f"cell {cell.id} ({cell.label}) has no {what}{where}", fix="run its suite again with --fresh")
    return Path(path)
