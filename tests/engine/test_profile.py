"""What a cell costs, through the same code that a suite runs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from benchctl import lookup, suite_file
from benchctl.engine import profile, work
from benchctl.plan import expand
from benchctl.record import CellResult, Outcome
from benchctl.run.job import Job
from benchctl.run.process import Worker, ask
from benchctl.spec import Cell


class Never:
    def is_set(self) -> bool:
        return False


def cell(method: str, frames: int, resolution: int, batch_size: int = 1, **changes: object) -> Cell:
    text = (
        f"name: t\ntask: profile\nmethods: [{method}]\nsweep: [{{frames: {frames}, resolution: {resolution}, batch_size: {batch_size}}}]\n"
    )
    settings = [f"{key}={value}" for key, value in changes.items()]
    return expand(suite_file.parse(text, Path("t.yaml"), settings)).cells[0]


def memory(result: CellResult, kind: str) -> float:
    value = result.value("peak_memory_bytes", kind=kind, source="predicted", device="cuda")
    assert value is not None
    return value / 2**30


#: method, frames, classes -> parameters (trainable ones for Side4Video) in millions, and G MACs with attention
COUNTS = [
    ("timesformer-b", 8, 400, "params", 121.566, 196.05),
    ("videomae-b", 16, 400, "params", 86.53, 180.34),
    ("side4video-b", 8, 174, "trainable_params", 21.11, 175.97),
    ("side4video-l", 8, 174, "trainable_params", 102.1, 870),
]


@pytest.mark.parametrize(("method", "frames", "classes", "metric", "millions", "macs"), COUNTS, ids=[row[0] for row in COUNTS])
def test_counts_are_the_published_ones(method: str, frames: int, classes: int, metric: str, millions: float, macs: float):
    result = work.predict(cell(method, frames, 224, num_classes=classes, measure=["flops", "params"]))
    assert result.outcome is Outcome.OK, result.reason
    assert result.value(metric) / 1e6 == pytest.approx(millions, rel=0.005)
    assert result.value("macs", kind="all") / 1e9 == pytest.approx(macs, rel=0.005)
    assert result.value("flops") / 2e9 == pytest.approx(macs, rel=0.005)


def test_papers_that_leave_attention_out():
    # VideoMAE-B at 16 frames is 135.17 G in the papers that count with stock fvcore
    result = work.predict(cell("videomae-b", 16, 224, measure=["flops"]))
    assert result.value("macs", kind="without_attention") / 1e9 == pytest.approx(135.17, rel=0.005)


#: TimeSformer-B with SGD and explicit attention in fp32: batch, frames, resolution -> GiB allocated, reserved, as an H200 was seen to
TIMESFORMER = [(1, 8, 224, 2.443, 2.744), (1, 8, 448, 9.150, 9.713), (16, 16, 224, 47.782, 49.998)]


@pytest.mark.parametrize(("batch", "frames", "resolution", "allocated", "reserved"), TIMESFORMER)
def test_predicted_memory_of_timesformer(batch: int, frames: int, resolution: int, allocated: float, reserved: float):
    sgd = {"recipe.optimizer": "sgd", "measure": ["memory"], "gpu": "H200"}
    result = work.predict(cell("timesformer-b", frames, resolution, batch, **sgd))
    assert memory(result, "allocated") == pytest.approx(allocated, rel=0.002)
    assert memory(result, "reserved") == pytest.approx(reserved, rel=0.01)
    split = [m.value for m in result.measurements if m.metric == "memory_at_peak_bytes"]
    assert sum(split) / 2**30 == pytest.approx(memory(result, "allocated"), rel=1e-9)
    assert result.notes["prediction_calibration"].startswith("for the H200; predictions were within 0.9 %")


def test_a_step_over_the_cap_is_oom_with_its_demand():
    result = work.predict(cell("timesformer-b", 8, 1024, memory_cap_gib=48, measure=["memory"]))
    assert result.outcome is Outcome.OOM
    assert result.reason.startswith("predicted: needs 122.3 GiB reserved")
    assert memory(result, "allocated") == pytest.approx(116.2, rel=0.002)


@pytest.mark.parametrize("attention", ["eager", "sdpa", "math", "efficient"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_backend_and_precision_can_be_predicted(attention: str, precision: str):
    result = work.predict(cell("videomae-tiny", 4, 64, 2, attention=attention, precision=precision))
    assert result.outcome is Outcome.OK, result.reason
    assert memory(result, "allocated") > 0
    assert result.value("macs", kind="all") == work.predict(cell("videomae-tiny", 4, 64)).value("macs", kind="all") or attention == "eager"


def test_flash_needs_half_precision_and_says_so():
    refused = work.predict(cell("videomae-tiny", 4, 64, attention="flash"))
    assert refused.outcome is Outcome.FAILED
    assert "flash" in refused.reason
    assert refused.value("peak_memory_bytes") is None
    assert work.predict(cell("videomae-tiny", 4, 64, attention="flash", precision="bf16")).outcome is Outcome.OK


def test_padding_is_said():
    result = work.predict(cell("side4video-tiny", 2, 40, pad="true"))
    assert result.outcome is Outcome.OK
    assert result.notes["padding"] == "40 to 48 pixels: patch 16"


def test_a_cell_that_is_executed_is_measured():
    small = cell("videomae-tiny", 4, 32, 2, measure=["memory", "latency", "flops", "params"])
    result = work.execute(small, work.WorkSettings(device="cpu"), Never())
    assert result.outcome is Outcome.OK
    assert result.device == "cpu"
    for kind in ("allocated", "rss"):
        assert result.value("peak_memory_bytes", kind=kind, source="measured", device="cpu") > 0
    p50, p90, p99 = (result.value("latency_seconds", kind=kind) for kind in ("p50", "p90", "p99"))
    assert 0 < p50 <= p90 <= p99
    samples = [m.value for m in result.measurements if m.metric == "latency_seconds" and m.kind == "sample"]
    assert len(samples) == profile.LATENCY_REPEATS
    assert result.value("throughput_clips_per_second") == pytest.approx(2 / p50)


def test_an_optimizer_with_more_state_needs_more():
    sgd, adamw = (work.predict(cell("videomae-tiny", 4, 32, **{"recipe.optimizer": name})) for name in ("sgd", "adamw"))
    state = {r.cell_id: r.value("memory_at_peak_bytes", kind="optimizer") for r in (sgd, adamw)}
    assert state[adamw.cell_id] > 1.5 * state[sgd.cell_id]


@pytest.mark.parametrize("method", sorted(name for name in lookup.entries("method") if name.endswith("-tiny")))
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_predicted_bytes_of_our_training_step_are_the_real_ones_on_a_cpu(method: str, precision: str):
    """The step that trains, traced for the CPU, against the allocator's own record of it."""
    from benchctl.engine import models
    from benchctl.probes.memory import live_bytes
    from benchctl.probes.prediction import CPU, predict

    of = cell(method, 4, 64, 2, precision=precision, **{"recipe.optimizer": "adamw"})
    trace = predict(
        lambda: models.build(of),
        lambda model: profile.make_step(of, model),
        lambda: profile.example(of, 2),
        attention=of.attention,
        device=CPU,
    )
    model = models.build(of).train()
    batch = profile.example(of, 2)
    steps = []

    def run() -> None:
        steps.append(profile.make_step(of, model))
        for _ in range(2):
            steps[0].backward(steps[0].forward(batch))
            steps[0].update()

    real = live_bytes(run, held=(model, *batch[0], batch[1]))
    assert trace.peak().allocated_bytes == pytest.approx(real.value_bytes, rel=0.005)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
def test_on_a_gpu_both_are_stored(tmp_path: Path):
    """In a worker of its own: where predictions were made, their device takes part in CUDA's backward passes, and breaks them."""
    job = Job(kind="execute", cell=cell("videomae-tiny", 4, 64, 2, measure=["memory", "latency"]), device="cuda")
    worker = Worker(tmp_path / "worker.log", threads=1)
    try:
        result = ask(worker, job, tmp_path, timeout_s=120, stop=threading.Event())
    finally:
        worker.end()
    assert isinstance(result, CellResult), result
    assert result.value("peak_memory_bytes", kind="allocated", source="measured", device="cuda") > 0


def test_memory_of_a_rank_is_that_of_its_micro_batch():
    """Predicted for one of two ranks: half the batch, and gradients that stay; `auto` takes the largest micro-batch under the cap."""
    from training_cells import cell

    from benchctl.launch import Launch
    from benchctl.spec import DatasetRef
    from benchctl.vocabulary import ClipShape

    ref = DatasetRef(name="motion_shapes")
    half = predicted(cell(ref, shape=ClipShape(frames=16, resolution=224, batch_size=4)))
    two = cell(ref, shape=ClipShape(frames=16, resolution=224, batch_size=8), launch=Launch(gpus=2))
    gradients = next(m.value for m in profile.predict_memory(two)[0] if m.kind == "gradients")
    assert half[0] < predicted(two)[0] <= half[0] + 1.01 * gradients
    auto = two.model_copy(update={"launch": Launch(gpus=2, micro_batch="auto"), "memory_cap_bytes": predicted(two)[0] - 1})
    found, notes, reason = profile.predict_memory(auto)
    assert reason is None
    assert notes["micro_batch"] == 2
    assert found[0].value == predicted(two.model_copy(update={"launch": Launch(gpus=2, micro_batch=2)}))[0]
    none_fits = auto.model_copy(update={"memory_cap_bytes": 1 << 20})
    assert "needs" in (profile.predict_memory(none_fits)[2] or "")


def predicted(of):
    allocated, reserved, *_ = profile.predict_memory(of)[0]
    assert allocated.kind == "allocated"
    assert reserved.kind == "reserved"
    return allocated.value, reserved.value
