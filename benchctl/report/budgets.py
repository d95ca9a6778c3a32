"""Whether trainings used what they were given equally. Where they did not, every table that shows them says so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchctl.budget import TIMED, TIMED_TOLERANCE, TOLERANCE
from benchctl.report.table import NOT_RECORDED, Absent, Column, Value
from benchctl.report.trainings import ONE_SEED, Training

#: what may be matched -> unit of its amount
UNITS = {
    "steps": "steps",
    "samples": "clips",
    "frames_seen": "frames",
    "train_gflops": "GFLOPs",
    "wall_seconds": "seconds",
    "v100_gpu_hours": "V100-hours",
    "energy_j": "joules",
}
#: a count that is recorded by its own name says what was used, where nothing else does
COUNTED = ("steps", "samples", "frames_seen")
_ROUNDING = 1e-9
_NAMED = 4

MATCHED = "matched"
#: other rows on the same data have another budget
WITHIN = "matched within its budget"
BUDGET_COLUMNS = (
    Column("budget", "budget"),
    Column("match_on", "matched on", text="varying"),
    Column("budget_amount", "amount of budget", text="varying"),
    Column("budget_unit", "unit of the budget", text="never"),
    # in the unit of what is matched: mean over seeds, and largest less smallest
    Column("budget_used", "budget\nused"),
    Column("budget_used_range", "range over\nseeds"),
    Column("budget_used_fraction", "of the budget", "fraction", show="%", text="never"),
    Column("budget_tolerance", "tolerance", "fraction", show="%", text="never"),
)


@dataclass(frozen=True)
class Given:
    """What a training was given."""

    match_on: str
    amount: float
    tolerance: float

    def __str__(self) -> str:
        return f"{written(self.amount)} {UNITS.get(self.match_on, self.match_on)}"


@dataclass(frozen=True)
class Use:
    """What a training used of it: a share for each seed that ended well, in their order; None where nobody recorded it."""

    given: Given | None
    shares: tuple[float | None, ...]

    @property
    def known(self) -> list[float]:
        """The shares that were recorded."""
        return [share for share in self.shares if share is not None]


def given(training: Training) -> Given | None:
    """The budget of `training`; None: it has none."""
    budget = training.content.get("budget")
    if not budget:
        return None
    match_on = str(budget["match_on"])
    usual = TIMED_TOLERANCE if match_on in TIMED else TOLERANCE
    return Given(match_on, float(budget["amount"]), float(budget.get("tolerance", usual)))


def comparable(of: Sequence[Training]) -> dict[tuple[str, str], dict[tuple[str, float] | None, list[int]]]:
    """The places of trainings by what they are taught and judged by, then by what they were given."""
    found: dict[tuple[str, str], dict[tuple[str, float] | None, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, training in enumerate(of):
        budget = given(training)
        found[training.data][(budget.match_on, budget.amount) if budget else None].append(i)
    return found


def verdicts(of: Sequence[Training], uses: Sequence[Use]) -> list[Value]:
    """For each training: `matched`, `matched within its budget`, `unmatched: 3.2 % off`, or why that is not known.

    It is off by the most that one of its seeds is from the amount; where all rows keep to that, by the most that one of its seeds is
    from a seed of another row.
    """
    said: list[Value] = [NOT_RECORDED] * len(of)
    for budgets in comparable(of).values():
        for places in budgets.values():
            for i, off in _off(uses, places).items():
                said[i] = f"unmatched: {percent(off)} off" if off else MATCHED if len(budgets) == 1 else WITHIN
    for i, (training, use) in enumerate(zip(of, uses)):
        if use.given is None:
            said[i] = Absent("no budget")
        elif not training.done:
            said[i] = training.missing
        elif len(use.known) < len(use.shares):
            said[i] = Absent("use not recorded")
    return said


def _off(uses: Sequence[Use], places: Sequence[int]) -> dict[int, float]:
    """How far each of `places`, all of one budget, is off, as a share of it; 0: not beyond the tolerance."""
    known = {i: uses[i].known for i in places if uses[i].known}
    off = {i: max(abs(share - 1) for share in shares) for i, shares in known.items()}
    off = {i: distance if distance > _allowed(uses[i]) else 0.0 for i, distance in off.items()}
    kept = [share for i, shares in known.items() if not off[i] for share in shares]
    low, high = min(kept, default=1.0), max(kept, default=1.0)
    for i, shares in known.items():
        if not off[i]:
            apart = max(high - min(shares), max(shares) - low)
            off[i] = apart if apart > _allowed(uses[i]) else 0.0
    return off


def _allowed(use: Use) -> float:
    return (use.given.tolerance if use.given else 0.0) + _ROUNDING


def budget_values(training: Training, use: Use, verdict: Value) -> tuple[Value, ...]:
    """The values of `BUDGET_COLUMNS`."""
    if use.given is None:
        return (verdict, *(Absent("no budget"),) * (len(BUDGET_COLUMNS) - 1))
    amount, shares = use.given.amount, use.known
    mean: Value = sum(shares) / len(shares) if shares else training.missing
    spread: Value = training.missing if not shares else ONE_SEED if len(shares) == 1 else (max(shares) - min(shares)) * amount
    return (
        verdict,
        use.given.match_on,
        whole(amount),
        UNITS.get(use.given.match_on, use.given.match_on),
        mean if isinstance(mean, str) else whole(mean * amount),
        spread if isinstance(spread, str) else whole(spread),
        mean,
        use.given.tolerance,
    )


def budget_notes(of: Sequence[Training], labels: Sequence[str], said: Sequence[Value], uses: Sequence[Use]) -> Iterator[str]:
    """What a reader must know about budgets, each thing once."""
    for (dataset, _), budgets in comparable(of).items():
        if len(budgets) > 1:
            amounts = sorted({str(uses[i].given or "no budget") for places in budgets.values() for i in places})
            yield f"Rows on {dataset} have different budgets ({'; '.join(amounts)}): only those of one budget compare."
        for places in budgets.values():
            off = [i for i in places if str(said[i]).startswith("unmatched")]
            budget = uses[places[0]].given
            if off and budget:
                tolerances = sorted({use.given.tolerance for use in (uses[i] for i in off) if use.given})
                those = _listed([f"{labels[i]} ({_used(uses[i])})" for i in off])
                allowed = " or ".join(f"{100 * tolerance:g} %" for tolerance in tolerances)
                yield f"Not matched on {budget}: used more or less of it than the tolerance of {allowed} allows: {those}."


def _used(use: Use) -> str:
    low, high = (percent(share) for share in (min(use.known), max(use.known)))
    return f"{low}" if low == high else f"{low} to {high}"


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - _NAMED
    return ", ".join(texts[:_NAMED]) + (f" and {more} more rows" if more > 0 else "")


def percent(share: float) -> str:
    """`3.2 %`; more digits where that would say 0."""
    hundredths = 100 * share
    return f"{hundredths:.1f} %" if hundredths >= 0.1 or not hundredths else f"{hundredths:.2g} %"


def written(amount: float) -> str:
    """An amount in full."""
    return f"{amount:,.12g}"


def whole(number: float) -> float | int:
    """`number` as an integer where it is one: products of a share and an amount are, up to a rounding error."""
    near = round(number)
    return near if abs(number - near) <= _ROUNDING * max(1.0, abs(number)) else number


def use_of(training: Training, recorded: Mapping[int, float], counted: Mapping[int, float]) -> Use:
    """What `training` used, from the share that its results recorded, else from the count of what is matched, both by result id."""
    budget = given(training)
    if budget is None:
        return Use(None, ())
    shares: list[float | None] = []
    for cell in training.done:
        assert cell.result_id is not None, "what ended well has a result"
        count = counted.get(cell.result_id)
        shares.append(recorded.get(cell.result_id, None if count is None else count / budget.amount))
    return Use(budget, tuple(shares))
