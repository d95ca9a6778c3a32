"""How long a report over 1,000,000 measurements takes. Run with `pytest benchmarks/bench_report.py --benchmark-enable`.

The limit of 2 s is for 10,000 cells of 100 measurements, most of them repetitions that no table shows. With 50,000 cells of 20 nearly
every measurement is shown, in 200,000 rows of the memory table, and the time is that of writing these; it is only recorded.
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert

from benchctl.recipe import Recipe
from benchctl.record import UNITS, Environment, RunRecord
from benchctl.report import efficiency, memory
from benchctl.report.render import render
from benchctl.report.table import Selection
from benchctl.spec import Cell
from benchctl.store import schema
from benchctl.store.store import Store
from benchctl.vocabulary import ClipShape

MEASUREMENTS = 1_000_000
LIMIT_SECONDS = 2.0
CHUNK = 200
GIB = 2**30
NOTES = json.dumps({"weights": "random", "prediction_calibration": "synthetic"})
#: metric, kind, source, device; the rest of a cell's measurements are repetitions of its latency
KEYS = [
    ("params", "", "measured", ""),
    ("trainable_params", "", "measured", ""),
    ("macs", "all", "measured", ""),
    ("macs", "without_attention", "measured", ""),
    ("flops", "all", "measured", ""),
    *(("peak_memory_bytes", kind, source, "cuda") for source in ("measured", "predicted") for kind in ("allocated", "reserved")),
    *(("memory_at_peak_bytes", kind, "predicted", "cuda") for kind in ("parameters", "gradients", "optimizer", "activations", "workspace")),
    *(("latency_seconds", kind, "measured", "cuda") for kind in ("p50", "p90", "p99")),
]


def fill(store: Store, cells: int) -> None:
    """`cells` finished cells with `MEASUREMENTS` measurements in all; written in bulk, as `add_result` would one by one."""
    environment = Environment(benchctl="0", python="3", platform="linux", cpu="x", cpu_cores=2, memory_bytes=GIB)
    planned = [
        Cell(
            task="profile",
            method=f"method-{i % 20}",
            config={"number": i},
            shape=ClipShape(frames=8 + i % 7, resolution=224 + 14 * (i % 11), batch_size=1 + i % 3),
            precision="fp32",
            attention="eager",
            pretrained=False,
            pad=False,
            num_classes=400,
            seed=i,
            recipe=Recipe(),
            memory_cap_bytes=48 * GIB,
        )
        for i in range(cells)
    ]
    record = RunRecord(run_id="bench", suite="bench", suite_json="{}", command="bench", started_at="2026", environment=environment)
    store.begin_run(record, planned)
    repeated = MEASUREMENTS // cells - len(KEYS)
    with store._write() as connection:
        for start in range(0, cells, CHUNK):
            chunk = list(enumerate(planned[start : start + CHUNK], start + 1))
            connection.execute(insert(schema.measurements), [row for number, _ in chunk for row in measurements(number, repeated)])
            connection.execute(insert(schema.results), [result(number, cell) for number, cell in chunk])


def result(number: int, cell: Cell) -> dict[str, object]:
    return {
        "result_id": number,
        "run_id": "bench",
        "cell_id": cell.id,
        "outcome": "ok",
        "reason": None,
        "device": "cuda",
        "started_at": "2026",
        "seconds": 1.0,
        "notes": NOTES,
        "code": "{}",
        "checkpoint": None,
        "measured": "[]",
    }


def measurements(number: int, repeated: int) -> Iterator[dict[str, object]]:
    keys = [(*key, 0) for key in KEYS] + [("latency_seconds", "each", "measured", "cuda", rep) for rep in range(repeated)]
    for metric, kind, source, device, rep in keys:
        value = 0.01 + number * 1e-7 if metric == "latency_seconds" else number * 1_000_000
        yield {
            "result_id": number,
            "metric": metric,
            "kind": kind,
            "source": source,
            "device": device,
            "rep": rep,
            "value": value,
            "unit": UNITS[metric],
            "reason": None,
        }


@pytest.fixture(scope="module", params=[10_000, 50_000], ids=lambda cells: f"{cells} cells")
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / f"{request.param}.db"
    with Store.open(path) as store:
        fill(store, request.param)
    return path


@pytest.mark.parametrize("form", ["text", "csv", "json"])
@pytest.mark.parametrize("table", [efficiency, memory], ids=["efficiency", "memory"])
def test_report(benchmark, database, table, form):
    def report() -> str:
        with Store.open(database, read_only=True) as store:
            return render(table.build(store, Selection()), form)

    text = benchmark.pedantic(report, rounds=3, iterations=1)
    if form == "csv":
        with Store.open(database, read_only=True) as store, store._read() as connection:
            held = connection.exec_driver_sql("SELECT count(*) FROM measurements").scalar_one()
        assert held == MEASUREMENTS
        assert sum(1 for _ in csv.reader(io.StringIO(text))) - 1 >= MEASUREMENTS // 100
    if benchmark.stats and database.stem == "10000":
        assert benchmark.stats.stats.min < LIMIT_SECONDS


def test_latest_results(benchmark, database):
    """What a plan asks of 10,000 cells."""
    with Store.open(database, read_only=True) as store:
        with store.snapshot() as snapshot:
            ids = [cell.cell_id for cell in snapshot.cells()][:10_000]
        found = benchmark.pedantic(store.latest_results, (ids,), rounds=3, iterations=1)
    assert len(found) == 10_000
