"""What is left of a training's budget: counted before it begins, or read off a clock while it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchctl.budget import COUNTED, TIMED, Budget, Spent
from benchctl.errors import DeviceMissing, UsageError
from benchctl.spec import Cell
from benchctl.vocabulary import ClipShape

#: what is only known while it runs is planned anew from the pace so far; the first steps, in which kernels are chosen and workers start,
#: are no pace, and as many after them are the first that are one
WARMUP_STEPS = 5
PACED_STEPS = 2 * WARMUP_STEPS
#: of sums of seconds
_ROUNDING = 1e-9


@dataclass
class Used:
    """What a training has used so far; kept in its checkpoints."""

    steps: int = 0
    #: time in training steps, data loading included, checkpoints and evaluation not
    seconds: float = 0.0
    #: of those seconds, the ones in which the step waited for its batch
    waited_seconds: float = 0.0
    #: of the whole process, in those seconds
    cpu_seconds: float = 0.0
    #: of the GPU, in those seconds; None: not metered, or no step was made
    joules: float | None = None
    #: `steps`, `seconds` and `joules` when the warm-up was over
    warmup_steps: int = 0
    warmup_seconds: float = 0.0
    warmup_joules: float | None = None

    @property
    def warmup(self) -> Used:
        """What was used when the warm-up was over."""
        return Used(steps=self.warmup_steps, seconds=self.warmup_seconds, joules=self.warmup_joules)

    def note_warmup(self) -> None:
        """Keep what was used so far: the warm-up is over."""
        self.warmup_steps, self.warmup_seconds, self.warmup_joules = self.steps, self.seconds, self.joules

    def add(self, other: Used) -> None:
        """Add what another training used."""
        self.steps += other.steps
        self.seconds += other.seconds
        self.waited_seconds += other.waited_seconds
        self.cpu_seconds += other.cpu_seconds
        if other.joules is not None:
            self.joules = (self.joules or 0.0) + other.joules


@dataclass(frozen=True)
class Allowance:
    """The budget of one training, at its shape, on its device."""

    budget: Budget
    shape: ClipShape
    #: floating-point operations of one step; None: they could not be counted, and nothing depends on them
    step_flops: int | None = None
    #: V100 seconds in a second of this device; None: unknown, and nothing depends on it
    v100_factor: float | None = None

    def amount_used(self, name: Spent, used: Used) -> float:
        """How much of limit `name`, in its own unit."""
        if name in COUNTED:
            return used.steps * self.budget.per_step(name, self.shape, self.step_flops)
        if name == "wall_seconds":
            return used.seconds
        if name == "energy_j":
            assert used.joules is not None or not used.steps, "metered where it is limited"
            return used.joules or 0.0
        assert self.v100_factor is not None, "known where it is limited"
        return used.seconds * self.v100_factor / 3600

    def matched_share(self, used: Used) -> float:
        """Share of the matched amount that was used."""
        return self.amount_used(self.budget.match_on, used) / self.budget.amount

    def share(self, used: Used) -> float:
        """Share of the whole training that is done: of the limit that ends it. From 0 to 1, and never less than before."""
        planned = self.budget.steps(self.shape, self.step_flops)
        counted = used.steps / planned if planned else 0.0
        timed = [self.amount_used(name, used) / limit for name, limit in self.budget.limits.items() if name in TIMED]
        done = max(counted, *timed, 0.0)
        return 1.0 if done > 1 - _ROUNDING else done

    def planned_steps(self, used: Used) -> int:
        """Steps of the whole training, as far as the pace so far tells; at least one more than were made while it goes on.

        Where only counts end it, it is the same number at any time.
        """
        planned = self.budget.steps(self.shape, self.step_flops)
        by_clock = self._steps_by_clock(used)
        if by_clock is None:
            return planned or used.steps + PACED_STEPS
        return min(planned, by_clock) if planned else by_clock

    def _steps_by_clock(self, used: Used) -> int | None:
        """Steps of the whole training at the pace since its warm-up; None: no clock ends it, or there is no pace yet."""
        timed = {name: limit for name, limit in self.budget.limits.items() if name in TIMED}
        paced = used.steps - used.warmup_steps
        if not timed or not used.warmup_steps or paced < WARMUP_STEPS:
            return None
        left = math.inf
        for name, limit in timed.items():
            so_far = self.amount_used(name, used)
            pace = (so_far - self.amount_used(name, used.warmup)) / paced
            left = min(left, (limit - so_far) / pace if pace > 0 else math.inf)
        return None if math.isinf(left) else used.steps + max(1, math.floor(left))

    def end(self, used: Used) -> str | None:
        """The limit that is reached, in words; None: there is more to do."""
        if self.share(used) < 1.0:
            return None
        for name, limit in self.budget.limits.items():
            reached = self.amount_used(name, used) >= limit * (1 - _ROUNDING)
            if not reached and name in COUNTED:
                # to the nearest step
                reached = used.steps >= max(1, round(limit / self.budget.per_step(name, self.shape, self.step_flops)))
            if reached:
                return f"{name}: {'the amount' if name == self.budget.match_on else 'a cap'} of {limit:g} is used up"
        raise AssertionError("a share of 1 is a limit's")


def allowance(cell: Cell, step_flops: int | None, v100_factor: float | str | None, *, metered: bool) -> Allowance:
    """The allowance of `cell`.

    Args:
        cell: it has a budget.
        step_flops: operations of one step, or None where they could not be counted.
        v100_factor: of this device, or None; or the reason why there is none.
        metered: whether the energy of this device can be read.

    Raises:
        UsageError: the budget is less than one step, or operations are limited and could not be counted.
        DeviceMissing: it is limited by what cannot be read here.
    """
    budget = cell.budget
    assert budget is not None, "a cell that learns has a budget"
    limits = budget.limits
    if "v100_gpu_hours" in limits and not isinstance(v100_factor, float | int):
        fix = "match on train_gflops, or name a 'gpu_table' that has it"
        raise DeviceMissing(f"V100-hours cannot be counted here: {v100_factor or 'unknown device'}", where="budget", fix=fix)
    if "energy_j" in limits and not metered:
        raise DeviceMissing("energy cannot be read here", where="budget", fix="match on train_gflops; 'benchctl doctor' says why")
    if "train_gflops" in limits and step_flops is None:
        raise UsageError("a step's operations could not be counted, and the budget limits them", where="budget", fix="match on steps")
    if (reason := budget.too_small(cell.shape, step_flops)) is not None:
        raise UsageError(reason, where="budget", fix="raise the amount, or lower the batch size")
    return Allowance(budget, cell.shape, step_flops, v100_factor if isinstance(v100_factor, float | int) else None)
