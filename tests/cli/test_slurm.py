"""`benchctl slurm`: a script that a shell takes, whose tasks run the suite."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchctl.cli.app import _register, app
from benchctl.errors import UsageError

SERVER = "postgresql://me@host/name"
SUITE = """\
name: small
task: profile
methods: [timesformer-tiny]
sweep: [{frames: [2, 4], resolution: 32, batch_size: 1}]
measure: [flops, params]
"""
LAUNCHED = """\
name: learn
task: train
methods: [videomae-tiny]
dataset: motion_shapes
sweep: [{frames: 4, resolution: 32, batch_size: 16}]
budget: {match_on: steps, amount: 3}
launch: {engine: deepspeed, zero: 2, gpus: 4}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands are given; its name needs quoting."""
    made = tmp_path / "it's a $HOME"
    made.mkdir()
    (made / "suite.yaml").write_text(SUITE)
    (made / "learn.yaml").write_text(LAUNCHED)
    monkeypatch.chdir(made)
    _register()
    return made


def written(*arguments: str) -> str:
    ended = CliRunner().invoke(app, ["slurm", *arguments], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def directives(script: str) -> dict[str, str]:
    return dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", script, re.MULTILINE))


def accepted(script: str) -> bool:
    bash = shutil.which("bash")
    assert bash
    return subprocess.run([bash, "-n"], input=script, text=True, check=False, stderr=subprocess.DEVNULL).returncode == 0


def words(script: str) -> list[str]:
    """The run line, as the shell reads it."""
    return shlex.split(next(line for line in script.splitlines() if line.startswith("exec ")))


def test_an_array_of_tasks_on_one_database(folder: Path) -> None:
    awkward = "*/profile/*'; touch pwned #"
    script = written("suite.yaml", "--db", SERVER, "--array", "4", "--time", "1-12:00:00", "--partition", "gpu", "--only", awkward)
    assert accepted(script)
    assert directives(script) == {
        "job-name": "benchctl-small",
        "array": "0-3",
        "nodes": "1",
        "ntasks-per-node": "1",
        "gpus-per-node": "1",
        "signal": "B:TERM@60",
        "time": "1-12:00:00",
        "partition": "gpu",
    }
    assert words(script) == ["exec", sys.executable, "-m", "benchctl", "run", "suite.yaml", "--db", SERVER, "--only", awkward]


@pytest.mark.parametrize(
    ("changes", "nodes", "tasks", "gpus", "line"),
    [
        ([], "1", "1", "4", ["exec", sys.executable]),
        (["launch.nodes=2"], "2", "4", "4", ["exec", "srun", sys.executable]),
        (["launch.nodes=2", "launch.gpus=1"], "2", "1", "1", ["exec", "srun", sys.executable]),
    ],
)
def test_nodes_and_gpus_are_those_of_the_launch(
    folder: Path, changes: list[str], nodes: str, tasks: str, gpus: str, line: list[str]
) -> None:
    settings = [word for change in changes for word in ("--set", change)]
    script = written("learn.yaml", "--db", SERVER, *settings)
    assert accepted(script)
    asked = directives(script)
    assert (asked["nodes"], asked["ntasks-per-node"], asked["gpus-per-node"]) == (nodes, tasks, gpus)
    assert words(script)[: len(line)] == line
    assert words(script)[-len(settings) :] == settings if settings else True


@pytest.mark.parametrize("url", ["postgresql://me:secret@host/name", "postgresql://me@host/name?password=secret"])
@pytest.mark.parametrize("by", ["--db", "BENCHCTL_DB"])
def test_a_password_is_not_written_down(folder: Path, url: str, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if by == "BENCHCTL_DB":
        monkeypatch.setenv(by, url)
    ended = CliRunner().invoke(app, ["slurm", "suite.yaml", "--array", "2", "-o", "job.sh", *(["--db", url] if by == "--db" else [])])
    script = (folder / "job.sh").read_text()
    assert "secret" not in script + ended.output
    assert "set BENCHCTL_DB" in ended.output
    assert accepted(script)
    assert "--db" not in words(script)
    unset = {name: value for name, value in os.environ.items() if name != "BENCHCTL_DB"}
    refused = subprocess.run(["bash", "job.sh"], capture_output=True, text=True, env=unset, check=False, timeout=60)
    assert refused.returncode != 0
    assert "BENCHCTL_DB: set it to the URL" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--array", "2"], "cannot share an SQLite file"),
        (["--array", "2", "--db", "sqlite:///results.db"], "give --db postgresql://USER@HOST/NAME"),
        (["--time", "tomorrow"], "expected HH:MM:SS"),
        (["--partition", "gpu\n#SBATCH --exclusive"], "not a name of partitions"),
    ],
)
def test_what_cannot_be_right_is_refused(folder: Path, arguments: list[str], what: str) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        written("suite.yaml", *arguments)
    assert "\n" not in str(caught.value)


def test_a_task_of_the_array_runs_the_suite(folder: Path, postgresql: str) -> None:
    written("suite.yaml", "--db", postgresql, "--array", "2", "--set", "sweep.0.frames=[2, 6]", "-o", "job.sh")
    task = {"SLURM_JOB_ID": "8", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_PROCID": "0"}
    # Slurm starts it where it was submitted, which need not be where it was written
    ended = subprocess.run(
        ["bash", str(folder / "job.sh")], cwd="/", capture_output=True, text=True, env={**os.environ, **task}, check=False, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"2 cells: 2 ok", ended.stdout)
    listed = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchctl",
            "report",
            "--table",
            "efficiency",
            "--db",
            postgresql,
            "--suite",
            "small",
            "--format",
            "json",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert [row["frames"] for row in json.loads(listed.stdout)["rows"]] == [2, 6]
