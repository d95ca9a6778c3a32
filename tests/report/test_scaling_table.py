"""Scaling: throughput of all ranks together against one process, and memory of a rank by its source."""

from __future__ import annotations

import pytest
from report_samples import GIB, add_run, gpu_record, learned, training_cell

from benchctl.launch import Launch
from benchctl.record import CellResult, Measurement
from benchctl.report import scaling
from benchctl.report.render import render
from benchctl.report.table import NOT_RECORDED, Selection
from benchctl.spec import Cell
from benchctl.store.store import Store


def trained(
    rate: float, launch: Launch | None = None, *more: Measurement, method: str = "moss-tiny", seed: int = 0
) -> tuple[Cell, CellResult]:
    made = training_cell(method, seed=seed, launch=launch)
    numbers = [Measurement(metric="throughput_clips_per_second", value=rate, kind="training", device="cuda"), *more]
    return made, learned(made, 0.5, *numbers)


def built(store: Store, *results: tuple[Cell, CellResult]) -> list[dict[str, object]]:
    add_run(store, gpu_record("r", "A100"), [c for c, _ in results], [r for _, r in results])
    table = scaling.build(store, Selection())
    return [dict(zip([c.name for c in table.columns], row, strict=True)) for row in table.rows]


def test_efficiency_is_against_one_rank_of_the_same_engine_and_else_against_the_plain_process(store: Store) -> None:
    zero2 = [Launch(engine="deepspeed", zero=2, gpus=n) for n in (1, 4)]
    found = built(
        store,
        trained(300.0, zero2[1]),
        trained(80.0, zero2[0]),
        trained(180.0, Launch(gpus=2)),
        trained(100.0),
        trained(50.0, method="videomae-tiny"),
    )
    said = [(row["method"], row["engine"], row["ranks"], row["speedup"], row["efficiency"], row["baseline"]) for row in found]
    assert said == [
        ("moss-tiny", "plain", 1, 1.0, 1.0, "a plain process"),
        ("moss-tiny", "plain", 2, 1.8, 0.9, "a plain process"),
        ("moss-tiny", "deepspeed", 1, 1.0, 1.0, "one rank of the same engine"),
        ("moss-tiny", "deepspeed", 4, 3.75, 0.9375, "one rank of the same engine"),
        ("videomae-tiny", "plain", 1, 1.0, 1.0, "a plain process"),
    ]
    assert [row["zero"] for row in found] == [NOT_RECORDED, NOT_RECORDED, 2, 2, NOT_RECORDED]


def test_without_one_process_there_is_no_efficiency(store: Store) -> None:
    (row,) = built(store, trained(180.0, Launch(gpus=2)))
    assert (row["throughput_clips_per_second"], row["efficiency"], row["baseline"]) == (180.0, NOT_RECORDED, NOT_RECORDED)


def test_measured_and_predicted_memory_stand_apart(store: Store) -> None:
    measured = Measurement(metric="peak_memory_bytes", kind="allocated", value=3 * GIB, device="cuda")
    predicted = Measurement(metric="peak_memory_bytes", kind="allocated", value=2 * GIB, source="predicted", device="cuda")
    process = Measurement(metric="peak_memory_bytes", kind="process", value=GIB, device="cpu")
    found = built(store, trained(1.0, None, measured, predicted), trained(2.0, Launch(gpus=2), process))
    assert [(r["rank_memory_bytes"], r["rank_memory_kind"], r["predicted_rank_memory_bytes"]) for r in found] == [
        (3 * GIB, "allocated", 2 * GIB),
        (GIB, "whole process", NOT_RECORDED),
    ]
    text = render(scaling.build(store, Selection()), "text")
    assert "Memory of a rank on a CPU is the resident set of its whole process, libraries included." in text


def test_seeds_are_averaged(store: Store) -> None:
    (row,) = built(store, trained(100.0), trained(110.0, seed=1))
    assert row["throughput_clips_per_second"] == pytest.approx(105.0)
    assert row["seeds"] == 2
