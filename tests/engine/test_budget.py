"""What ends a training, and when: counted limits, clocks, caps, and the first of several."""

from __future__ import annotations

import pytest
from training_cells import cell

from benchctl.budget import Budget, Caps
from benchctl.engine.budget import Allowance, Used, allowance
from benchctl.errors import DeviceMissing, UsageError
from benchctl.spec import DatasetRef
from benchctl.vocabulary import ClipShape

SHAPE = ClipShape(frames=4, resolution=32, batch_size=8)
STEP = 2_000_000_000


def allowed(match_on: str, amount: float, *, factor: float | None = None, **caps: float) -> Allowance:
    return Allowance(Budget(match_on=match_on, amount=amount, caps=Caps(**caps)), SHAPE, STEP, factor)


def steps_made(given: Allowance, seconds_per_step: float = 0.1) -> tuple[int, str]:
    """Step by step, as the engine does it."""
    used = Used(joules=0.0)
    while (reason := given.end(used)) is None:
        used.steps += 1
        used.seconds += seconds_per_step
        used.joules += 5.0
    return used.steps, reason


@pytest.mark.parametrize(
    ("match_on", "amount", "steps"),
    [
        ("steps", 7, 7),
        ("samples", 80, 10),
        ("samples", 84, 10),  # 10.5 steps: to the nearest, even
        ("samples", 85, 11),
        ("frames_seen", 320, 10),
        ("train_gflops", 200, 100),
        ("train_gflops", 201.1, 101),
        ("wall_seconds", 2.05, 21),
        ("energy_j", 100, 20),
    ],
)
def test_one_limit(match_on: str, amount: float, steps: int):
    given = allowed(match_on, amount)
    made, reason = steps_made(given)
    assert made == steps
    assert reason == f"{match_on}: the amount of {amount:g} is used up"


def test_v100_hours_are_seconds_times_the_factor():
    # 0.1 s of a GPU that is 2.5 V100s are 0.25 V100 seconds
    assert steps_made(allowed("v100_gpu_hours", 10 / 3600, factor=2.5))[0] == 40


@pytest.mark.parametrize(
    ("caps", "steps", "reason"),
    [
        ({"steps": 30}, 30, "steps: a cap of 30 is used up"),
        ({"samples": 160, "steps": 30}, 20, "samples: a cap of 160 is used up"),
        ({"wall_seconds": 1.0}, 10, "wall_seconds: a cap of 1 is used up"),
        ({"steps": 300}, 100, "train_gflops: the amount of 200 is used up"),
    ],
)
def test_the_first_of_several_ends_it(caps: dict[str, float], steps: int, reason: str):
    assert steps_made(allowed("train_gflops", 200, **caps)) == (steps, reason)


def test_counted_budgets_are_met_within_a_hundredth():
    for amount in (101.0, 333.3, 1234.5):
        given = allowed("train_gflops", amount)
        made, _ = steps_made(given)
        assert given.matched_share(Used(steps=made)) == pytest.approx(1, abs=0.01)


def test_energy_before_the_first_step_is_none():
    given = allowed("energy_j", 100)
    assert given.end(Used()) is None
    assert given.share(Used(steps=1, joules=25.0)) == 0.25
    assert given.end(Used(steps=4, joules=100.0)) == "energy_j: the amount of 100 is used up"


def test_a_timed_budget_is_planned_anew_from_its_pace():
    given = allowed("wall_seconds", 10.0)
    assert given.planned_steps(Used(steps=9, seconds=2.4, warmup_steps=5, warmup_seconds=2.0)) == 9 + 10  # no pace yet
    # 2 seconds for the first five steps, and a tenth of one for each since
    assert given.planned_steps(Used(steps=10, seconds=2.5, warmup_steps=5, warmup_seconds=2.0)) == 10 + 75
    assert given.planned_steps(Used(steps=50, seconds=8.0, warmup_steps=5, warmup_seconds=0.8)) == 50 + 12  # it became slower
    assert given.planned_steps(Used(steps=50, seconds=10.0, warmup_steps=5, warmup_seconds=0.8)) == 51
    assert given.share(Used(steps=50, seconds=8.0)) == 0.8
    # the plan of a counted one is the same at any time
    assert {allowed("steps", 40).planned_steps(Used(steps=n, seconds=9.0 * n)) for n in range(40)} == {40}


def test_shares_grow_from_0_to_1():
    given = allowed("wall_seconds", 1.0, steps=9)
    shares = [given.share(Used(steps=n, seconds=0.11 * n)) for n in range(10)]
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert shares[-1] == 1


def make(match_on: str, amount: float, flops: int | None = STEP, factor: float | str | None = None, *, metered: bool = False) -> Allowance:
    budget = Budget(match_on=match_on, amount=amount)
    return allowance(cell(DatasetRef(name="motion_shapes"), budget=budget), flops, factor, metered=metered)


def test_what_cannot_be_read_here_is_said_before_anything_is_done():
    with pytest.raises(DeviceMissing, match="budget: V100-hours cannot be counted here: a CPU; match on train_gflops"):
        make("v100_gpu_hours", 1, factor="a CPU")
    with pytest.raises(DeviceMissing, match="budget: energy cannot be read here"):
        make("energy_j", 100)
    assert make("energy_j", 100, metered=True)
    assert make("v100_gpu_hours", 1, factor=2.5).v100_factor == 2.5
    assert make("steps", 1, factor="a CPU").v100_factor is None


def test_a_budget_of_less_than_a_step():
    with pytest.raises(UsageError, match="budget: train_gflops of 1 are less than one step, which takes 2; raise the amount"):
        make("train_gflops", 1)
    with pytest.raises(UsageError, match="could not be counted, and the budget limits them; match on steps"):
        make("train_gflops", 100, flops=None)
    assert make("steps", 3, flops=None).step_flops is None
