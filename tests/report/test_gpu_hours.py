"""GPU-hours: what was recorded, by every table of factors, and in words where a number is not known."""

import pytest
from report_samples import add_run, gpu_numbers, gpu_record, learned, result, training_cell

from benchctl.record import CellResult, Measurement
from benchctl.report import gpu_hours
from benchctl.report.render import render
from benchctl.report.table import Absent, Selection, Table
from benchctl.spec import Cell
from benchctl.store.store import Store

A100 = "NVIDIA A100-SXM4-80GB"


def rows(table: Table) -> list[dict[str, object]]:
    return [dict(zip([c.name for c in table.columns], row, strict=True)) for row in table.rows]


def add(store: Store, *results: tuple[Cell, CellResult], run: str = "r", gpus: tuple[str, ...] = (A100,)) -> None:
    add_run(store, gpu_record(run, *gpus), [c for c, _ in results], [r for _, r in results])


def trained(*numbers: Measurement, method: str = "moss-tiny", seed: int = 0, device: str = "cuda") -> tuple[Cell, CellResult]:
    made = training_cell(method, seed=seed)
    return made, learned(made, 0.5, *numbers, device=device)


def test_hours_are_of_one_training_and_of_all(store: Store) -> None:
    add(store, *(trained(*gpu_numbers(seconds), seed=s) for s, seconds in enumerate((7200.0, 3600.0))))
    (row,) = rows(gpu_hours.build(store, Selection()))
    assert (row["gpu"], row["gpu_seconds"], row["gpu_seconds_total"]) == (A100, 5400.0, 10800.0)
    assert (row["factor_moose_v1"], row["v100_gpu_seconds_moose_v1"]) == (2.5, 13500.0)
    assert (row["factor_lambda_fp16_v1"], row["v100_gpu_seconds_lambda_fp16_v1"]) == (2.36, pytest.approx(5400 * 2.36))
    assert (row["energy_joules"], row["cpu_seconds"], row["train_seconds"]) == (1.8e6, 3600.0, 120.5)
    text = render(gpu_hours.build(store, Selection()), "text")
    assert "V100-hours" in text
    line = next(line for line in text.splitlines() if line.startswith("moss-tiny"))
    assert {"1.50", "3.00", "3.75", "3.54", "0.50", "1.00"} <= set(line.split())


def test_a_lost_seed_took_its_hours_too(store: Store) -> None:
    lost = training_cell(seed=1)
    spent = Measurement(metric="gpu_seconds", value=1800.0, device="cuda")
    add(store, trained(*gpu_numbers(7200.0)), (lost, result(lost, spent, outcome="diverged", reason="NaN", device="cuda")))
    (row,) = rows(gpu_hours.build(store, Selection()))
    assert (row["gpu_seconds"], row["gpu_seconds_total"], row["seeds"], row["seeds_done"]) == (7200.0, 9000.0, 2, 1)
    assert row["outcome"] == "1 ok, 1 diverged"


def test_a_gpu_that_a_table_lacks_has_no_factor(store: Store) -> None:
    add(store, trained(*gpu_numbers(moose_v1="no factor for NVIDIA H100 PCIe")), gpus=("NVIDIA H100 PCIe",))
    (row,) = rows(gpu_hours.build(store, Selection()))
    assert row["factor_moose_v1"] == row["v100_gpu_seconds_moose_v1"] == Absent("unknown GPU")
    assert row["factor_peak_dense16_v1"] == 2.5
    note = "V100-hours of moose-v1 is unavailable: no factor for NVIDIA H100 PCIe (the cell)."
    assert note in gpu_hours.build(store, Selection()).notes


def test_a_training_on_a_cpu_says_so(store: Store) -> None:
    reason = {"value": None, "reason": "trained on a CPU", "device": "cpu"}
    numbers = [
        Measurement(metric="gpu_seconds", **reason),
        Measurement(metric="v100_gpu_seconds", kind="moose-v1", **reason),
        Measurement(metric="energy_joules", value=None, reason="no NVIDIA driver"),
        Measurement(metric="cpu_seconds", value=7200.0, device="cpu"),
    ]
    add(store, trained(*numbers, device="cpu"), gpus=(A100,))
    (row,) = rows(gpu_hours.build(store, Selection()))
    assert row["gpu"] == Absent("trained on a CPU"), "whatever GPU the machine has"
    for name in ("gpu_seconds", "gpu_seconds_total", "factor_moose_v1", "v100_gpu_seconds_moose_v1", "energy_joules"):
        assert row[name] == Absent("no GPU"), name
    assert row["cpu_seconds"] == 7200.0
    notes = " ".join(gpu_hours.build(store, Selection()).notes)
    assert "Energy is unavailable: no NVIDIA driver" in notes
    assert "GPU-hours are" not in notes


def test_different_gpus_have_no_raw_mean(store: Store) -> None:
    first, second = trained(*gpu_numbers(7200.0)), trained(*gpu_numbers(3600.0, moose_v1="no factor"), seed=1)
    add(store, first, run="r1")
    store.begin_run(gpu_record("r2", "NVIDIA L40S"), [first[0], second[0]])
    store.add_result("r2", second[1])
    (row,) = rows(gpu_hours.build(store, Selection()))
    assert row["gpu"] == f"{A100}; NVIDIA L40S"
    assert (row["gpu_seconds"], row["gpu_seconds_total"]) == (Absent("different GPUs"), 10800.0)
    assert row["v100_gpu_seconds_moose_v1"] == Absent("different GPUs"), "one of two seeds has no factor"
    assert row["v100_gpu_seconds_peak_dense16_v1"] == pytest.approx(5400 * 2.5)


def test_a_machine_with_two_kinds_of_gpu_may_have_used_either(store: Store) -> None:
    add(store, trained(*gpu_numbers()), gpus=(A100, A100, "Tesla T4"))
    (row,) = rows(gpu_hours.build(store, Selection()))
    assert row["gpu"] == f"{A100} or Tesla T4"


def test_a_machine_that_names_no_gpu(store: Store) -> None:
    add(store, trained(*gpu_numbers()), gpus=())
    (row,) = rows(gpu_hours.build(store, Selection()))
    assert row["gpu"] == Absent("unknown GPU")


def test_nothing_was_recorded(store: Store) -> None:
    add(store, trained())
    (row,) = rows(gpu_hours.build(store, Selection()))
    assert (row["gpu"], row["gpu_seconds"], row["energy_joules"], row["cpu_seconds"]) == (A100, *(Absent("n/a"),) * 3)


def test_energy_that_could_not_be_read(store: Store) -> None:
    add(store, trained(*gpu_numbers(energy="the driver does not count it")))
    table = gpu_hours.build(store, Selection())
    assert rows(table)[0]["energy_joules"] == Absent("unavailable")
    assert "Energy is unavailable: the driver does not count it (the cell)." in table.notes


def test_another_table_of_factors_has_columns_of_its_own(store: Store) -> None:
    add(store, trained(*gpu_numbers(100.0), Measurement(metric="v100_gpu_seconds", kind="ours-v2", value=300.0, device="cuda")))
    (row,) = rows(gpu_hours.build(store, Selection()))
    assert (row["factor_ours_v2"], row["v100_gpu_seconds_ours_v2"]) == (3.0, 300.0)


def test_published_hours_are_not_among_them(store: Store) -> None:
    add(store, trained(Measurement(metric="gpu_seconds", value=1e6, source="published", device="cuda")))
    (row,) = rows(gpu_hours.build(store, Selection()))
    assert row["gpu_seconds"] == Absent("n/a")


@pytest.mark.parametrize("form", ["text", "markdown", "csv", "json", "latex"])
def test_every_form(store: Store, form: str) -> None:
    add(store, trained(*gpu_numbers()), trained(*gpu_numbers(), method="vit-b", seed=1))
    out = render(gpu_hours.build(store, Selection()), form)  # type: ignore[arg-type]
    assert "moss-tiny" in out
    assert "vit-b" in out
    assert A100 in out
