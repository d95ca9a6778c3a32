"""`benchctl diagnose cascade` and `benchctl data tracks`, as a user meets them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchctl.cli.app import main
from benchctl.data.encode import write_mp4
from benchctl.recipe import Recipe
from benchctl.record import CellResult, Environment, Measurement, RunRecord
from benchctl.spec import Cell
from benchctl.store.store import Store
from benchctl.vocabulary import ClipShape


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


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    """A cheap cell, a host, and one without scores, in a database."""
    common = {"task": "train", "config": {}, "shape": ClipShape(frames=4, resolution=64), "recipe": Recipe(eval_clips=2), "num_classes": 2}
    settings = {"precision": "fp32", "attention": "sdpa", "pretrained": False, "pad": False, "seed": 0}
    made = [Cell(method=name, **common, **settings) for name in ("movt-tiny", "videomae-tiny", "moss-tiny")]
    rows = {"movt-tiny": [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]], "videomae-tiny": [[0, 1], [1, 0], [1, 0]]}
    environment = Environment(benchctl="0.1.0", python="3.11.2", platform="linux", cpu="x", cpu_cores=2, memory_bytes=2**30)
    run = RunRecord(
        run_id="r1", suite="s", suite_json="{}", command="benchctl run", environment=environment, started_at="2026-01-01T00:00:00"
    )
    with Store.open(tmp_path / "results.db") as store:
        store.begin_run(run, made)
        for cell, macs in zip(made, (1, 100, 1)):
            notes: dict[str, object] = {}
            if cell.method in rows:
                file = tmp_path / f"{cell.method}.npz"
                np.savez(file, ids=np.array(["a", "b", "c"]), labels=np.zeros(3, int), scores=np.array(rows[cell.method], float))
                notes["scores"] = str(file)
            measured = (Measurement(metric="macs", kind="all", value=macs),)
            store.add_result(
                "r1",
                CellResult(
                    cell_id=cell.id,
                    outcome="ok",
                    measurements=measured,
                    notes=notes,
                    device="cpu",
                    started_at="2026-01-01T00:00:00",
                    seconds=1,
                ),
            )
        store.finish_run("r1", "finished")
    return made


def test_every_threshold_as_json_and_a_picture(command, cells: list[Cell], tmp_path: Path):
    names = [cell.id[:8] for cell in cells]
    code, out, _ = command("diagnose", "cascade", *names[:2], "--db", "results.db", "--format", "json", "-o", "c.png")
    assert code == 0
    document = json.loads(out)
    assert (document["first"], document["host"], document["clips"]) == ("movt-tiny at 4 frames", "videomae-tiny at 4 frames", 3)
    steps = [(s["threshold"], s["coverage"], s["accuracy"], s["macs"]) for s in document["steps"]]
    # two views of each clip
    assert steps[0] == (None, 0.0, pytest.approx(2 / 3), 202.0)
    assert steps[1] == (0.9, pytest.approx(1 / 3), 1.0, pytest.approx(2 + 2 / 3 * 200))
    assert (tmp_path / "c.png").stat().st_size > 10_000
    code, out, _ = command("diagnose", "cascade", *names[:2], "--db", "results.db")
    assert code == 0
    assert "most accurate:\n                33.3%            0.900          100.0%        100.0%" in out


def test_what_cannot_be_is_one_line(command, cells: list[Cell], tmp_path: Path):
    code, _, err = command("diagnose", "cascade", cells[0].id, cells[2].id, "--db", "results.db")
    assert (code, err.count("\n")) == (4, 1)
    assert f"cell {cells[2].id} ({cells[2].label}) has no scores; run its suite again with --fresh" in err
    (tmp_path / "videomae-tiny.npz").unlink()
    code, _, err = command("diagnose", "cascade", cells[0].id, cells[1].id, "--db", "results.db")
    assert (code, err.count("\n")) == (4, 1)
    code, _, err = command("diagnose", "cascade", "0" * 16, cells[1].id, "--db", "results.db")
    assert (code, err.count("\n")) == (2, 1)


def test_tracks_of_a_data_set(command, tmp_path: Path):
    data = tmp_path / "data"
    data.mkdir()
    rng = np.random.default_rng(0)
    large = np.kron(rng.integers(0, 255, (20, 20), dtype=np.uint8), np.ones((8, 8), np.uint8))
    for name, step in (("a", 2), ("b", 3)):
        frames = np.stack([large[20 : 20 + 48, 20 + step * t :][:, :64] for t in range(6)])
        write_mp4(data / f"{name}.mp4", np.repeat(frames[..., None], 3, axis=3), fps=6)
    (data / "torn.mp4").write_bytes(b"no video")
    (data / "manifest.csv").write_text("path,class,split\na.mp4,x,train\nb.mp4,y,train\ntorn.mp4,x,test\n")
    arguments = ("data", "tracks", "manifest", "--root", str(data), "--folder", "tracks", "--processes", "1")
    code, out, err = command(*arguments)
    assert code == 0
    assert out.startswith("manifest, tracks by lucas-kanade: 2 clips done, 0 there before, 1 unreadable; ")
    assert "estimator lucas-kanade: the package cotracker is not installed" in err
    assert "no tracks of torn.mp4: " in err
    assert "set BENCHCTL_TRACKS=tracks so that suites find them" in err
    code, out, _ = command(*arguments)
    assert out.startswith("manifest, tracks by lucas-kanade: 0 clips done, 2 there before, 1 unreadable; ")
    code, _, err = command(*arguments, "--estimator", "cotracker3")
    assert (code, err.count("\n")) == (3, 1)
    assert "--estimator cotracker3: the package cotracker is not installed" in err
