"""Writers take turns: a lock file beside the database that a process holds while it writes.

SQLite's own locks order transactions, but before 3.51.3 two processes that write and checkpoint a write-ahead log at the same moment
can damage it. One turn at a time rules that out, and gives waiting writers a time limit that covers opening and closing too.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchctl.store.faults import locked

_POLL_SECONDS = 0.01


@contextmanager
def turn(database: Path, timeout_seconds: float) -> Iterator[None]:
    """Hold the writers' lock of `database` inside the block. Other processes may read meanwhile.

    Raises:
        StoreError: another writer held it for longer than `timeout_seconds`.
    """
    if sys.platform == "win32":
        yield  # SQLite's locks alone: the file locks below do not exist there
        return
    import fcntl

    # not the database itself: closing any descriptor of that file would drop the locks that SQLite holds on it
    descriptor = os.open(f"{database}.lock", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise locked(str(database)) from None
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)
