"""`benchctl data`: data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from benchctl.cli.app import app
from benchctl.cli.options import cache_folder
from benchctl.errors import UsageError

data = typer.Typer(help="Make data sets.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data, name="data")


@data.callback()
def root() -> None:
    """Keep `data` a group while it has a single command."""


@data.command()
def make(
    name: Annotated[str, typer.Argument(help="A data set that can be generated, for example motion_shapes.")],
    options: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the data set. Repeatable.")] = None,
    folder: Annotated[Path | None, typer.Option("--folder", metavar="FOLDER", help="Where; default: the cache folder.")] = None,
) -> None:
    """Generate a data set and print its folder."""
    from pydantic import ValidationError

    from benchctl import lookup
    from benchctl.spec import DatasetRef

    module = lookup.load("dataset", name)
    if not hasattr(module, "prepare"):
        raise UsageError(f"'{name}' cannot be generated", fix="put it under $BENCHCTL_DATA")
    given = dict(_option(text) for text in options or ())
    try:
        resolved = module.Options.model_validate(given)
    except ValidationError as invalid:
        problem = invalid.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise UsageError(
            f"{problem['msg'].lower()}", where=f"--set {key}", fix=f"options: {', '.join(module.Options.model_fields)}"
        ) from None
    ref = DatasetRef(name=name, options=resolved.model_dump(mode="json"))
    typer.echo(str(module.prepare(ref, folder or cache_folder())))


def _option(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError("expected KEY=VALUE", where=f"--set {text}")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value
