"""What the results database gives back: frozen classes without SQLAlchemy, for plans, reports and the gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from benchctl.record import Environment, Outcome, RunRecord

#: `running` is also what a run says whose process was killed
RunStatus = Literal["running", "finished", "failed", "interrupted"]


class MeasurementKey(NamedTuple):
    """What a measurement is of, without its repetition."""

    metric: str
    kind: str
    source: str
    device: str


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One run, with how far it came."""

    record: RunRecord
    status: RunStatus
    finished_at: str | None
    #: cells that its plan held, and results that it added itself
    cells: int
    results: int


@dataclass(frozen=True, slots=True)
class StoredResult:
    """The newest attempt at one cell; its measurements are read separately."""

    result_id: int
    run_id: str
    cell_id: str
    outcome: Outcome
    reason: str | None
    device: str
    started_at: str
    seconds: float
    environment: Environment
    notes: dict[str, Any]
    code: dict[str, str]
    checkpoint: str | None
    #: every measurement that holds a value; those that hold a reason instead are left out
    measured: frozenset[MeasurementKey]


class CellRow(NamedTuple):
    """One planned cell and the newest attempt at it, whose fields are None where there was none."""

    cell_id: str
    task: str
    method: str
    options: str
    frames: int
    resolution: int
    batch_size: int
    precision: str
    attention: str
    optimizer: str
    pretrained: bool
    seed: int
    dataset: str | None
    memory_cap_bytes: int | None
    result_id: int | None
    run_id: str | None
    outcome: Outcome | None
    reason: str | None
    device: str | None
    seconds: float | None
    notes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Readings:
    """One metric of one kind, from one source, about one device, over many results.

    A result is in `values` with the highest of its repetitions, or in `reasons` with why there is no value, or in neither.
    """

    kind: str
    source: str
    device: str
    values: dict[int, float | int]
    reasons: dict[int, str]
