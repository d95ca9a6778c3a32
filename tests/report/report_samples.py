"""Databases as `memory_scaling` and a training suite leave it, with invented numbers of the right size."""

from collections.abc import Sequence
from typing import Any

from benchctl.record import CellResult, Environment, Measurement, RunRecord
from benchctl.spec import Cell, ClipShape, Recipe
from benchctl.store.store import Store

GIB = 2**30
CAP = 48 * GIB
UNCALIBRATED = "uncalibrated: no prediction has been paired with a measurement on a GPU"
#: method -> (parameters in M, MACs in G, GiB per clip of 8 x 224, growth with the resolution)
METHODS = {
    "timesformer-b": (121.566, 196.05, 2.38, 2.0),
    "videomae-b": (86.53, 180.34, 1.9, 3.2),
    "side4video-b": (107.4, 175.97, 0.81, 2.1),
}
ENVIRONMENT = Environment(benchctl="0.1.0", python="3.11.2", platform="linux", cpu="x", cpu_cores=2, memory_bytes=GIB)


def cell(method: str = "timesformer-b", frames: int = 8, resolution: int = 224, batch: int = 1, **changes: Any) -> Cell:
    values: dict[str, Any] = {
        "task": "profile",
        "method": method,
        "config": {},
        "shape": ClipShape(frames=frames, resolution=resolution, batch_size=batch),
        "precision": "fp32",
        "attention": "eager",
        "pretrained": False,
        "pad": True,
        "num_classes": 400,
        "seed": 0,
        "recipe": Recipe(optimizer="sgd"),
        "memory_cap_bytes": CAP,
    }
    return Cell(**{**values, **changes})


def result(of: Cell, *measurements: Measurement, **changes: Any) -> CellResult:
    values = {"cell_id": of.id, "outcome": "ok", "started_at": "2026-01-01T00:00:00+00:00", "seconds": 2.5}
    return CellResult(**{**values, **changes}, measurements=measurements)


def predicted(of: Cell) -> CellResult:
    """What a machine without a GPU says about a cell."""
    params, macs, gib, growth = METHODS[of.method]
    scale = of.shape.batch_size * of.shape.frames / 8 * (of.shape.resolution / 224) ** growth
    peak = int((gib * scale + params * 4e6 * 2 / GIB) * GIB)
    device = {"source": "predicted", "device": "cuda"}
    numbers = [
        Measurement(metric="params", value=int(params * 1e6)),
        Measurement(metric="trainable_params", value=int(params * 1e6)),
        Measurement(metric="macs", kind="all", value=int(macs * 1e9 * of.shape.frames / 8)),
        Measurement(metric="macs", kind="without_attention", value=7),
        Measurement(metric="flops", kind="all", value=int(2e9 * macs * of.shape.frames / 8)),
        Measurement(metric="peak_memory_bytes", kind="allocated", value=peak, **device),
        Measurement(metric="peak_memory_bytes", kind="reserved", value=int(peak * 1.05), **device),
        Measurement(metric="memory_at_peak_bytes", kind="parameters", value=int(params * 4e6), **device),
        Measurement(metric="memory_at_peak_bytes", kind="activations", value=peak - int(params * 4e6), **device),
    ]
    over = {"outcome": "oom", "reason": f"needs {peak} bytes"} if peak > CAP else {}
    notes = {"prediction_calibration": UNCALIBRATED, "weights": "random"}
    return result(of, *numbers, notes=notes, device="none", **over)


def record(run_id: str, suite: str = "memory_scaling", wording: str = "{}") -> RunRecord:
    return RunRecord(
        run_id=run_id,
        suite=suite,
        suite_json=wording,
        command="benchctl run",
        started_at="2026-01-01T00:00:00+00:00",
        environment=ENVIRONMENT,
    )


def add_run(store: Store, run: RunRecord, cells: Sequence[Cell], results: Sequence[CellResult]) -> None:
    store.begin_run(run, cells)
    for one in results:
        store.add_result(run.run_id, one)
    store.finish_run(run.run_id, "finished")


def sweep() -> list[Cell]:
    return [
        *(cell(m, resolution=r) for m in METHODS for r in (224, 336, 448, 672, 896, 1024)),
        *(cell(m, frames=t, batch=16) for m in METHODS for t in (8, 16, 32, 64, 128)),
    ]


def trained(of: Cell) -> CellResult:
    """What a training cell on a GPU leaves behind."""
    cuda = {"device": "cuda"}
    numbers = [
        Measurement(metric="params", value=700_000),
        Measurement(metric="top1", value=0.625),
        Measurement(metric="top5", value=1.0),
        Measurement(metric="latency_seconds", kind="p50", value=0.0125, **cuda),
        Measurement(metric="peak_memory_bytes", kind="allocated", value=3 * GIB, **cuda),
        Measurement(metric="peak_memory_bytes", kind="allocated", value=2 * GIB, source="predicted", **cuda),
        Measurement(metric="peak_memory_bytes", kind="device", value=None, reason="this process is not listed by the driver", **cuda),
    ]
    return result(of, *numbers, device="cuda", notes={"unreadable_clips": ["a|b.mp4"], "uncounted_operators": {"aten::sin": 2}})
