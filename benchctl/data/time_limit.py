"""A limit on the time that one clip may take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchctl.errors import ClipUnreadable

T = TypeVar("T")


@dataclass(frozen=True)
class Deadline:
    """When the work on `path` must be done."""

    path: Path
    seconds: float
    #: on the monotonic clock
    end: float

    def check(self) -> None:
        """Raise ClipUnreadable when the time is over."""
        if time.monotonic() > self.end:
            raise self.error()

    def error(self) -> ClipUnreadable:
        """What to raise when the time is over."""
        return ClipUnreadable(f"not decoded within {self.seconds:g} s", where=str(self.path))


def within(seconds: float, path: Path, job: Callable[[Deadline], T]) -> T:
    """What `job` returns, or what it raises, within `seconds`.

    The decoders are C code that no signal interrupts, so the job gets a thread of its own. Between frames it checks the deadline
    itself; a decoder that never returns keeps its daemon thread, and the caller goes on without it.

    Raises:
        ClipUnreadable: the time is over.
    """
    deadline = Deadline(path, seconds, time.monotonic() + seconds)
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(job(deadline))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name=f"decode {path.name}", daemon=True).start()
    try:
        return outcome.result(timeout=seconds + 1)  # the job's own check comes first where it can
    except TimeoutError:
        if outcome.done():  # the job itself raised it
            raise
        raise deadline.error() from None
