"""A suite whose data set is not here: it can be planned, and not run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SUITE = """\
name: absent
task: train
methods: [videomae-tiny]
sweep: [{frames: 4, resolution: 32, batch_size: 4}]
dataset: diving48
budget: {match_on: train_gflops, amount: 100}
seeds: 0
"""


def benchctl(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BENCHCTL_")}
    command = [sys.executable, "-m", "benchctl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300, env=inherited, check=False)


def test_it_is_planned_with_its_published_classes_and_not_run(tmp_path: Path):
    (tmp_path / "suite.yaml").write_text(SUITE)
    ended = benchctl("plan", "suite.yaml", "--json", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert document["absent_data"] == [{"name": "diving48", "num_classes": 48}]
    (cell,) = document["cells"]
    # as many steps as come nearest to the budget
    assert abs(cell["train_flops"] - 100e9) <= cell["train_flops"] / cell["steps"] / 2
    assert cell["v100_gpu_hours"] is None
    text = benchctl("plan", "suite.yaml", folder=tmp_path).stdout
    assert "training PFLOPs" in text
    assert "V100 GPU-hours" not in text
    assert text.endswith("data set diving48 is not here: cells are planned with its published number of classes (48), and cannot be run\n")
    refused = benchctl("run", "suite.yaml", folder=tmp_path)
    assert refused.returncode == 3
    assert "suite.yaml:5:1: no data set: 'diving48' at $BENCHCTL_DATA/diving48; put it there" in refused.stderr


def test_hours_are_those_that_are_given(tmp_path: Path):
    (tmp_path / "suite.yaml").write_text(SUITE.replace("train_gflops, amount: 100", "v100_gpu_hours, amount: 132"))
    text = benchctl("plan", "suite.yaml", "--no-predict", folder=tmp_path).stdout
    assert "V100 GPU-hours" in text
    assert " 132 " in text
    assert "training PFLOPs" not in text
