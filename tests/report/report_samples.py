"""Databases as `memory_scaling` and a training suite leave it, with invented numbers of the right size."""

import json
from collections.abc import Sequence
from typing import Any

from benchctl.recipe import Recipe
from benchctl.record import CellResult, Environment, Gpu, Measurement, RunRecord
from benchctl.spec import Cell, DatasetRef
from benchctl.store.store import Store
from benchctl.vocabulary import ClipShape

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


SHARES = ("25%", "50%", "75%")
#: kind -> factor of a V100 that an invented table gives the GPU of `gpu_record`
FACTORS = {"moose-v1": 2.5, "peak-dense16-v1": 2.5, "lambda-fp16-v1": 2.36}


def training_cell(
    method: str = "moss-tiny", seed: int = 0, *, budget: tuple[str, float, float | None] = ("samples", 4800, None), **changes: Any
) -> Cell:
    """A cell that trains; `budget` is what is matched, its amount, and the tolerance, None: the usual one."""
    values: dict[str, Any] = {
        "task": "train",
        "recipe": Recipe(),
        "dataset": DatasetRef(name="motion_shapes"),
        "data_fingerprint": "f" * 8,
        "num_classes": 8,
        "memory_cap_bytes": None,
        "seed": seed,
        "batch": 16,
        "resolution": 64,
    }
    made = cell(method, **{**values, **changes})
    match_on, amount, tolerance = budget
    content = json.loads(made.canonical)
    content["budget"] = {"match_on": match_on, "amount": amount, **({} if tolerance is None else {"tolerance": tolerance})}
    # as the store keeps it, whatever the vocabulary of budgets
    made.__dict__["canonical"] = json.dumps(content, sort_keys=True, separators=(",", ":"))
    made.__dict__.pop("id", None)
    return made


def learned(of: Cell, top1: float, *more: Measurement, used: float | None = 1.0, curve: Sequence[float] = (), **changes: Any) -> CellResult:
    """What a training leaves behind: `curve` is the accuracy at 25, 50 and 75 % of the budget."""
    device = changes.pop("device", "cuda")
    steps = 300
    seconds, flops = 120.0 + of.seed, 4 * 10**12 * of.shape.frames
    final = [
        Measurement(metric="top1", value=top1, device=device),
        Measurement(metric="top5", value=min(1.0, top1 + 0.3), device=device),
        Measurement(metric="steps", value=steps),
        Measurement(metric="planned_steps", value=steps),
        Measurement(metric="samples", value=steps * of.shape.batch_size),
        Measurement(metric="frames_seen", value=steps * of.shape.batch_size * of.shape.frames),
        Measurement(metric="train_seconds", value=seconds, device=device),
        Measurement(metric="train_flops", kind="executed", value=flops),
        Measurement(metric="train_flops", kind="algorithmic", value=flops),
        Measurement(metric="stall_fraction", value=0.02),
    ]
    if used is not None:
        final.append(Measurement(metric="budget_used", value=used))
    for share, value in zip(SHARES, curve):
        part = float(share[:-1]) / 100
        final += [
            Measurement(metric="top1", kind=share, value=value, device=device),
            Measurement(metric="train_flops", kind=share, value=int(flops * part)),
            Measurement(metric="train_seconds", kind=share, value=seconds * part, device=device),
        ]
    return result(of, *final, *more, device=device, **changes)


def gpu_numbers(gpu_seconds: float = 7200.0, **reasons: str) -> list[Measurement]:
    """What a training on a GPU says that it took; `reasons` why it has no energy, or no factor of a table."""
    energy = None if "energy" in reasons else 1.8e6
    made = [
        Measurement(metric="gpu_seconds", value=gpu_seconds, device="cuda"),
        Measurement(metric="cpu_seconds", value=3600.0, device="cpu"),
        Measurement(metric="energy_joules", value=energy, device="cuda", reason=reasons.get("energy")),
    ]
    for table, factor in FACTORS.items():
        reason = reasons.get(table.replace("-", "_"))
        value = None if reason else gpu_seconds * factor
        made.append(Measurement(metric="v100_gpu_seconds", kind=table, value=value, reason=reason, device="cuda"))
    return made


def gpu_record(run_id: str, *gpus: str) -> RunRecord:
    """A run on a machine with `gpus`."""
    cards = tuple(Gpu(name=name, uuid=f"GPU-{i}", memory_bytes=80 * GIB) for i, name in enumerate(gpus))
    return record(run_id, suite="training").model_copy(update={"environment": ENVIRONMENT.model_copy(update={"gpus": cards})})
