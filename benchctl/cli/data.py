"""`benchctl data`: data sets."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated

import typer

from benchctl.cli.app import app
from benchctl.cli.clip_progress import counted
from benchctl.cli.options import setting
from benchctl.errors import UsageError
from benchctl.folders import cache_folder

data = typer.Typer(help="Data sets, and what is computed of them once.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data, name="data")


@data.callback()
def root() -> None:
    """Data sets, and what is computed of them once."""


@data.command()
def make(
    name: Annotated[str, typer.Argument(help="A data set that can be generated, for example motion_shapes.")],
    options: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the data set. Repeatable.")] = None,
    folder: Annotated[Path | None, typer.Option("--folder", metavar="FOLDER", help="Where; default: the cache folder.")] = None,
) -> None:
    """Generate a data set and print its folder."""
    from benchctl import lookup
    from benchctl.data.named import options_of
    from benchctl.spec import DatasetRef

    module = lookup.load("dataset", name)
    if not hasattr(module, "prepare"):
        raise UsageError(f"'{name}' cannot be generated", fix="put it under $BENCHCTL_DATA")
    resolved = options_of(module, dict(setting(text) for text in options or ()))
    ref = DatasetRef(name=name, options=resolved.model_dump(mode="json"))
    place = folder or cache_folder()
    if "progress" not in inspect.signature(module.prepare).parameters:  # one from elsewhere may say nothing
        typer.echo(str(module.prepare(ref, place)))
        return
    with counted(f"clips of {name}") as progress:
        made = module.prepare(ref, place, progress=progress)
    typer.echo(str(made))
