"""Faults planted in a copy of this project, and what `benchctl check ci` says of the cells that they touch.

The copy is run and checked as CI does it, against the pins that ship.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parent.parent.parent
#: name -> file, what stands there, what the fault makes of it, the cells that are run, and what must be said to have regressed
FAULTS: dict[str, tuple[str, tuple[tuple[str, str], ...], str, tuple[str, ...]]] = {
    # memory grows, and nothing is computed twice
    "an extra copy of activations": (
        "layers/multi_order_similarity.py",
        (
            (
                "        result: Tensor = self.fusion(self.embed(similarity_BTHWLUV.flatten(5)))\n",
                "        self.kept = similarity_BTHWLUV.detach().clone()\n"
                "        result: Tensor = self.fusion(self.embed(similarity_BTHWLUV.flatten(5)))\n",
            ),
        ),
        "moss-s/profile/1x8x112/*",
        ("peak_memory_bytes allocated predicted cuda",),
    ),
    # the whole attention matrix is kept, and the cell still says `sdpa`
    "attention turned eager": (
        "layers/attention.py",
        (('    if attention == "eager":\n        scores', '    if attention in ("eager", "sdpa"):\n        scores'),),
        "movt-tiny*/train/*/seed0",
        ("peak_memory_bytes allocated predicted cuda",),
    ),
    "fewer steps than the budget": (
        "engine/budget.py",
        (
            ("        if self.share(used) < 1.0:\n", "        if self.share(used) < 1.0 and used.steps < 90:\n"),
            ('        raise AssertionError("a share of 1 is a limit\'s")\n', '        return "steps: enough"\n'),
        ),
        "movt-tiny*/train/*/seed0",
        ("steps", "samples", "train_flops executed"),
    ),
    "a layer more": (
        "layers/point_transformer.py",
        (
            (
                "nn.LayerNorm(width), _mlp(width, width, outputs)",
                "nn.LayerNorm(width), nn.Linear(width, width), _mlp(width, width, outputs)",
            ),
        ),
        "movt-tiny/profile/*",
        ("params", "trainable_params", "macs all"),
    ),
    # only three seeds together can tell
    "a learning rate of nothing": (
        "engine/train.py",
        (
            (
                "return learning_rate(used.steps - before.steps, planned - before.steps, recipe)",
                "return 0.0 * learning_rate(used.steps - before.steps, planned - before.steps, recipe)",
            ),
        ),
        "movt-tiny*/train/*",
        ("top1, mean of trainings",),
    ),
}


def copied(folder: Path) -> Path:
    for name in ("benchctl", "suites", "baselines"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def benchctl(folder: Path, *words: str, data: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "BENCHCTL_CACHE": str(data)}
    return subprocess.run(
        [sys.executable, "-m", "benchctl", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=500, check=False
    )


def checked(folder: Path, data: Path, *globs: str) -> tuple[list[dict[str, Any]], subprocess.CompletedProcess[str]]:
    """Run the cells, check the pins; verdicts on cells that were run, and the check as a person sees it."""
    chosen = [word for glob in globs for word in ("--only", glob)]
    ran = benchctl(folder, "run", "ci", "--db", "here.db", *chosen, data=data)
    assert ran.returncode == 0, ran.stderr
    said = benchctl(folder, "check", "ci", "--db", "here.db", "--format", "json", data=data)
    assert said.returncode in (1, 4), said.stderr
    verdicts = json.loads(said.stdout)["verdicts"]
    missing = {verdict["cell"] for verdict in verdicts if verdict["rule"] == "no result of this cell"}
    return [verdict for verdict in verdicts if verdict["cell"] not in missing], benchctl(
        folder, "check", "ci", "--db", "here.db", data=data
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.mark.parametrize("fault", FAULTS)
def test_it_is_caught_and_named(fault: str, tmp_path: Path, data: Path) -> None:
    file, changes, glob, subjects = FAULTS[fault]
    folder = copied(tmp_path)
    source = (folder / "benchctl" / file).read_text(encoding="utf-8")
    for old, new in changes:
        assert source.count(old) == 1, f"{file} has changed: plant the fault anew"
        source = source.replace(old, new)
    (folder / "benchctl" / file).write_text(source, encoding="utf-8")
    verdicts, shown = checked(folder, data, glob)
    regressed = {verdict["subject"] for verdict in verdicts if verdict["word"] == "regressed"}
    assert regressed >= set(subjects)
    # a table that says which cell, what, how much and by which rule
    assert shown.returncode == 1
    first = shown.stdout.splitlines()
    assert first[0].startswith("ci against ci.yaml: regressed (")
    assert first[2].split() == ["verdict", "cell", "what", "pinned", "found", "change", "rule"]
    assert first[4].startswith("regressed")


def test_without_a_fault_nothing_regresses(tmp_path: Path, data: Path) -> None:
    verdicts, shown = checked(copied(tmp_path), data, "moss-s/profile/1x8x112/*", "movt-tiny*")
    assert len(verdicts) > 40
    assert {verdict["word"] for verdict in verdicts} == {"pass"}
    # the other pinned cells were not run, which is never a pass
    assert shown.returncode == 4
    assert "no result of this cell" in shown.stdout
