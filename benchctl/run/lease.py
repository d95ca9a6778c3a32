"""The right to execute a cell, kept while the cell is executed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from benchctl.errors import StoreError
from benchctl.record import CellResult
from benchctl.store.claims import Claim, ClaimLost
from benchctl.store.store import Store

#: how long a cell waits for a run that died, in seconds: longer than a worker whose runner has gone takes to write its checkpoint
LEASE_SECONDS = 60.0
#: how often a lease is renewed, in seconds
RENEW_SECONDS = 15.0


class Lease:
    """A claim of this run. Inside the block it is renewed; at its end it is given back, unless a result was stored."""

    def __init__(self, store: Store, claim: Claim, *, seconds: float, renew_seconds: float) -> None:
        """Keep a claim that was just made for `seconds`."""
        self._store = store
        self._claim = claim
        self._seconds = seconds
        self._renew_seconds = renew_seconds
        #: set when the work must end: the lease is lost, or whoever holds it wants to stop
        self.stop = threading.Event()
        #: called when the lease is lost, before `stop` is set
        self.on_lost: Callable[[], None] | None = None
        #: another run took the cell
        self.lost = False
        self._over = False
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True, name="lease")

    def __enter__(self) -> Self:
        self._keeper.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._keeper.join()
        if not self._over and not self.lost:
            # out of reach, it ends by itself; and where the database is the trouble, the first error is the one to tell
            with contextlib.suppress(StoreError):
                self._store.release(self._claim)

    def settle(self, result: CellResult) -> bool:
        """Store `result` and give the cell back; False: another run took it, and nothing is stored."""
        if self.lost:
            return False
        try:
            self._store.add_result(self._claim.run_id, result, self._claim)
        except ClaimLost:
            self.lost = True
            return False
        self._over = True
        return True

    def _keep(self) -> None:
        while not self._ended.wait(self._renew_seconds):
            try:
                kept = self._store.renew(self._claim, self._seconds)
            except StoreError:
                # locked or out of reach for the moment, which need not be the end of hours of training: had another run taken the
                # cell meanwhile, no second result could be stored
                continue
            if not kept:
                # a result that is stored at this moment has ended the claim too: then nobody asks any more
                self.lost = not self._over
                if self.lost and self.on_lost is not None:
                    self.on_lost()
                self.stop.set()
                return
