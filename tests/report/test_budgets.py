"""Matched, or by how much not: worked by hand."""

import pytest
from report_samples import add_run, learned, record, result, training_cell

from benchctl.report.budgets import MATCHED, WITHIN, percent, verdicts, whole, written
from benchctl.report.over_seeds import Trained, read
from benchctl.report.table import Absent, Selection
from benchctl.store.store import Store

Budget = tuple[str, float, float | None]


def used(store: Store, given: dict[str, tuple[Budget, list[float | None]]]) -> dict[str, object]:
    """The verdict by method: `given` has each one's budget and what its seeds used of it."""
    pairs = [(training_cell(m, seed=s, budget=budget), share) for m, (budget, shares) in given.items() for s, share in enumerate(shares)]
    add_run(store, record("r"), [c for c, _ in pairs], [learned(c, 0.5, used=share) for c, share in pairs])
    found: Trained = read(store, Selection())
    return {t.first.method: said for t, said in zip(found.of, verdicts(found.of, found.uses))}


FLOPS: Budget = ("train_gflops", 2e6, None)


def test_off_the_amount(store: Store) -> None:
    said = used(store, {"a": (FLOPS, [1.0, 1.005]), "b": (FLOPS, [1.0, 0.968]), "c": (FLOPS, [1.25, 1.0])})
    assert said == {"a": MATCHED, "b": "unmatched: 3.2 % off", "c": "unmatched: 25.0 % off"}


def test_off_each_other_within_the_amount(store: Store) -> None:
    """Both are within 1 % of the amount and 1.6 % from one another; the third is within 1 % of both."""
    said = used(store, {"a": (FLOPS, [0.992]), "b": (FLOPS, [1.008]), "c": (FLOPS, [1.0])})
    assert said == {"a": "unmatched: 1.6 % off", "b": "unmatched: 1.6 % off", "c": MATCHED}


@pytest.mark.parametrize(("match_on", "tolerance", "share", "expected"), [
    ("samples", None, 1.02, "unmatched: 2.0 % off"),
    ("wall_seconds", None, 1.02, MATCHED),
    ("energy_j", None, 0.95, "unmatched: 5.0 % off"),
    ("v100_gpu_hours", None, 0.975, MATCHED),
    ("samples", 0.05, 1.02, MATCHED),
    ("wall_seconds", 0.001, 1.002, "unmatched: 0.2 % off"),
    ("samples", 0.01, 1.01, MATCHED),
    ("samples", 0.0001, 1.0004, "unmatched: 0.04 % off"),
])  # fmt: skip
def test_tolerances(store: Store, match_on: str, tolerance: float | None, share: float, expected: str) -> None:
    assert used(store, {"a": ((match_on, 5000.0, tolerance), [share])}) == {"a": expected}


def test_other_budgets_on_the_same_data_are_marked(store: Store) -> None:
    given = {"a": (("samples", 4800.0, None), [1.0]), "b": (("samples", 9600.0, None), [1.0]), "c": (("steps", 300.0, None), [1.0, 0.9])}
    assert used(store, given) == {"a": WITHIN, "b": WITHIN, "c": "unmatched: 10.0 % off"}


def test_counts_say_what_was_used_where_nothing_else_does(store: Store) -> None:
    """300 steps of 16 clips were trained."""
    said = used(store, {"a": (("samples", 4800.0, None), [None]), "b": (FLOPS, [None]), "c": (("steps", 400.0, None), [None])})
    assert said == {"a": WITHIN, "b": Absent("use not recorded"), "c": "unmatched: 25.0 % off"}


def test_what_did_not_end_well_used_nothing_that_compares(store: Store) -> None:
    cells = [training_cell(seed=s, budget=FLOPS) for s in range(2)]
    add_run(store, record("r"), cells, [learned(cells[0], 0.5), result(cells[1], outcome="diverged", reason="NaN")])
    found = read(store, Selection())
    assert (found.uses[0].shares, verdicts(found.of, found.uses)) == ((1.0,), [MATCHED])


def test_numbers_in_words() -> None:
    assert [percent(share) for share in (0, 0.032, 0.0004, 1)] == ["0.0 %", "3.2 %", "0.04 %", "100.0 %"]
    assert [written(amount) for amount in (2e6, 0.5, 4800)] == ["2,000,000", "0.5", "4,800"]
    assert [whole(number) for number in (0.1 * 3 * 10, 4799.5)] == [3, 4799.5]
