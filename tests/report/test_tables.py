"""What tables say about cells, in base units."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from report_samples import CAP, GIB, METHODS, UNCALIBRATED, add_run, cell, predicted, record, result, sweep, trained

from benchctl import lookup
from benchctl.errors import Inconclusive, UnknownName
from benchctl.record import Measurement
from benchctl.report import efficiency, memory
from benchctl.report.render import render
from benchctl.report.table import Absent, Selection, Table
from benchctl.store.store import Store

#: what every table gives a program, whatever else it has
PROMISED = (
    "method task frames resolution batch_size precision params trainable_params macs flops peak_memory_bytes memory_kind memory_source "
    "outcome top1 top5 seconds run cell"
).split()


def rows(table: Table) -> list[dict[str, object]]:
    return [dict(zip([c.name for c in table.columns], row, strict=True)) for row in table.rows]


@pytest.mark.parametrize("name", sorted(lookup.entries("table")))
def test_every_table_keeps_the_promise(scaling: Store, name: str) -> None:
    document = json.loads(render(lookup.load("table", name).build(scaling, Selection()), "json"))
    assert (document["schema_version"], document["table"]) == (1, name)
    assert set(PROMISED) <= {column["name"] for column in document["columns"]}
    names = [column["name"] for column in document["columns"]]
    assert len(set(names)) == len(names)
    assert all(list(row) == names for row in document["rows"])


def test_an_efficiency_row_is_what_was_measured(scaling: Store) -> None:
    row = next(r for r in rows(efficiency.build(scaling, Selection())) if r["method"] == "timesformer-b" and r["resolution"] == 224)
    expected = predicted(cell("timesformer-b"))
    assert row["params"] == row["trainable_params"] == 121_566_000
    assert (row["macs"], row["flops"]) == (196_050_000_000, 392_100_000_000)
    assert row["peak_memory_bytes"] == expected.value("peak_memory_bytes", kind="allocated")
    assert (row["memory_source"], row["memory_kind"], row["memory_device"], row["memory_cap_bytes"]) == (
        "predicted",
        "allocated",
        "cuda",
        CAP,
    )
    assert (row["outcome"], row["seconds"], row["run"], row["cell"]) == ("ok", 2.5, "scaling", expected.cell_id)
    assert isinstance(row["top1"], Absent)
    assert isinstance(row["latency_seconds"], Absent)


def test_costs_stand_with_and_without_flow(store: Store) -> None:
    cells = [cell(), cell("videomae-b"), cell("side4video-b")]
    counts = {"timesformer-b": (9, 9), "videomae-b": (9, 4)}
    results = [
        result(c, *(Measurement(metric="macs", kind=kind, value=value) for kind, value in zip(("all", "without_flow"), counts[c.method])))
        for c in cells[:2]
    ]
    older = result(cells[2], Measurement(metric="macs", kind="all", value=9))
    add_run(store, record("r"), cells, [*results, older])
    table = efficiency.build(store, Selection())
    assert "without flow" in render(table, "text")
    assert "without flow" not in render(replace(table, rows=table.rows[1:2]), "text")
    found = {row["method"]: (row["macs"], row["macs_without_flow"]) for row in rows(table)}
    assert found["timesformer-b"] == (9, 9)
    assert found["videomae-b"] == (9, 4)
    assert isinstance(found["side4video-b"][1], Absent)


def test_rows_are_grouped_by_method_and_grow(scaling: Store) -> None:
    for build in (efficiency.build, memory.build):
        keys = [(r["method"], r["batch_size"], r["frames"], r["resolution"]) for r in rows(build(scaling, Selection()))]
        assert keys == sorted(keys)


def test_what_is_out_of_memory_keeps_its_prediction_and_says_so(scaling: Store) -> None:
    found = {(r["method"], r["batch_size"], r["frames"], r["resolution"]): r for r in rows(efficiency.build(scaling, Selection()))}
    row = found["timesformer-b", 1, 8, 1024]
    assert row["outcome"] == "oom"
    assert row["peak_memory_bytes"] > CAP
    assert row["latency_seconds"] == Absent("oom")
    assert row["top1"] == Absent("n/a"), "a profile has no accuracy to lose"


def test_a_measured_value_stands_before_a_prediction(training: Store) -> None:
    (row,) = rows(efficiency.build(training, Selection()))
    assert (row["peak_memory_bytes"], row["memory_source"], row["memory_device"]) == (3 * GIB, "measured", "cuda")
    assert (row["top1"], row["top5"], row["latency_seconds"], row["latency_device"]) == (0.625, 1.0, 0.0125, "cuda")
    assert (row["dataset"], row["task"], row["optimizer"]) == ("egogestar", "train", "adamw")
    assert row["macs"] == Absent("n/a")


def test_the_memory_table_has_every_reading(training: Store) -> None:
    found = rows(memory.build(training, Selection()))
    assert [(r["memory_source"], r["memory_kind"], r["peak_memory_bytes"]) for r in found] == [
        ("measured", "allocated", 3 * GIB),
        ("predicted", "allocated", 2 * GIB),
        ("measured", "device", Absent("unavailable")),
    ]


def test_the_split_belongs_to_what_was_allocated(scaling: Store) -> None:
    for row in rows(memory.build(scaling, Selection())):
        parts = (row["parameters_bytes"], row["activations_bytes"])
        if row["memory_kind"] == "allocated":
            assert sum(parts) == row["peak_memory_bytes"]
        else:
            assert parts == (Absent("n/a"), Absent("n/a"))


def test_a_cell_that_was_not_run_yet_has_a_row_that_says_so(store: Store) -> None:
    done, waiting, failed = cell(), cell(frames=16), cell(frames=32)
    add_run(store, record("r"), [done, waiting, failed], [predicted(done), result(failed, outcome="failed", reason="no such kernel")])
    for build in (efficiency.build, memory.build):
        table = build(store, Selection())
        found = {r["frames"]: r for r in rows(table)}
        assert found[16]["outcome"] == found[16]["params"] == found[16]["peak_memory_bytes"] == found[16]["run"] == Absent("not run")
        assert found[32]["outcome"] == "failed"
        assert found[32]["params"] == Absent("failed")
        assert "Failed: no such kernel (1 of 3 cells: timesformer-b)." in table.notes
        assert json.loads(render(table, "json"))["rows"]


def test_the_newest_attempt_counts_and_older_runs_stay_as_they_were(store: Store) -> None:
    c = cell()
    add_run(store, record("old"), [c], [result(c, Measurement(metric="params", value=1))])
    add_run(store, record("new"), [c], [result(c, Measurement(metric="params", value=2))])
    assert [r["params"] for r in rows(efficiency.build(store, Selection()))] == [2]
    assert [(r["params"], r["run"]) for r in rows(efficiency.build(store, Selection(run="old")))] == [(1, "old")]


def test_footnotes_say_what_a_reader_must_know_once(scaling: Store) -> None:
    notes = efficiency.build(scaling, Selection()).notes
    assert notes == (f"Predicted memory is {UNCALIBRATED} (all cells).", "Weights: random (all cells).")


def test_footnotes_of_a_measured_cell(training: Store) -> None:
    assert efficiency.build(training, Selection()).notes == (
        "MACs and FLOPs leave out operators that could not be counted: aten::sin (the cell).",
        "Unreadable clips (1), left out: a|b.mp4 (the cell).",
    ), "its prediction is not shown, so its calibration is not either"
    shown = memory.build(training, Selection()).notes
    assert shown[0] == "Predicted memory is of unknown calibration: the result does not say (the cell)."
    assert shown[1] == "Peak memory (measured, device, cuda) is unavailable: this process is not listed by the driver (the cell)."


def test_footnotes_name_some_and_count_the_rest(store: Store) -> None:
    cells = [cell(f"method-{i}") for i in range(6)]
    padded = [result(c, notes={"padding": "1024 to 1036 pixels", "unreadable_clips": [f"{i}.mp4" for i in range(5)]}) for c in cells[:5]]
    add_run(store, record("r"), cells, [*padded, result(cells[5])])
    about = "(5 of 6 cells: method-0, method-1, method-2 and 2 more methods)."
    assert efficiency.build(store, Selection()).notes == (
        f"Padding: 1024 to 1036 pixels {about}",
        f"Unreadable clips (5), left out: 0.mp4, 1.mp4, 2.mp4 and 2 more clips {about}",
    )


@pytest.mark.parametrize("build", [efficiency.build, memory.build])
def test_nothing_to_report(store: Store, database: Path, build) -> None:
    for selection in (Selection(), Selection(suite="s"), Selection(run="r")):
        with pytest.raises(Inconclusive, match=r"the database holds no results yet; run a suite first") as caught:
            build(store, selection)
        assert caught.value.exit_code == 4
        assert str(database) in str(caught.value)
    store.begin_run(record("r", suite="memory_scaling"), sweep())
    with pytest.raises(Inconclusive, match="suite 'memory_scaling' has no results yet"):
        build(store, Selection(suite="memory_scaling"))
    with pytest.raises(UnknownName, match="did you mean 'memory_scaling'"):
        build(store, Selection(suite="memory-scaling"))
    with pytest.raises(UnknownName, match="unknown run 'q'"):
        build(store, Selection(run="q"))


def test_two_suites_side_by_side(scaling: Store) -> None:
    c = cell("timesformer-tiny")
    add_run(scaling, record("tiny", suite="quickstart"), [c], [trained(c)])
    assert len(efficiency.build(scaling, Selection()).rows) == len(sweep()) + 1
    assert len(efficiency.build(scaling, Selection(suite="quickstart")).rows) == 1
    assert {r["method"] for r in rows(efficiency.build(scaling, Selection(suite="memory_scaling")))} == set(METHODS)
