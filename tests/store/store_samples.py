"""Small runs, cells and results for the tests of the store."""

from typing import Any

from benchctl.recipe import Recipe
from benchctl.record import CellResult, Environment, Measurement, RunRecord
from benchctl.spec import Cell
from benchctl.vocabulary import ClipShape

STARTED = "2026-01-01T00:00:00+00:00"
ENVIRONMENT = Environment(benchctl="0.1.0", python="3.11.2", platform="linux", cpu="x", cpu_cores=2, memory_bytes=2**34)


def cell(number: int = 0, **changes: Any) -> Cell:
    values: dict[str, Any] = {
        "task": "profile",
        "method": "timesformer-b",
        "config": {"number": number},
        "shape": ClipShape(frames=8, resolution=224),
        "precision": "fp32",
        "attention": "eager",
        "pretrained": False,
        "pad": False,
        "num_classes": 400,
        "seed": 0,
        "recipe": Recipe(),
    }
    return Cell(**{**values, **changes})


def run(run_id: str = "run-1", suite: str = "efficiency", wording: str = "{}", **changes: Any) -> RunRecord:
    return RunRecord(
        run_id=run_id, suite=suite, suite_json=wording, command="benchctl run", started_at=STARTED, environment=ENVIRONMENT, **changes
    )


def result(of: Cell, *measurements: Measurement, **changes: Any) -> CellResult:
    values = {"cell_id": of.id, "outcome": "ok", "started_at": STARTED, "seconds": 1.5, "device": "cpu"}
    return CellResult(**{**values, **changes}, measurements=measurements or (Measurement(metric="params", value=7),))
