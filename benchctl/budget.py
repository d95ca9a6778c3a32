"""What every method is given equally, and what it may use at most."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from benchctl.vocabulary import ClipShape, Count, Share, Vocabulary, one_or_more

#: what can be given equally: counted before training, or read off a clock or a meter while it runs
Spent = Literal["steps", "samples", "frames_seen", "train_gflops", "wall_seconds", "v100_gpu_hours", "energy_j"]
COUNTED: tuple[Spent, ...] = ("steps", "samples", "frames_seen", "train_gflops")
TIMED: tuple[Spent, ...] = ("wall_seconds", "v100_gpu_hours", "energy_j")
#: how far actual use may be from the amount where a budget does not say, as a share of it
TOLERANCE, TIMED_TOLERANCE = 0.01, 0.03
#: versions of the tables that say what an hour of a GPU is in hours of a V100, see `benchctl.gpu_rates`
GpuTable = Literal["moose-v1", "peak-dense16-v1", "lambda-fp16-v1"]


class Caps(Vocabulary):
    """What a training may use at most, beside what is matched. The first cap that is reached ends it."""

    steps: Count | None = None
    samples: PositiveFloat | None = None
    frames_seen: PositiveFloat | None = None
    #: 1e9 floating-point operations of training, two for a multiply-accumulate, forward and backward
    train_gflops: PositiveFloat | None = None
    wall_seconds: PositiveFloat | None = None
    v100_gpu_hours: PositiveFloat | None = None
    energy_j: PositiveFloat | None = None
    #: a cell that would need more is skipped before it costs anything
    peak_memory_gib: PositiveFloat | None = None
    trainable_params: PositiveFloat | None = None


class Budget(Vocabulary):
    """What every method is given equally, and what it may use at most."""

    match_on: Spent
    amount: PositiveFloat
    caps: Caps = Caps()
    #: how far actual use may be from the amount, as a share of it; null: 1 % of what is counted, 3 % of what is timed
    tolerance: float | None = Field(None, gt=0, lt=1)
    #: shares of the budget after which the test clips are judged; the time that this takes is outside the budget
    evaluate_at: Annotated[tuple[Share, ...], one_or_more(Share)] = (0.25, 0.5, 0.75, 1.0)
    #: top-1 accuracy (0 to 1) whose first time is recorded
    target_top1: Share | None = None
    #: whose factors `v100_gpu_hours` are counted with
    gpu_table: GpuTable = "moose-v1"

    @model_validator(mode="after")
    def _matched_once(self) -> Self:
        if getattr(self.caps, self.match_on) is not None:
            raise ValueError(f"'{self.match_on}' is matched, so it needs no cap: its amount is one")
        return self

    @property
    def tolerated(self) -> float:
        """`tolerance`, or what stands for it."""
        return self.tolerance or (TIMED_TOLERANCE if self.match_on in TIMED else TOLERANCE)

    @property
    def limits(self) -> dict[Spent, float]:
        """The amount of what is matched, then the caps of what is used up by training."""
        caps = {name: getattr(self.caps, name) for name in (*COUNTED, *TIMED)}
        return {self.match_on: self.amount, **{name: float(cap) for name, cap in caps.items() if cap is not None}}

    def part(self, share: float) -> Budget:
        """A share of it, for a training that nobody judges on the way."""
        caps: dict[str, float | None] = {name: limit * share for name, limit in self.limits.items() if name != self.match_on}
        caps |= {"peak_memory_gib": self.caps.peak_memory_gib, "trainable_params": self.caps.trainable_params}
        if self.caps.steps is not None:
            caps["steps"] = max(1, round(self.caps.steps * share))
        return self.model_copy(
            update={"amount": self.amount * share, "caps": Caps.model_validate(caps), "evaluate_at": (1.0,), "target_top1": None}
        )

    def per_step(self, name: Spent, shape: ClipShape, step_flops: float | None) -> float:
        """What one step at `shape` uses up of `name`; a step takes `step_flops` floating-point operations."""
        if name == "train_gflops":
            assert step_flops is not None, "counted before training"
            return step_flops / 1e9
        return {"steps": 1.0, "samples": shape.batch_size, "frames_seen": shape.batch_size * shape.frames}[name]

    def too_small(self, shape: ClipShape, step_flops: float | None) -> str | None:
        """Why not even one step fits the counted limits, or None; `step_flops` None: they are not looked at."""
        for name, limit in self.limits.items():
            if name not in COUNTED or (name == "train_gflops" and step_flops is None):
                continue
            one = self.per_step(name, shape, step_flops)
            if limit < one:
                return f"{name} of {limit:g} are less than one step, which takes {one:g}"
        return None

    def steps(self, shape: ClipShape, step_flops: float | None = None) -> int | None:
        """Training steps at `shape` after which the first counted limit is reached, to the nearest; at least one.

        None where only a clock or a meter ends it, or where operations are limited and a step was not counted.
        """
        counted = [(name, amount) for name, amount in self.limits.items() if name in COUNTED]
        if not counted or (step_flops is None and "train_gflops" in self.limits):
            return None
        return max(1, min(round(amount / self.per_step(name, shape, step_flops)) for name, amount in counted))
