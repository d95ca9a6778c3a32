"""The accuracy table: means over seeds as the definition has them, and a word wherever there is none."""

import json
import math

import pytest
from report_samples import GIB, add_run, cell, gpu_numbers, learned, record, result, training_cell

from benchctl.errors import Inconclusive
from benchctl.recipe import Recipe
from benchctl.record import CellResult, Measurement
from benchctl.report import accuracy
from benchctl.report.render import render
from benchctl.report.table import Absent, Selection, Table
from benchctl.spec import Cell
from benchctl.store.store import Store


def rows(table: Table) -> list[dict[str, object]]:
    return [dict(zip([c.name for c in table.columns], row, strict=True)) for row in table.rows]


def built(store: Store, *results: tuple[Cell, CellResult]) -> list[dict[str, object]]:
    add_run(store, record("r"), [c for c, _ in results], [r for _, r in results])
    return rows(accuracy.build(store, Selection()))


def trained(top1: float, *more: Measurement, method: str = "moss-tiny", seed: int = 0, **changes: object) -> tuple[Cell, CellResult]:
    left = {name: changes.pop(name) for name in ("used", "notes", "device") if name in changes}
    made = training_cell(method, seed=seed, **changes)
    return made, learned(made, top1, *more, **left)


def test_three_seeds_worked_by_hand(store: Store) -> None:
    (row,) = built(store, *(trained(top1, seed=s) for s, top1 in enumerate((0.60, 0.62, 0.67))))
    deviation = math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2)
    assert row["top1"] == pytest.approx(0.63)
    assert row["top1_deviation"] == pytest.approx(deviation)
    assert row["top1_interval"] == pytest.approx(4.302653 * deviation / math.sqrt(3), rel=1e-6)
    assert (row["top1_min"], row["top1_max"], row["seeds"], row["seeds_scored"]) == (0.60, 0.67, 3, 3)
    assert row["top5"] == pytest.approx(0.93)
    assert (row["steps"], row["train_seconds"], row["train_flops"], row["stall_fraction"]) == (300, 121.0, 32 * 10**12, 0.02)
    assert (row["budget"], row["match_on"], row["budget_amount"], row["budget_used"]) == ("matched", "samples", 4800, 4800)
    assert (row["outcome"], row["run"], row["views"]) == ("ok", "r", "1x1")


def test_one_seed_has_no_interval(store: Store) -> None:
    (row,) = built(store, trained(0.6))
    assert row["top1"] == 0.6
    assert row["top1_interval"] == row["top1_deviation"] == row["budget_used_range"] == Absent("one seed")


def test_a_seed_that_did_not_end_well_is_not_dropped_in_silence(store: Store) -> None:
    lost = training_cell(seed=2)
    pairs = [trained(0.60, seed=0), trained(0.64, seed=1), (lost, result(lost, outcome="diverged", reason="a loss of NaN"))]
    (row,) = built(store, *pairs)
    assert (row["seeds"], row["seeds_scored"], row["outcome"], row["top1"]) == (3, 2, "2 ok, 1 diverged", pytest.approx(0.62))
    text = render(accuracy.build(store, Selection()), "text")
    assert "moss-tiny: of 3 seeds, 2 ok, 1 diverged; the mean is over those that ended ok." in text
    assert "Diverged: a loss of NaN (1 of 3 cells: moss-tiny)." in text


def test_where_no_seed_ended_well_there_is_a_word(store: Store) -> None:
    lost = training_cell()
    (row,) = built(store, (lost, result(lost, outcome="oom", reason="no memory")))
    for name in ("top1", "top1_interval", "top5", "budget", "budget_used", "steps", "train_seconds", "macs", "peak_memory_bytes"):
        assert row[name] == Absent("oom"), name
    assert (row["seeds"], row["seeds_scored"], row["outcome"]) == (1, 0, "oom")


def test_the_best_come_first_and_stand_above_the_best_single_frame(store: Store) -> None:
    found = built(
        store,
        trained(0.5, method="a"),
        trained(0.7, method="b"),
        trained(0.2, method="c", frames=1),
        trained(0.3, method="a", frames=1),
        trained(0.9, method="d", frames=1, budget=("samples", 9600, None)),
    )
    assert [(r["method"], r["frames"]) for r in found] == [("b", 8), ("a", 8), ("a", 1), ("c", 1), ("d", 1)]
    assert [r["above_floor"] for r in found[:2]] == [pytest.approx(0.4), pytest.approx(0.2)]
    assert {r["above_floor"] for r in found[2:]} == {Absent("single frame")}
    notes = accuracy.build(store, Selection()).notes
    assert "Above single frame: over the best training that sees one frame (a on motion_shapes with 4,800 clips, 30.00 %)." in notes
    assert "Rows on motion_shapes have different budgets (4,800 clips; 9,600 clips): only those of one budget compare." in notes


def test_one_arranged_frame_is_not_a_single_frame(store: Store) -> None:
    """A TIME layer works on one frame, into which it put sixteen: it is no floor, and stands above it."""
    found = built(
        store,
        trained(0.2, method="a", frames=1),
        trained(0.6, method="time", frames=1, notes={"frames_read": 16}),
    )
    assert [(r["method"], r["above_floor"]) for r in found] == [("time", pytest.approx(0.4)), ("a", Absent("single frame"))]


def test_without_a_floor_nothing_stands_above_it(store: Store) -> None:
    (row,) = built(store, trained(0.5))
    assert row["above_floor"] == Absent("n/a")
    assert "single" not in render(accuracy.build(store, Selection()), "text")


def test_unmatched_budgets_are_marked_and_named(store: Store) -> None:
    found = built(store, trained(0.5, method="a"), trained(0.6, method="b", used=0.9), trained(0.7, method="b", seed=1, used=0.95))
    assert {r["method"]: r["budget"] for r in found} == {"a": "matched", "b": "unmatched: 10.0 % off"}
    row = found[0]
    assert (row["budget_used"], row["budget_used_range"], row["budget_used_fraction"]) == (4440, 240, pytest.approx(0.925))
    said = "Not matched on 4,800 clips: used more or less of it than the tolerance of 1 % allows: b (90.0 % to 95.0 %)."
    assert said in accuracy.build(store, Selection()).notes


def target(seconds: float | None, why: str = "never reached 50 %") -> Measurement:
    return Measurement(metric="seconds_to_target", value=seconds, reason=None if seconds else why)


@pytest.mark.parametrize(
    ("reached", "expected"),
    [
        ((10.0, 30.0), 20.0),
        ((10.0, None), Absent("reached by 1 of 2 seeds")),
        ((None, None), Absent("never reached 50 %")),
    ],
)
def test_time_to_target_is_a_mean_of_all_or_none(store: Store, reached: tuple[float | None, ...], expected: object) -> None:
    (row,) = built(store, *(trained(0.5, target(seconds), seed=s) for s, seconds in enumerate(reached)))
    assert row["seconds_to_target"] == expected
    assert row["flops_to_target"] == Absent("n/a")
    text = render(accuracy.build(store, Selection()), "text")
    assert "time to" in text
    assert "FLOPs to" not in text


def test_counts_are_its_own_or_those_of_a_profile_of_the_same_model(store: Store) -> None:
    def profile(of: Cell, macs: int) -> tuple[Cell, CellResult]:
        made = cell(of.method, frames=of.shape.frames, resolution=of.shape.resolution, num_classes=of.num_classes, config=of.config)
        return made, result(made, Measurement(metric="macs", kind="all", value=macs), Measurement(metric="params", value=macs // 1000))

    own, other, none = (
        trained(0.9, Measurement(metric="macs", kind="all", value=7000), method="a"),
        trained(0.8, method="b"),
        trained(0.7, method="c"),
    )
    longer = training_cell("c", frames=16)
    found = built(store, own, other, none, profile(own[0], 5000), profile(other[0], 9000), profile(longer, 1000))
    assert [(r["method"], r["macs"], r["params"]) for r in found] == [
        ("a", 7000, 5),
        ("b", 9000, 9),
        ("c", Absent("n/a"), Absent("n/a")),
    ]


def test_predicted_memory_never_stands_as_measured(store: Store) -> None:
    memory = {"metric": "peak_memory_bytes", "kind": "allocated", "device": "cuda"}
    readings = [Measurement(value=(3 + s) * GIB, **memory) for s in range(2)]
    (row,) = built(store, *(trained(0.5, readings[s], Measurement(value=9 * GIB, source="predicted", **memory), seed=s) for s in range(2)))
    assert (row["peak_memory_bytes"], row["memory_source"], row["memory_kind"]) == (4 * GIB, "measured", "allocated")


def test_what_learns_numbers_has_a_correlation(store: Store) -> None:
    cells = [training_cell(seed=s, targets=("x", "y")) for s in range(2)]
    values = ((0.2, 0.4), (0.6, 0.8))
    results = [
        result(
            c, *(Measurement(metric="pearson_r", kind=k, value=v) for k, v in zip("xy", each)), Measurement(metric="budget_used", value=1.0)
        )
        for c, each in zip(cells, values)
    ]
    (row,) = built(store, *zip(cells, results))
    assert (row["pearson_r"], row["seeds"], row["seeds_scored"]) == (pytest.approx(0.5), 2, 2)
    assert row["pearson_r_interval"] == pytest.approx(12.7062 * 0.4 / math.sqrt(2) / math.sqrt(2), rel=1e-4)
    assert row["top1"] == row["top5"] == Absent("n/a")


def test_what_notes_say_is_said(store: Store) -> None:
    notes = {"stop_reason": "wall_seconds", "pretraining": {"data": "ImageNet-21k", "gpu_hours": 1200}}
    (row,) = built(store, trained(0.5, notes=notes, recipe=Recipe(eval_clips=2, eval_crops=3)))
    assert (row["stop_reason"], row["pretraining"], row["views"]) == ("wall_seconds", "data: ImageNet-21k, gpu_hours: 1200", "2x3")


@pytest.mark.parametrize("form", ["text", "markdown", "csv", "json", "latex"])
def test_every_form_has_every_row(store: Store, form: str) -> None:
    built(store, trained(0.5, *gpu_numbers(), seed=0), trained(0.123456789, seed=1), trained(0.25, method="vit-b", frames=1, device="cpu"))
    table = accuracy.build(store, Selection())
    out = render(table, form)  # type: ignore[arg-type]
    assert "moss-tiny" in out
    assert "vit-b" in out
    if form == "json":
        found = json.loads(out)["rows"]
        assert [r["top1"] for r in found] == [pytest.approx((0.5 + 0.123456789) / 2, rel=1e-15), 0.25]
        assert found[1]["top1_interval"] is None
        assert {type(value) for row in found for value in row.values()} <= {int, float, str, type(None)}
    elif form != "csv":
        assert "one seed" in out


def test_a_selection_without_trainings_says_so(scaling: Store, store: Store) -> None:
    table = accuracy.build(scaling, Selection())
    assert table.rows == ()
    assert table.notes == ("No selected cell trains: only trainings have rows here.",)
    assert "No selected cell trains" in render(table, "text")


def test_nothing_was_run(store: Store) -> None:
    with pytest.raises(Inconclusive, match="no results yet"):
        accuracy.build(store, Selection())


def test_a_training_that_was_not_run_yet_has_a_row(store: Store) -> None:
    done, waiting = training_cell("a"), training_cell("b")
    add_run(store, record("r"), [done, waiting], [learned(done, 0.5)])
    found = rows(accuracy.build(store, Selection()))
    assert [(r["method"], r["outcome"], r["top1"], r["run"]) for r in found] == [
        ("a", "ok", 0.5, "r"),
        ("b", Absent("not run"), Absent("not run"), Absent("not run")),
    ]


def test_tables_of_single_cells_say_what_was_not_matched(store: Store):
    """Also where no seed is averaged: a score beside another one is a comparison."""
    from benchctl.report import efficiency, memory

    even = [trained(0.5, method="videomae-tiny", seed=s) for s in (0, 1)]
    built(store, *even, *(trained(0.5, seed=s, used=1.05) for s in (0, 1)))
    for table in (efficiency, memory):
        notes = [note for note in table.build(store, Selection()).notes if note.startswith("Not matched on")]
        assert len(notes) == 1
        assert "moss-tiny" in notes[0]
        assert "105.0 %" in notes[0]
