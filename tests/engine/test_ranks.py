"""Several CPU ranks, connected by gloo, against one process: the same losses, the same weights, the same scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest
import torch
from rank_launch import start_ranks
from training_cells import SMALL, StopAfter, cell, run

from benchctl.budget import Budget
from benchctl.data import motion_shapes
from benchctl.engine import checkpoint
from benchctl.methods import moss, timesformer
from benchctl.recipe import Recipe
from benchctl.record import CellResult, Outcome
from benchctl.spec import Cell, DatasetRef, Launch
from benchctl.vocabulary import ClipShape

STEPS = 6
#: losses of fp32 are equal up to the order of sums
CLOSE = 1e-4
#: all weights together, as a share of their length: what has no gradient but rounding is moved by AdamW all the same
AWAY = 1e-3


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetRef, Path]:
    ref = DatasetRef(name="motion_shapes", options=SMALL)
    return ref, motion_shapes.prepare(ref, tmp_path_factory.mktemp("shapes"))


def of(name: str, ref: DatasetRef, launch: Launch | None, **changes: object) -> Cell:
    """A training of a tiny preset. MOSS normalises by batches, TimeSformer does not; neither drops anything out."""
    module = {"moss-tiny": moss, "timesformer-tiny": timesformer}[name]
    fields: dict[str, object] = {
        "method": name,
        "config": module.Config.model_validate(module.PRESETS[name]).model_dump(mode="json"),
        "shape": ClipShape(frames=4, resolution=32, batch_size=4),
        "budget": Budget(match_on="steps", amount=STEPS, evaluate_at=(0.4, 1.0)),
        "recipe": Recipe(learning_rate=1e-3, eval_clips=2, clip_gradient_norm=1.0),
        "launch": launch,
        "attention": module.Config.ATTENTION[0],
    }
    return cell(ref, **{**fields, **changes})


def on_ranks(jobs: list[dict[str, object]], folder: Path, ranks: int = 2) -> list[CellResult]:
    """Execute `jobs` in one launch."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "jobs.json").write_text(json.dumps(jobs))
    start_ranks("rank_process.py", [str(folder / "jobs.json"), str(folder / "results.json")], folder, ranks)
    return [CellResult.model_validate(each) for each in json.loads((folder / "results.json").read_text())]


def job(of: Cell, root: Path, folder: Path, stop_after: int | None = None) -> dict[str, object]:
    return {"cell": of.model_dump(mode="json"), "root": str(root), "folder": str(folder), "stop_after": stop_after}


def close(ours: CellResult, whole: CellResult) -> None:
    """Losses, weights and scores of `ours` are those of `whole`."""
    assert ours.outcome is whole.outcome is Outcome.OK, (ours.reason, whole.reason)
    a, b = (checkpoint.load(Path(str(result.checkpoint))) for result in (ours, whole))
    assert a["record"]["losses"] == pytest.approx(b["record"]["losses"], abs=CLOSE)
    assert a["model"].keys() == b["model"].keys()
    # together: a bias in front of a normalisation has no gradient but rounding, which AdamW makes into steps of full size
    away, length = (
        sum(float((each**2).sum()) for each in tensors) for tensors in (differences(a["model"], b["model"]), b["model"].values())
    )
    assert (away / length) ** 0.5 < AWAY
    # eight clips, of which rounding may tip one
    assert ours.value("clips", kind="test") == whole.value("clips", kind="test") == 8
    assert ours.value("top1") == pytest.approx(whole.value("top1"), abs=1 / 8)


def differences(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [a[name].double() - b[name].double() for name in b]


STAGES = [Launch(gpus=2), *(Launch(engine="deepspeed", zero=zero, gpus=2) for zero in (0, 1, 2, 3))]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["moss-tiny", "timesformer-tiny"])
def test_two_ranks_learn_what_one_process_learns(shapes, tmp_path: Path, name: str):
    """DDP and DeepSpeed at stages 0 to 3: the loss curve of one process with the same global batch, and its weights, to 1e-4."""
    ref, root = shapes
    whole = run(of(name, ref, None), root, tmp_path / "whole")
    cells = [of(name, ref, launch) for launch in STAGES]
    if name == "timesformer-tiny":
        # micro-batches, whose gradients are added up: batches are not normalised there
        cells += [of(name, ref, Launch(engine="deepspeed", zero=2, gpus=2, micro_batch=1)), of(name, ref, Launch(gpus=2, micro_batch=1))]
    jobs = [job(each, root, tmp_path / f"{index}") for index, each in enumerate(cells)]
    for each, result in zip(cells, on_ranks(jobs, tmp_path / "ranks"), strict=True):
        close(result, whole)
        assert result.value("ranks") == 2
        assert 0 < result.value("communication_fraction") < 1
        assert "CPU processes" in result.notes["launch"], each.label
        assert result.value("top1", kind="40%") == pytest.approx(whole.value("top1", kind="40%"), abs=1 / 8)


@pytest.mark.slow
def test_a_stopped_training_goes_on_at_any_stage_and_any_number_of_ranks(shapes, tmp_path: Path):
    """What any engine leaves, any engine goes on from: at the same number of ranks, and from two to one and from one to two."""
    ref, root = shapes
    name = "timesformer-tiny"
    whole = run(of(name, ref, None), root, tmp_path / "whole")
    zero = {stage: of(name, ref, Launch(engine="deepspeed", zero=stage, gpus=2)) for stage in (0, 1, 2, 3)}
    one_process = of(name, ref, None)
    stopped = run(one_process, root, tmp_path / "from-one", StopAfter(3))
    assert stopped.outcome is Outcome.INTERRUPTED
    jobs = [job(zero[stage], root, tmp_path / f"{stage}", stop_after=1) for stage in zero]
    # the same stage, and from 2 to 3 and from 3 to 1
    jobs += [job(zero[stage], root, tmp_path / f"{stage}") for stage in (0, 1)]
    jobs += [job(zero[3], root, tmp_path / "2"), job(zero[1], root, tmp_path / "3", stop_after=1)]
    jobs += [job(zero[2], root, tmp_path / "from-one")]
    results = on_ranks(jobs, tmp_path / "ranks")
    assert [r.outcome for r in results[:4]] == [Outcome.INTERRUPTED] * 4
    assert all("stopped after 2 of 6 steps" in (r.reason or "") for r in results[:4])
    for finished in (*results[4:7], results[8]):
        close(finished, whole)
    assert results[7].outcome is Outcome.INTERRUPTED
    # and what two ranks at stage 3 and then at stage 1 left, one process ends
    close(run(one_process, root, tmp_path / "3"), whole)


@pytest.mark.slow
def test_offload_and_recomputed_activations_change_no_loss(shapes, tmp_path: Path):
    """Where tensors lie and how often they are computed is not what is learnt: all of it is fp32, so the curve is that of one process."""
    ref, root = shapes
    name = "timesformer-tiny"
    whole = run(of(name, ref, None), root, tmp_path / "whole")
    launches = [
        Launch(engine="deepspeed", zero=2, gpus=2, offload="optimizer"),
        Launch(engine="deepspeed", zero=3, gpus=2, offload="parameters"),
        Launch(engine="deepspeed", zero=3, gpus=2, activation_checkpointing=True),
        Launch(gpus=2, activation_checkpointing=True),
    ]
    jobs = [job(of(name, ref, each), root, tmp_path / f"{index}") for index, each in enumerate(launches)]
    # and what offload left goes on without it
    jobs += [
        job(of(name, ref, launches[0]), root, tmp_path / "left", stop_after=1),
        job(of(name, ref, STAGES[-1]), root, tmp_path / "left"),
    ]
    *finished, stopped, gone_on = on_ranks(jobs, tmp_path / "ranks")
    assert stopped.outcome is Outcome.INTERRUPTED
    for result in (*finished, gone_on):
        close(result, whole)


@pytest.mark.slow
@pytest.mark.parametrize("half", ["autocast", "weights"])
def test_half_precision_learns_nearly_the_same(shapes, tmp_path: Path, half: Literal["autocast", "weights"]):
    """bf16 has 8 bits: every loss within 0.05 of fp32's, and not fp32's; another number of ranks goes on from its checkpoint."""
    ref, root = shapes
    name = "timesformer-tiny"
    whole = run(of(name, ref, None), root, tmp_path / "whole")
    stages = (1, 2, 3) if half == "weights" else (0, 2, 3)
    cells = [of(name, ref, Launch(engine="deepspeed", zero=stage, gpus=2, half=half), precision="bf16") for stage in stages]
    jobs = [job(each, root, tmp_path / f"{index}") for index, each in enumerate(cells)]
    jobs += [job(cells[0], root, tmp_path / "left", stop_after=1), job(cells[-1], root, tmp_path / "left")]
    *finished, stopped, gone_on = on_ranks(jobs, tmp_path / "ranks")
    assert stopped.outcome is Outcome.INTERRUPTED
    fp32 = checkpoint.load(Path(str(whole.checkpoint)))["record"]["losses"]
    for result in (*finished, gone_on):
        assert result.outcome is Outcome.OK, result.reason
        kept = checkpoint.load(Path(str(result.checkpoint)))
        assert kept["record"]["losses"] == pytest.approx(fp32, abs=0.05)
        assert kept["record"]["losses"] != pytest.approx(fp32, abs=1e-6)
        assert all(value.dtype != torch.bfloat16 for value in kept["model"].values())
        assert result.value("clips", kind="test") == 8
