"""Progress of commands that compute something of every clip of a data set."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchctl.data.content_files import Ended

#: without a terminal, so many lines tell of the clips that are done
_LINES = 20


@contextmanager
def shown(total: int, what: str, *, unreadable: str | None = None) -> Iterator[Callable[[Ended], None]]:
    """A function that shows each clip as it ends: a bar on a terminal, a line now and then elsewhere; unreadable ones are named.

    Args:
        total: how many clips there are.
        what: what is computed of each.
        unreadable: what stands before the name of an unreadable one, if not `no WHAT of`.
    """
    before = unreadable or f"no {what} of"
    if not sys.stderr.isatty():
        yield _Lines(total, before)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.text import Text

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)

        def show(ended: Ended) -> None:
            if ended.word == "unreadable":
                progress.print(Text(_unreadable(ended, before), style="red"), soft_wrap=True)
            progress.advance(task)

        yield show


@contextmanager
def counted(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function that is told how many clips are done, of how many: a bar on a terminal, a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done, total: say(f"[{done}/{total}] {what}") if done % -(-total // _LINES) == 0 or done == total else None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class _Lines:
    """One line for every twentieth part of the clips, and one for each that is unreadable."""

    def __init__(self, total: int, before: str) -> None:
        self._total, self._before, self._done, self._every = total, before, 0, -(-total // _LINES)

    def __call__(self, ended: Ended) -> None:
        self._done += 1
        if ended.word == "unreadable":
            say(_unreadable(ended, self._before))
        if self._done % self._every == 0 or self._done == self._total:
            say(f"[{self._done}/{self._total}] {ended.clip.id}")


def _unreadable(ended: Ended, before: str) -> str:
    return f"{before} {ended.clip.id}: {ended.reason}"


def say(line: str) -> None:
    """To stderr."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201
