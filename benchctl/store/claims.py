"""Claims: of several runs that share one database, which one executes a cell, and until when.

A claim is a lease (Gray and Cheriton 1989). Its holder renews it; one that died does not, and its cell is taken by another when the time
is over. A result is stored and its claim released in one transaction: a run that gets a claim sees what its last holder did, and a holder
that was given up for dead cannot store a second result.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Double, and_, cast, delete, func, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from benchctl.errors import StoreError
from benchctl.store import reading, schema

_claims = schema.claims.c


class Claim(NamedTuple):
    """The right of one run to execute one cell."""

    cell_id: str
    run_id: str
    #: host and process, for people
    owner: str


class ClaimAnswer(Enum):
    """What came of wanting a claim."""

    CLAIMED = "claimed"
    #: another run has it
    HELD = "held"
    #: another run stored an attempt at the cell since the caller looked
    ATTEMPTED = "attempted"


class ClaimLost(StoreError):
    """A claim went to another run; for the run that held it, not for the user."""


def take(connection: Connection, claim: Claim, seconds: float, after: int | None) -> ClaimAnswer:
    """Claim a cell, inside the write transaction that `connection` is in. See `Store.claim`."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    until = _now(connection) + seconds
    wanted = dialect.insert(schema.claims).values({**claim._asdict(), "expires_at": until})
    free = or_(_claims.expires_at <= _now(connection), _mine(claim))
    new: dict[str, Any] = {"run_id": claim.run_id, "owner": claim.owner, "expires_at": until}
    taken = wanted.on_conflict_do_update(index_elements=["cell_id"], set_=new, where=free).returning(_claims.cell_id)
    if connection.execute(taken).first() is None:
        return ClaimAnswer.HELD
    # a statement of its own: on PostgreSQL the first one may have waited for a holder who was just storing his result, and still
    # see the moment before
    results = schema.results.c
    newest = connection.scalar(select(func.max(results.result_id)).where(results.cell_id == claim.cell_id))
    if newest is not None and newest > (after or 0):
        release(connection, claim)
        return ClaimAnswer.ATTEMPTED
    return ClaimAnswer.CLAIMED


def renew(connection: Connection, claim: Claim, seconds: float) -> bool:
    """Hold `claim` for `seconds` from now, unless another run took it. Its time may have been over meanwhile."""
    held = update(schema.claims).where(_claims.cell_id == claim.cell_id, _mine(claim))
    return bool(connection.execute(held.values({"expires_at": _now(connection) + seconds})).rowcount)


def release(connection: Connection, claim: Claim) -> bool:
    """Give `claim` back; False: it was not held any more."""
    return bool(connection.execute(delete(schema.claims).where(_claims.cell_id == claim.cell_id, _mine(claim))).rowcount)


def holders(connection: Connection, cell_ids: Sequence[str]) -> dict[str, Claim]:
    """The claims on those of `cell_ids` whose time is not over, by cell id."""
    found: dict[str, Claim] = {}
    columns = [getattr(_claims, name) for name in Claim._fields]
    for chunk in reading.batches(cell_ids):
        query = select(*columns).where(_claims.cell_id.in_(chunk), _claims.expires_at > _now(connection))
        found |= {row.cell_id: Claim(*row) for row in connection.execute(query)}
    return found


def _mine(claim: Claim) -> ColumnElement[bool]:
    return and_(_claims.run_id == claim.run_id, _claims.owner == claim.owner)


def _now(connection: Connection) -> ColumnElement[float]:
    """Seconds since 1970: by the server's clock, since those of the machines differ; an SQLite file is used from one machine."""
    if connection.dialect.name == "sqlite":
        return literal(time.time())
    return cast(func.extract("epoch", func.clock_timestamp()), Double)
