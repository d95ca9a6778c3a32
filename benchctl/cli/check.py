"""`benchctl check` and `benchctl compare`: the gate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from benchctl.cli.app import app
from benchctl.cli.options import Database, reading
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchctl.gate import Verdict
    from benchctl.pins import Pins
    from benchctl.report.verdicts import Form

PinsFile = Annotated[str, typer.Argument(metavar="PINS", help="A file of pins, or the name of shipped ones.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to FILE instead of standard output.")]
FormName = Annotated[Literal["text", "json", "markdown", "junit"], typer.Option("--format", help="How to print the verdicts.")]
Every = Annotated[bool, typer.Option("--all", help="Also what passed, line by line; it is counted otherwise.")]


@app.command()
def check(
    pins: PinsFile,
    db: Database = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="ID", help="What this run came to; default: the suite as it was last asked for.")
    ] = None,
    form: FormName = "text",
    every: Every = False,
    output: Output = None,
) -> None:
    """Compare results with pins. Ends with 1 if something regressed, 4 if something could not be compared, else 0."""
    from benchctl import gate
    from benchctl.cli import as_pins

    path = pins_path(pins)
    pinned = load(path)
    with reading(db) as store:
        results = as_pins.of_suite(store, pinned.suite) if run is None else as_pins.of_run(store, run)[1]
    if results.suite != pinned.suite:
        raise UsageError(f"run '{run}' is of suite '{results.suite}'", where=str(path), fix=f"name a run of suite '{pinned.suite}'")
    _say(gate.judge(pinned, results), form, f"{pinned.suite} against {path.name}", every=every, output=output)


@app.command()
def compare(
    before: Annotated[str | None, typer.Argument(metavar="RUN_A", help="A run: its id, or a unique beginning.")] = None,
    after: Annotated[str | None, typer.Argument(metavar="RUN_B", help="The run that is compared with it.")] = None,
    db: Database = None,
    ab: Annotated[
        tuple[str, str] | None, typer.Option("--ab", metavar="CMD_A CMD_B", help="Instead: two commands, timed in turns on this machine.")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=5, help="With --ab: how often each command is timed, after once without.")] = 10,
    form: FormName = "text",
    every: Every = False,
    output: Output = None,
) -> None:
    """Compare two runs, as if the first were pinned; or the times of two commands, taken in turns."""
    from benchctl import gate
    from benchctl.cli import as_pins

    if ab is not None:
        if before or after:
            raise UsageError("--ab takes two commands, and no runs", fix="leave the runs out")
        from benchctl.pins import Rules
        from benchctl.run.turns import timed_in_turns

        times = timed_in_turns(*ab, rounds=rounds)
        _say([gate.judge_times(times.before, times.after, Rules())], form, "B against A", every=True, output=output)
        return
    if before is None or after is None:
        raise UsageError("two runs are compared", fix="benchctl compare RUN_A RUN_B; see 'benchctl list runs'")
    with reading(db) as store:
        (first, pinned), (second, results) = (as_pins.of_run(store, run) for run in (before, after))
    title = f"{second.record.run_id} against {first.record.run_id}"
    _say(gate.judge(pinned, results), form, title, every=every, output=output)


def pins_path(name: str) -> Path:
    """The file that `name` is, or the shipped pins called so.

    Raises:
        UnknownName: neither.
    """
    from benchctl import pins
    from benchctl.errors import unknown

    path, shipped = Path(name), pins.shipped()
    if name in shipped and not path.is_file():
        return shipped[name]
    if not path.is_file() and path.suffix not in (".yaml", ".yml"):
        raise unknown("file of pins", name, shipped)
    return path


def load(path: Path) -> Pins:
    """The pins in `path`."""
    from benchctl import pins

    return pins.load(path)


def _say(verdicts: Sequence[Verdict], form: Form, title: str, *, every: bool, output: Path | None) -> None:
    from benchctl import gate
    from benchctl.cli.output import write
    from benchctl.report.verdicts import render

    write(render(verdicts, form, title=title, every=every), output)
    raise typer.Exit(gate.exit_code(verdicts))
