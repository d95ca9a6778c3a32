"""Memory of a rank, predicted without partners, against what real CPU ranks allocate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rank_launch import start_ranks
from training_cells import cell

from benchctl.engine import profile
from benchctl.methods import timesformer
from benchctl.recipe import Recipe
from benchctl.spec import Cell, DatasetRef, Launch
from benchctl.vocabulary import ClipShape

#: promised: how far a prediction is from what real ranks allocate, at most
CLOSE = 0.05


def of(launch: Launch, *, batch_size: int = 8, precision: str = "fp32", **changes: object) -> Cell:
    config = timesformer.Config.model_validate(timesformer.PRESETS["timesformer-tiny"])
    fields: dict[str, object] = {
        "method": "timesformer-tiny",
        "config": config.model_dump(mode="json"),
        "shape": ClipShape(frames=4, resolution=32, batch_size=batch_size),
        "recipe": Recipe(learning_rate=1e-3, clip_gradient_norm=1.0),
        "attention": timesformer.Config.ATTENTION[0],
        "precision": precision,
        "launch": launch,
    }
    return cell(DatasetRef(name="motion_shapes"), **{**fields, **changes})


ZERO = {stage: Launch(engine="deepspeed", zero=stage, gpus=2) for stage in (0, 1, 2, 3)}
#: where activations decide, and not weights
LARGE = ClipShape(frames=8, resolution=64, batch_size=16)


def in_two(launch: Launch) -> Launch:
    """With micro-batches, whose gradients are added up."""
    return launch.model_copy(update={"micro_batch": 2})


@pytest.mark.slow
def test_two_real_ranks_allocate_what_was_predicted(tmp_path: Path):
    """Every stage, and DistributedDataParallel, where weights decide and where activations do."""
    cells = [*map(of, (*ZERO.values(), Launch(gpus=2), in_two(ZERO[2]), in_two(ZERO[3]), in_two(Launch(gpus=2))))]
    cells += [of(launch, shape=LARGE) for launch in (ZERO[1], ZERO[3])]
    jobs, expected, found = (tmp_path / name for name in ("jobs.json", "predicted.json", "measured.json"))
    jobs.write_text(json.dumps([each.model_dump(mode="json") for each in cells]))
    script = Path(__file__).with_name("rank_memory_process.py")
    # kernels take memory for each thread
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(script), "predicted", str(jobs), str(expected)], env=environment, check=True, capture_output=True)
    start_ranks(script.name, ["measured", str(jobs), str(found)], tmp_path)
    by_rank = json.loads(found.read_text())
    assert len(by_rank) == 2
    for index, (each, predicted) in enumerate(zip(cells, json.loads(expected.read_text()), strict=True)):
        for recorded in (rank[index] for rank in by_rank):
            assert predicted == pytest.approx(recorded, rel=CLOSE), str(each.launch)


def allocated(of: Cell) -> float:
    found, notes, _ = profile.predict_memory(of)
    value = next(m for m in found if m.kind == "allocated")
    assert value.value is not None, value.reason
    assert "one of" in notes["per_rank"]
    return value.value


@pytest.mark.slow
def test_more_ranks_and_higher_stages_need_less():
    """What ZeRO is for; and what lies in the CPU's memory is not in the GPU's."""
    whole, divided = (allocated(of(Launch(engine="deepspeed", zero=stage, gpus=8), batch_size=8)) for stage in (0, 2))
    two = allocated(of(ZERO[2], batch_size=2))
    offloaded = allocated(of(ZERO[2].model_copy(update={"offload": "optimizer"}), batch_size=2))
    assert divided < two < whole
    assert offloaded < two


@pytest.fixture(scope="module")
def whole() -> float:
    return allocated(of(ZERO[2], precision="bf16", shape=LARGE))


@pytest.mark.slow
@pytest.mark.parametrize(
    "launch",
    [
        Launch(engine="deepspeed", zero=2, gpus=2, half="weights"),
        Launch(engine="deepspeed", zero=3, gpus=2, half="weights", offload="parameters"),
        Launch(engine="deepspeed", zero=2, gpus=2, activation_checkpointing=True),
    ],
    ids=str,
)
def test_every_launch_that_can_be_asked_for_is_predicted(launch: Launch, whole: float):
    assert allocated(of(launch, precision="bf16", shape=LARGE)) < whole


def test_without_deepspeed_there_is_a_reason(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    found, _, _ = profile.predict_memory(of(ZERO[2]))
    assert {m.value for m in found} == {None}
    assert {m.reason for m in found} == {
        "memory of a rank is predicted with DeepSpeed's code, which is not installed; pip install 'benchctl[deepspeed]'"
    }
