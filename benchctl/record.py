"""What a run leaves behind: measurements, outcomes, cell results, and the environment they came from.

A worker writes one `CellResult` as JSON; the runner validates it with these classes before it is stored. Values are in
base units (bytes, seconds, counts). No value is a word with a reason, never 0, -1 or NaN.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

RESULT_SCHEMA_VERSION: Literal[1] = 1

Source = Literal["measured", "predicted", "published"]

#: metric -> unit. A metric that is not here cannot be recorded: a typing error must not make a new column.
UNITS: dict[str, str] = {
    "params": "count",
    "trainable_params": "count",
    "macs": "count",
    "flops": "count",
    "uncounted_operators": "count",
    "peak_memory_bytes": "bytes",
    "memory_at_peak_bytes": "bytes",
    "latency_seconds": "seconds",
    "throughput_clips_per_second": "clips/second",
    "top1": "fraction",
    "top5": "fraction",
    "trial_top1": "fraction",
    "loss": "nats",
    "reconstruction_loss": "squared error",
    "scaled_squared_error": "variance",
    "pearson_r": "correlation",
    "rmse": "target units",
    "ranks": "count",
    "communication_fraction": "fraction",
    "steps": "count",
    "samples": "count",
    "frames_seen": "count",
    "train_seconds": "seconds",
    "planned_steps": "count",
    "train_step_flops": "count",
    "train_flops": "count",
    "budget_used": "fraction",
    "stall_fraction": "fraction",
    "seconds_to_target": "seconds",
    "flops_to_target": "count",
    "gpu_seconds": "seconds",
    "cpu_seconds": "seconds",
    "v100_gpu_seconds": "seconds",
    "energy_joules": "joules",
    "gpu_utilisation": "fraction",
    "sm_clock_hertz": "hertz",
    "throttled_fraction": "fraction",
    "clips": "count",
    "unreadable_clips": "count",
}


class Outcome(StrEnum):
    """How a cell ended. `oom` is compared, not a failure."""

    OK = "ok"
    OOM = "oom"
    TIMEOUT = "timeout"
    DIVERGED = "diverged"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    SKIPPED = "skipped"

    @property
    def final(self) -> bool:
        """Whether running the same command again skips a cell that ended so."""
        return self in (Outcome.OK, Outcome.OOM, Outcome.DIVERGED)

    @property
    def failure(self) -> bool:
        """Whether the run as a whole counts it as failed (exit code 1)."""
        return self in (Outcome.TIMEOUT, Outcome.DIVERGED, Outcome.FAILED)


class Record(BaseModel):
    """Frozen, closed base of everything recorded."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Measurement(Record):
    """One number.

    `kind` qualifies the metric: for memory `allocated`, `reserved`, `device` or `rss`; for `memory_at_peak_bytes` the
    category (`parameters`, `gradients`, `optimizer`, `activations`, `workspace`, ...); for latency `p50`, `p90`, `p99`; for
    `macs` one of `all`, `without_attention`, `without_correlation`, `without_flow` and `windowed`, which are papers' conventions; for
    `train_step_flops` and `train_flops` `executed` or `algorithmic`; for `v100_gpu_seconds` the table that its factor is from. What was
    seen on the way, at a share of the budget, is of the kind that names the share: `25%`.
    `device` says which device the number is about (`cuda`, `cpu`), or is empty where that does not matter. `value` is None exactly
    when `reason` says why there is none.
    """

    metric: str
    value: float | int | None
    unit: str = ""
    source: Source = "measured"
    kind: str = ""
    device: str = ""
    rep: int = 0
    reason: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_unit(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("unit"):
            data = {**data, "unit": UNITS.get(data.get("metric", ""), "")}
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.metric not in UNITS:
            raise ValueError(f"metric '{self.metric}' is not in the vocabulary")
        if self.unit != UNITS[self.metric]:
            raise ValueError(f"{self.metric} is in {UNITS[self.metric]}, not {self.unit}")
        if (self.value is None) != (self.reason is not None):
            raise ValueError(f"{self.metric}: a missing value needs a reason, and a value needs none")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"{self.metric}: {self.value} is not a number that can be stored")
        return self


class Gpu(Record):
    """One GPU as the driver names it."""

    name: str
    uuid: str
    memory_bytes: int


class Environment(Record):
    """Where a number came from. What could not be read is None."""

    benchctl: str
    python: str
    platform: str
    cpu: str
    cpu_cores: int
    memory_bytes: int
    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    cuda: str | None = None
    packages: dict[str, str] = Field(default_factory=dict)
    decoders: tuple[str, ...] = ()
    git_commit: str | None = None
    git_dirty: bool | None = None

    @property
    def digest(self) -> str:
        """What tells it from every other one."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


class CellResult(Record):
    """What one worker says about one cell. The file form is this class as JSON."""

    schema_version: Literal[1] = RESULT_SCHEMA_VERSION
    cell_id: str
    outcome: Outcome
    #: why the outcome is not `ok`, one line
    reason: str | None = None
    measurements: tuple[Measurement, ...] = ()
    #: facts that are not numbers: unreadable clips, uncounted operators by name, padding, decoder, weights
    notes: dict[str, Any] = Field(default_factory=dict)
    #: digests of the code that produced this, by room; a later change makes the cell stale and says which room changed
    code: dict[str, str] = Field(default_factory=dict)
    #: the device the worker executed on: `cuda`, `cpu`, or `none` when nothing was executed
    device: str = "none"
    started_at: str
    seconds: float = Field(ge=0)
    checkpoint: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.outcome is not Outcome.OK and not self.reason:
            raise ValueError(f"outcome '{self.outcome}' needs a reason")
        keys = [(m.metric, m.kind, m.source, m.device, m.rep) for m in self.measurements]
        if len(set(keys)) != len(keys):
            raise ValueError("two measurements share metric, kind, source, device and repetition")
        return self

    def value(self, metric: str, **which: str) -> float | int | None:
        """The first value of `metric` whose fields match `which` (`kind`, `source`, `device`), or None; of no kind before of any."""
        found = [m for m in self.measurements if m.metric == metric and all(getattr(m, k) == v for k, v in which.items())]
        return next((m.value for m in sorted(found, key=lambda m: m.kind != "")), None)


def packed(ids: Sequence[str], right: Sequence[bool]) -> dict[str, Any]:
    """Per-clip correctness in little space: `ids` as one digest, since two results are only comparable over the same clips.

    20,000 clips take 3.4 kB.
    """
    bits = sum(1 << place for place, one in enumerate(right) if one)
    return {
        "clips": len(ids),
        "ids_sha256": hashlib.sha256("\0".join(ids).encode()).hexdigest(),
        "bits": base64.b64encode(bits.to_bytes(-(-len(ids) // 8), "little")).decode(),
    }


def correctness(note: Mapping[str, Any]) -> tuple[bool, ...]:
    """What `packed` was given, clip by clip in the order of `ids`."""
    bits = int.from_bytes(base64.b64decode(note["bits"]), "little")
    return tuple(bool(bits >> place & 1) for place in range(int(note["clips"])))


class RunRecord(Record):
    """One `benchctl run`: what was asked for, and where."""

    run_id: str
    suite: str
    #: the suite after `--set`, as canonical JSON
    suite_json: str
    command: str
    started_at: str
    environment: Environment
