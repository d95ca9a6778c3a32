"""`benchctl slurm`: a job script whose array tasks share the cells of a suite."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchctl.cli.app import app
from benchctl.cli.options import Database, Only, Settings, SuiteName, database_url
from benchctl.cli.output import write
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from benchctl.launch import Launch

#: before a time limit, in seconds: enough to write a checkpoint and give the cell back
_FAREWELL_SECONDS = 60


@app.command()
def slurm(
    suite: SuiteName,
    db: Database = None,
    only: Only = None,
    settings: Settings = None,
    array: Annotated[int, typer.Option("--array", metavar="N", min=1, help="How many tasks share the cells of the suite.")] = 1,
    time: Annotated[str | None, typer.Option("--time", metavar="HH:MM:SS", help="Time limit of a task; default: the partition's.")] = None,
    partition: Annotated[str | None, typer.Option("--partition", metavar="NAME", help="Where to run; default: Slurm's.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="The script; default: print it.")] = None,
) -> None:
    """Write a Slurm job script whose tasks run a suite together: each cell is executed by one of them.

    Nodes and GPUs are those of the suite's launch. Submit it with 'sbatch FILE'; submitted again, it goes on where it ended.
    """
    from benchctl.launch import Launch
    from benchctl.store.location import Location
    from benchctl.suite_file import load

    loaded = load(suite, settings or ())
    url = database_url(db)
    # a URL that names no database is said now, not by every task
    location = Location.parse(url)
    if location.path is not None and array > 1:
        raise UsageError(
            "tasks on several machines cannot share an SQLite file: file locks do not hold over a network",
            where=f"--array {array}",
            fix="give --db postgresql://USER@HOST/NAME, or leave --array out",
        )
    _check(time, partition)
    # of several, the largest: a task runs cells of all of them
    launch = max(loaded.suite.launch, key=lambda each: (each.nodes, each.gpus), default=Launch())
    command = ["benchctl", "run", suite]
    for option, values in (("--db", [] if location.has_password else [url]), ("--set", settings), ("--only", only)):
        command += [word for value in values or () for word in (option, value)]
    asked = {"time": time, "partition": partition}
    directives = _directives(f"benchctl-{loaded.suite.name}", array, launch, {name: value for name, value in asked.items() if value})
    write("\n".join([*directives, "", *_work(command, launch, secret=location.has_password)]), output)
    if location.has_password:
        typer.echo("benchctl: the URL has a password, which is not in the script: set BENCHCTL_DB to the URL before sbatch", err=True)


def _check(time: str | None, partition: str | None) -> None:
    """Raise UsageError where Slurm would not take what was asked for."""
    if time is not None and not re.fullmatch(r"(\d+-)?\d{1,3}:[0-5]\d:[0-5]\d", time):
        raise UsageError("expected HH:MM:SS or DAYS-HH:MM:SS", where=f"--time {time}", fix="for example --time 12:00:00")
    # a directive is a comment to the shell: there is no quoting in it
    if partition is not None and not re.fullmatch(r"[\w.,+-]+", partition):
        raise UsageError("not a name of partitions", where=f"--partition {partition}", fix="for example --partition gpu")


def _directives(name: str, array: int, launch: Launch, asked: dict[str, str]) -> list[str]:
    # one process for each GPU where several nodes train together; on one node benchctl starts them itself
    tasks = launch.gpus if launch.nodes > 1 else 1
    # `B:`: to this script, in whose place benchctl runs; else to what srun started
    to = "" if launch.nodes > 1 else "B:"
    options = {
        "job-name": name,
        "array": f"0-{array - 1}",
        "nodes": launch.nodes,
        "ntasks-per-node": tasks,
        "gpus-per-node": launch.gpus,
        "signal": f"{to}TERM@{_FAREWELL_SECONDS}",
        **asked,
    }
    return ["#!/bin/bash", *(f"#SBATCH --{name}={value}" for name, value in options.items())]


def _work(command: list[str], launch: Launch, *, secret: bool) -> list[str]:
    """The part that a shell reads."""
    database = ["# benchctl reads it", ': "${BENCHCTL_DB:?set it to the URL of the results database before sbatch}"'] if secret else []
    # the interpreter that wrote this: the shell of a batch job may know another one
    run = shlex.join([sys.executable, "-m", *command])
    return [
        "set -eu",
        f"cd -- {shlex.quote(str(Path.cwd()))}",
        *database,
        # in place of the shell, so that it gets the signal
        f"exec {'srun ' if launch.nodes > 1 else ''}{run}",
    ]
