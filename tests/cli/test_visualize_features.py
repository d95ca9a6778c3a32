"""`benchctl visualize features` and `reconstruction`, and `benchctl diagnose weight-similarity`, as a user meets them."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import matplotlib.image
import pytest
import torch

from benchctl import lookup
from benchctl.cli.app import main
from benchctl.recipe import Recipe
from benchctl.record import CellResult, Environment, RunRecord
from benchctl.spec import Cell, ModelSpec
from benchctl.store.store import Store
from benchctl.vocabulary import ClipShape

SMALL = ["--frames", "4", "--resolution", "64"]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Runs a command in an empty folder, and gives its exit code and what it wrote to stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["benchctl", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def checkpoint(file: Path, preset: str, seed: int, *, task: str = "train", **options: object) -> None:
    """A file as a training leaves it."""
    module = lookup.load("method", preset)
    config = module.Config.model_validate({**module.PRESETS[preset], **options})
    torch.manual_seed(seed)
    build = module.build_pretraining if task == "pretrain" else module.build
    model = build(ModelSpec(config, ClipShape(frames=4, resolution=64), 5, config.attention("auto")))
    torch.save({"format": 1, "method": preset, "task": task, "config": config.model_dump(mode="json"), "model": model.state_dict()}, file)


def stored(database: Path, checkpoints: dict[int, Path]) -> list[Cell]:
    """A database with a train cell for each seed of `checkpoints`, which left that file, and one more, which failed."""
    common = {
        "task": "train",
        "method": "time-videomae-tiny",
        "config": {},
        "shape": ClipShape(frames=4, resolution=64),
        "recipe": Recipe(),
    }
    settings = {"precision": "fp32", "attention": "sdpa", "pretrained": False, "pad": False, "num_classes": 5}
    cells = [Cell(**common, **settings, seed=seed) for seed in (*checkpoints, 3)]
    environment = Environment(benchctl="0.1.0", python="3.11.2", platform="linux", cpu="x", cpu_cores=2, memory_bytes=2**30)
    began = "2026-01-01T00:00:00+00:00"
    run = RunRecord(run_id="run-1", suite="s", suite_json="{}", command="benchctl run", started_at=began, environment=environment)
    with Store.open(database) as store:
        store.begin_run(run, cells)
        for cell in cells:
            file = checkpoints.get(cell.seed)
            ending = {"outcome": "ok", "checkpoint": str(file)} if file else {"outcome": "failed", "reason": "a test"}
            store.add_result("run-1", CellResult(cell_id=cell.id, started_at=began, seconds=1.0, **ending))
        store.finish_run("run-1", "finished")
    return cells


# ---- feature maps ----


def test_feature_maps_need_a_method_only(command, tmp_path):
    assert command("visualize", "features", "toy", "--method", "resnet50-tiny", *SMALL) == (0, "features-toy.png\n", "")
    assert matplotlib.image.imread(tmp_path / "features-toy.png")[..., :3].std() > 0.05


def test_checkpoints_are_drawn_below_each_other(command, tmp_path):
    for grid in (1, 2):
        checkpoint(tmp_path / f"{grid}.pt", "time-resnet-tiny", 0, grid=grid)
    one = ["visualize", "features", "toy", "--method", "time-resnet-tiny", *SMALL, "--checkpoint", "1.pt"]
    assert command(*one, "-o", "one.png")[0] == 0
    assert command(*one, "--checkpoint", "2.pt", "-o", "two.png") == (0, "two.png\n", "")
    heights = {name: matplotlib.image.imread(tmp_path / name).shape[0] for name in ("one.png", "two.png")}
    assert heights["two.png"] > 1.6 * heights["one.png"]


def test_a_real_clip_is_drawn(command, real_data):
    file = real_data / "clips" / "x_vp9_240p.webm"
    if not file.is_file():
        pytest.skip(f"no {file.name} in {file.parent}")
    asked = ["--method", "time-resnet-tiny", "--set", "grid=2", "--layer", "image.conv1"]
    assert command("visualize", "features", str(file), *asked, *SMALL) == (0, "features-x_vp9_240p.png\n", "")


# ---- reconstructions ----


def test_reconstructions_print_an_error_for_each_ratio(command, tmp_path):
    checkpoint(tmp_path / "mae.pt", "time-videomae-tiny", 0, task="pretrain", grid=2)
    ratios = ["--mask-ratio", "0.5", "--mask-ratio", "0.9"]
    code, out, err = command("visualize", "reconstruction", "toy", "--checkpoint", "mae.pt", *ratios, *SMALL)
    assert (code, err) == (0, "")
    first, *lines = out.splitlines()
    assert first == "reconstruction-toy.png"
    assert [line.partition(": mean squared error ")[0] for line in lines] == [
        f"time-videomae-tiny (weights: mae.pt), {hidden} of 16 patches hidden" for hidden in (8, 14)
    ]
    assert matplotlib.image.imread(tmp_path / first)[..., :3].std() > 0.05


def test_random_weights_are_said(command):
    code, out, _ = command("visualize", "reconstruction", "toy", "--method", "videomae-tiny", *SMALL)
    assert code == 0
    assert "videomae-tiny (random weights), 14 of 16 patches hidden" in out


# ---- weight similarity ----


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    for name, seed in (("a", 0), ("b", 1)):
        checkpoint(tmp_path / f"{name}.pt", "time-videomae-tiny", seed)
    return tmp_path


def test_weights_of_checkpoint_files_are_compared(command, trained):
    code, out, err = command("diagnose", "weight-similarity", "a.pt", "a.pt")
    assert (code, err) == (0, "")
    assert "weight similarity: a.pt and a.pt" in out
    layers = [line for line in out.splitlines() if line.startswith("video.")]
    assert len(layers) == 2 + 4 * 6
    assert all(" 1.0000 " in line for line in layers)


def test_other_random_weights_are_not_alike(command, trained):
    code, out, err = command("diagnose", "weight-similarity", "a.pt", "b.pt", "--format", "json", "-o", "bars.png")
    assert (code, err) == (0, "bars.png\n")
    rows = json.loads(out)["rows"]
    assert {"layer", "cosine", "elements", "reason"} == set(rows[0])
    assert all(abs(row["cosine"]) < 6 / row["elements"] ** 0.5 for row in rows)
    assert matplotlib.image.imread(trained / "bars.png")[..., :3].std() > 0.05
    _, out, _ = command("diagnose", "weight-similarity", "a.pt", "b.pt", "--format", "csv")
    assert [float(row["cosine"]) for row in csv.DictReader(io.StringIO(out))] == [row["cosine"] for row in rows]


def test_layers_of_other_shapes_are_named(command, trained):
    checkpoint(trained / "wide.pt", "time-videomae-tiny", 0, mlp_width=192)
    code, out, _ = command("diagnose", "weight-similarity", "a.pt", "wide.pt")
    assert code == 0
    assert "video.videomae.encoder.layer.0.intermediate.dense: shapes differ: 384 x 96 and 192 x 96" in out


def test_cells_are_named_by_the_beginning_of_their_id(command, trained):
    cells = stored(trained / "results.db", {0: trained / "a.pt", 1: trained / "b.pt", 2: trained / "gone.pt"})
    code, out, err = command("diagnose", "weight-similarity", cells[0].id[:10], cells[1].id, "--db", "results.db")
    assert (code, err) == (0, "")
    assert out.startswith(f"weight similarity: {cells[0].label} ({cells[0].id[:8]}) and {cells[1].label} ({cells[1].id[:8]})\n")
    _, of_files, _ = command("diagnose", "weight-similarity", "a.pt", "b.pt")
    assert out.splitlines()[1:] == of_files.splitlines()[1:]

    # a file and a cell
    assert command("diagnose", "weight-similarity", "b.pt", cells[1].id, "--db", "results.db")[0] == 0
    for number, what in ((2, f"has no checkpoint at {trained / 'gone.pt'}; run its suite again with --fresh"), (3, "ended as failed")):
        code, out, err = command("diagnose", "weight-similarity", "a.pt", cells[number].id, "--db", "results.db")
        assert (code, out, err.count("\n")) == (4, "", 1)
        assert what in err


@pytest.mark.parametrize(
    ("arguments", "code", "where"),
    [
        (["visualize", "features", "toy", "--method", "resnet-tiny"], 2, "--method: unknown method 'resnet-tiny'"),
        (["visualize", "features", "none.mp4", "--method", "resnet50-tiny"], 1, "none.mp4: no such file"),
        (["visualize", "features", "toy", "--method", "resnet50-tiny", "--layer", "fc"], 2, "--layer fc: 'resnet50-tiny' has no such"),
        (["visualize", "features", "toy", "--method", "resnet50-tiny", "-o", "a.pdf"], 2, "--output a.pdf: the figure is a png"),
        (["visualize", "features", "toy", "--method", "time-resnet-tiny", "--set", "grid=3"], 2, "--set grid: 'time-resnet-tiny' cannot"),
        (["visualize", "reconstruction", "toy"], 2, "--checkpoint: whose reconstruction?"),
        (["visualize", "reconstruction", "toy", "--method", "vit-tiny"], 2, "--method vit-tiny: 'vit-tiny' does not learn by recon"),
        (["visualize", "reconstruction", "toy", "--method", "videomae-tiny", "--mask-ratio", "1"], 2, "--mask-ratio 1: some patches"),
        (["visualize", "reconstruction", "toy", "--checkpoint", "a.pt"], 2, "a.pt: holds a model that classifies"),
        (["visualize", "reconstruction", "none.mp4", "--method", "videomae-tiny"], 1, "none.mp4: no such file"),
        (["diagnose", "weight-similarity", "a.pt", "none.pt"], 2, "none.pt: no such checkpoint"),
        (["diagnose", "weight-similarity", "a.pt", "a.pt", "-o", "none/a.png"], 3, "none: no such folder"),
        (["diagnose", "weight-similarity", "a.pt", "other.pt"], 2, "a.pt other.pt: the models have no layer in common"),
        (["diagnose", "weight-similarity", "a.pt", "deadbeef"], 3, "results/benchctl.db: "),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_cannot_be_is_one_line(command, trained, arguments, code, where):
    checkpoint(trained / "other.pt", "resnet50-tiny", 0)
    small = SMALL if arguments[0] == "visualize" else []
    ended, out, err = command(*arguments, *small)
    assert (ended, out, err.count("\n")) == (code, "", 1)
    assert err.startswith(f"benchctl: {where}")
    assert not list(trained.glob("*.png"))
