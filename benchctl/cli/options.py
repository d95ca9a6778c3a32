"""Options that several commands share, and what they mean."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from benchctl.errors import UsageError

if TYPE_CHECKING:
    from benchctl.store.store import Store

DEFAULT_DATABASE = "results/benchctl.db"

SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="A suite file, or the name of a shipped suite.")]
Database = Annotated[
    str | None,
    typer.Option(
        "--db", metavar="URL", help=f"Results database: a file or any SQLAlchemy URL. Default: $BENCHCTL_DB, else {DEFAULT_DATABASE}."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the suite, for example sweep.0.frames=[8,16]. Repeatable."),
]
LaunchName = Annotated[
    Literal["plain", "deepspeed"] | None,
    typer.Option("--launch", help="Engine of several processes, short for --set launch.engine=...; how many: --set launch.gpus=N."),
]
Only = Annotated[list[str] | None, typer.Option("--only", metavar="GLOB", help="Only cells whose label or id matches. Repeatable.")]
DeviceName = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option("--device", help="Where to execute. auto: a GPU if there is one; on a CPU only small models."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def database_url(asked: str | None) -> str:
    """The URL of the results database; a path is an SQLite file."""
    name = asked or os.environ.get("BENCHCTL_DB") or DEFAULT_DATABASE
    return name if "://" in name else f"sqlite:///{name}"


def results_folder(url: str) -> Path:
    """Where logs and checkpoints go: beside an SQLite file, else `results`."""
    prefix = "sqlite:///"
    path = url.removeprefix(prefix) if url.startswith(prefix) else ""
    return Path(path).parent if path and path != ":memory:" else Path("results")


def with_launch(settings: list[str] | None, engine: str | None) -> list[str]:
    """`settings`, with the engine that `--launch` names before them."""
    return [*([f"launch.engine={engine}"] if engine else []), *(settings or ())]


def setting(text: str) -> tuple[str, object]:
    """`KEY=VALUE` of `--set`; the value is read as YAML."""
    from benchctl import yaml_file

    where = f"--set {text}"
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError("expected KEY=VALUE", where=where, fix="for example --set layers=2")
    return key, yaml_file.value(value, where, UsageError)


@contextmanager
def reading(asked: str | None) -> Iterator[Store]:
    """The results database, opened to read; it must exist."""
    from benchctl.store.store import Store

    with Store.open(database_url(asked), create=False, read_only=True) as store:
        yield store
