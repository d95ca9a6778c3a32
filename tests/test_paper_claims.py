"""Claims: those that ship are about cells that their suites have; the forms, judged by hand."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pin_samples import pin, results

from benchctl import claims, plan, suite_file
from benchctl.claims import Claim, Judgement, Word
from benchctl.errors import UsageError
from benchctl.record import Outcome
from benchctl.spec import Cell

FILES = claims.shipped()
SHIPPED = [(name, claim) for name, path in FILES.items() for claim in claims.load(path).claims]


@cache
def planned(suite: str) -> plan.Plan:
    loaded = suite_file.load(suite)
    return plan.expand(loaded, plan.resolve_data(loaded, None, absent=True))


def test_there_are_four_or_more_of_each_paper() -> None:
    papers = [name for name, _ in SHIPPED]
    assert set(papers) == {"emim", "moose", "moss", "movt", "time"}
    assert len(papers) >= 25
    assert min(map(papers.count, papers)) >= 4


@pytest.mark.parametrize(("paper", "claim"), SHIPPED, ids=[f"{paper}/{claim.name}" for paper, claim in SHIPPED])
def test_each_side_is_one_cell_of_its_suite_over_seeds(paper: str, claim: Claim) -> None:
    for side in claim.sides:
        found = []
        for cell in planned(claim.suite).cells:
            made = pin(cell=cell.id, method=cell.method, task=cell.task, seed=cell.seed, **options(cell), **shape(cell))
            if cell.task == claim.task and side.fits(made):
                found.append(cell)
        assert len({cell.model_copy(update={"seed": 0, "start": None}).id for cell in found}) == 1, side
        assert len(found) == (1 if claim.task == "profile" else 3), side
        # the command that a reader is told picks these, and nothing that is not a seed of them
        picked = planned(claim.suite).only((side.glob(claim.task),)).cells
        others = [cell for cell in picked if cell not in found]
        assert all(cell in picked for cell in found)
        # and what they start from, where they start from something
        assert bool(others) == side.started, side


def options(cell: Cell) -> dict[str, str]:
    words = cell.variant.removeprefix(cell.method).strip("()").split()
    start = [word.removeprefix("start=") for word in words if word.startswith("start=")]
    return {"options": " ".join(word for word in words if not word.startswith("start=")), "start": "".join(start)}


def shape(cell: Cell) -> dict[str, Any]:
    return {**cell.shape.model_dump(), "precision": cell.precision, "attention": cell.attention}


def judged(claim: dict[str, Any], cells: Sequence[Any] | None) -> Judgement:
    base = {"name": "it", "says": "so", "where": "Table 1", "suite": "lamp"}
    return claims.judge("lamp", Claim.model_validate({**base, **claim}), None if cells is None else results(*cells, suite="lamp"))


def scores(method: str, *values: float, options: str = "") -> list[Any]:
    return [pin(method=method, options=options, task="train", seed=seed, values={"top1 cpu": value}) for seed, value in enumerate(values)]


ABOVE: dict[str, Any] = {"metric": "top1", "left": {"method": "moss-tiny"}, "right": {"method": "vit-tiny"}, "above": 0}


@pytest.mark.parametrize(
    ("left", "right", "word"),
    [
        ((0.9, 0.91, 0.92), (0.5, 0.51, 0.5), Word.HOLDS),
        ((0.5, 0.51, 0.5), (0.9, 0.91, 0.92), Word.CONTRADICTED),
        ((0.5, 0.6, 0.7), (0.5, 0.62, 0.66), Word.UNDECIDED),
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), Word.UNDECIDED),
    ],
)
def test_scores_are_judged_by_an_interval(left: tuple[float, ...], right: tuple[float, ...], word: Word) -> None:
    said = judged(ABOVE, scores("moss-tiny", *left) + scores("vit-tiny", *right))
    assert said.word is word
    assert said.effect == pytest.approx(sum(left) / 3 - sum(right) / 3)
    wanted = "benchctl run lamp --only 'moss-tiny/train/*x*x*/*/*' --only 'vit-tiny/train/*x*x*/*/*' --set 'seeds=[0, 1, 2, 3, 4, 5]'"
    assert said.command == (wanted if word is Word.UNDECIDED else "")


def test_a_fall_is_compared_with_a_fall() -> None:
    claim = {
        "metric": "top1",
        "left": {"method": "movt-tiny", "options": {"train_fraction": 0.1}},
        "left_from": {"method": "movt-tiny"},
        "right": {"method": "pixt-tiny", "options": {"train_fraction": 0.1}},
        "right_from": {"method": "pixt-tiny"},
    }
    cells = [
        *scores("movt-tiny", 0.9, 0.91, 0.92),
        *scores("movt-tiny", 0.8, 0.82, 0.81, options="train_fraction=0.1"),
        *scores("pixt-tiny", 0.9, 0.88, 0.89),
        *scores("pixt-tiny", 0.3, 0.33, 0.3, options="train_fraction=0.1"),
    ]
    said = judged(claim, cells)
    assert said.word is Word.HOLDS
    assert said.effect == pytest.approx((0.81 - 0.91) - (0.31 - 0.89))


def test_two_trainings_are_no_evidence_and_what_is_missing_is_named() -> None:
    said = judged(ABOVE, scores("moss-tiny", 0.9, 0.91) + scores("vit-tiny", 0.5, 0.51, 0.5))
    assert said.word is Word.UNDECIDED
    assert said.test == "3 trainings are needed of each; there are 2 of moss-tiny"
    assert said.command == "benchctl run lamp --only 'moss-tiny/train/*x*x*/*/*'"
    assert judged(ABOVE, None).command == "benchctl run lamp --only 'moss-tiny/train/*x*x*/*/*' --only 'vit-tiny/train/*x*x*/*/*'"


RATIO: dict[str, Any] = {
    "task": "profile",
    "metric": "macs all",
    "left": {"method": "moss-tiny", "frames": 8},
    "right": {"method": "vit-tiny"},
    "ratio": 0.7,
}


@pytest.mark.parametrize(("macs", "word"), [(70, Word.HOLDS), (71, Word.CONTRADICTED)])
def test_counts_are_exact(macs: int, word: Word) -> None:
    said = judged(RATIO, [pin(method="moss-tiny", values={"macs all": macs}), pin(method="vit-tiny", values={"macs all": 100})])
    assert (said.word, said.effect, said.interval) == (word, macs / 100, None)


def test_ends() -> None:
    claim = {"task": "profile", "left": {"method": "moss-tiny"}, "right": {"method": "vit-tiny"}, "ends": ["ok", "oom"]}
    cells = [pin(method="moss-tiny"), pin(method="vit-tiny", outcome=Outcome.OOM, reason="48 GiB")]
    assert judged(claim, cells).word is Word.HOLDS
    assert judged({**claim, "ends": ["ok", "ok"]}, cells).word is Word.CONTRADICTED
    assert judged(claim, cells[:1]).word is Word.UNDECIDED


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("above: 0", "a claim has one of 'ratio', 'above', 'left_from' with 'right_from', and 'ends'"),
        ("ratio: 0.5, metric: top1", "a ratio is of counts or memory, a difference of scores"),
        ("ratio: 0.5, metric: macz", "no metric is called 'macz'"),
        ("ratoi: 0.5", "unknown key; did you mean 'ratio'?"),
    ],
)
def test_a_claim_that_cannot_be_is_named(tmp_path: Path, change: str, message: str) -> None:
    file = tmp_path / "lamp.yaml"
    given = {"name": "it", "says": "so", "where": "there", "suite": "lamp", "metric": "macs all", "ratio": "0.5"}
    given |= dict(each.split(": ") for each in change.split(", "))
    if "above" in given:
        given["ratio"] = "0.5"
    keys = "".join(f"    {name}: {value}\n" for name, value in given.items())
    file.write_text(
        f"paper: lamp\ntitle: A lamp\nclaims:\n  - left: {{method: moss-tiny}}\n    right: {{method: vit-tiny}}\n{keys}", encoding="utf-8"
    )
    with pytest.raises(UsageError) as caught:
        claims.load(file)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{file}:")
