"""A suite whose training starts from cells of their own, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SUITE = """\
name: start
task: train
methods: videomae-tiny
sweep: [{frames: 2, resolution: 32, batch_size: 4}]
dataset: {name: motion_shapes, options: {train_clips_per_class: 2, test_clips_per_class: 1, frames: 6}}
budget: {match_on: steps, amount: 3}
train_fraction: [1, 0.5]
recipe: {train_only: head, eval_clips: 1, eval_crops: 1, sampling: uniform}
seeds: 0
pretraining:
  objective: OBJECTIVE
  budget: {match_on: steps, amount: 4}
"""


def benchctl(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BENCHCTL_")}
    environment = {**inherited, "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-m", "benchctl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300, env=environment, check=False)


def rows(folder: Path) -> list[dict[str, object]]:
    ended = benchctl("report", "--table", "efficiency", "--format", "json", folder=folder)
    assert ended.returncode == 0, ended.stderr
    found: list[dict[str, object]] = json.loads(ended.stdout)["rows"]
    return found


def test_training_starts_from_another_data_set(tmp_path: Path):
    other = "  dataset: {name: motion_shapes, options: {train_clips_per_class: 1, test_clips_per_class: 1, frames: 4}}\n"
    (tmp_path / "suite.yaml").write_text(SUITE.replace("OBJECTIVE", "classes") + other)
    ended = benchctl("run", "suite.yaml", "--json", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["outcomes"] == {"ok": 3}
    start, half, whole = rows(tmp_path)
    first = str(start["cell"])
    assert [row["options"] for row in (start, half, whole)] == [
        None,
        f"start={first[:8]} train_fraction=0.5 train_only=head",
        f"start={first[:8]} train_only=head",
    ]
    assert (start["trainable_params"], whole["trainable_params"]) == (start["params"], 96 * 8 + 8)
    shown = json.loads(benchctl("show", str(whole["cell"]), folder=tmp_path).stdout)
    assert shown["result"]["notes"]["weights"] == f"from train cell {first} after 4 steps, classifier random"

    again = benchctl("run", "suite.yaml", "--json", folder=tmp_path)
    assert json.loads(again.stdout)["reused"] == 3
    # the start alone is run again with its checkpoint gone; what needs it says so
    for file in (tmp_path / "results" / "checkpoints").glob(f"{first}-*/checkpoint.pt"):
        file.unlink()
    lost = benchctl("run", "suite.yaml", "--fresh", "--only", "*train_fraction*", folder=tmp_path)
    assert "is not there; train again with --fresh" in lost.stdout + lost.stderr
