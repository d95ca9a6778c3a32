"""Progress on standard error: bars on a terminal, one line per finished cell elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchctl.record import CellResult, Outcome

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from benchctl.run.runner import Listener
    from benchctl.spec import Cell
    from benchctl.store.stored import StoredResult

_STYLES = {Outcome.OK: "green", Outcome.OOM: "yellow", Outcome.SKIPPED: "yellow"}


def describe(cell: Cell, result: CellResult) -> str:
    """One line about a finished cell, for example `ok  timesformer-b/profile/1x8x224/...  196.1 GMACs  2.38 GiB predicted (cuda)`."""
    parts = [f"{result.outcome.value:<11}", cell.label]
    macs = result.value("macs", kind="all")
    if macs is not None:
        parts.append(f"{macs / 1e9:,.1f} GMACs")
    for source, device in (("measured", "cuda"), ("predicted", "cuda"), ("measured", "cpu")):
        memory = result.value("peak_memory_bytes", kind="allocated", source=source, device=device)
        if memory is not None:
            parts.append(f"{memory / 2**30:,.2f} GiB {source} ({device})")
            break
    top1 = result.value("top1")
    if top1 is not None:
        parts.append(f"top-1 {top1:.1%}")
    parts.append(f"{result.seconds:.1f} s")
    if result.reason:
        parts.append(result.reason)
    return "  ".join(parts)


def describe_other(cell: Cell, result: StoredResult) -> str:
    """One line about a cell that another run finished."""
    return f"{result.outcome.value:<11}  {cell.label}  by run {result.run_id}"


def describe_wait(count: int, owners: Sequence[str]) -> str:
    """What is waited for: the first few runs by host and process."""
    more = f" and {len(owners) - 3} more" if len(owners) > 3 else ""
    return f"waiting for other runs, {count} cell{'s' if count > 1 else ''}: {'; '.join(owners[:3])}{more}"


@contextmanager
def listener() -> Iterator[Listener]:
    """The listener that suits standard error."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bars(progress)


class Lines:
    """One line per finished cell, no cursor codes."""

    def __init__(self) -> None:
        self._total = 0
        self._done = 0
        self._waited_for: tuple[str, ...] = ()

    def begin(self, total: int, done: int) -> None:
        """Note how many there are."""
        self._total, self._done = total, done
        if done:
            self._say(f"{done} of {total} cells are done already")

    def start(self, cell: Cell, what: str) -> None:
        """Nothing: one line per finished cell."""

    def finish(self, cell: Cell, result: CellResult) -> None:
        """Print the line."""
        self._done += 1
        self._say(f"[{self._done}/{self._total}] {describe(cell, result)}")

    def adopt(self, cell: Cell, result: StoredResult) -> None:
        """Print the line."""
        self._done += 1
        self._say(f"[{self._done}/{self._total}] {describe_other(cell, result)}")

    def wait(self, count: int, owners: Sequence[str]) -> None:
        """Say it once for the same others."""
        if owners and tuple(owners) != self._waited_for:
            self._waited_for = tuple(owners)
            self._say(describe_wait(count, owners))

    @staticmethod
    def _say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201


class Bars:
    """A bar on a terminal, with the finished cells scrolling above it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def begin(self, total: int, done: int) -> None:
        """Show the bar."""
        self._task = self._progress.add_task("predicting", total=total, completed=done)

    def start(self, cell: Cell, what: str) -> None:
        """Name what runs."""
        if self._task is not None:
            self._progress.update(self._task, description=f"{cell.variant} {cell.shape}: {what}")

    def finish(self, cell: Cell, result: CellResult) -> None:
        """Advance the bar."""
        from rich.text import Text

        self._progress.print(Text(describe(cell, result), style=_STYLES.get(result.outcome, "red")), soft_wrap=True)
        if self._task is not None:
            self._progress.advance(self._task)

    def adopt(self, cell: Cell, result: StoredResult) -> None:
        """Advance the bar."""
        from rich.text import Text

        self._progress.print(Text(describe_other(cell, result), style="dim"), soft_wrap=True)
        if self._task is not None:
            self._progress.advance(self._task)

    def wait(self, count: int, owners: Sequence[str]) -> None:
        """Say what it waits for beside the bar."""
        if self._task is not None and owners:
            self._progress.update(self._task, description=describe_wait(count, owners))
