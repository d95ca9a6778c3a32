"""The workflows in docs/ci, run as they are written, as far as a machine without GitHub and GitLab can: all but fetching and installing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from test_commands import REPOSITORY, benchctl

SUITE = """\
name: small
task: profile
methods: [movt-tiny]
sweep:
  - {frames: 4, resolution: 64}
measure: [flops, params]
"""
#: what those machines do before: it takes minutes and a network
FETCHING = ("Check out", "Install")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a suite and pins of it."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "suite.yaml").write_text(SUITE)
    assert benchctl("run", "suite.yaml", "--db", "first.db", folder=folder).returncode == 0
    run = benchctl("list", "runs", "--db", "first.db", folder=folder).stdout.split()[0]
    assert benchctl("baseline", "accept", "pins.yaml", "--run", run, "--reason", "So", "--db", "first.db", folder=folder).returncode == 0
    text = (folder / "pins.yaml").read_text()
    (folder / "less.yaml").write_text(re.sub(r"    params: (\d+)\d\n", r"    params: \1\n", text))
    return folder


def read(name: str) -> Any:
    return YAML(typ="safe").load((REPOSITORY / "docs" / "ci" / name).read_text(encoding="utf-8"))


def bash(script: str, folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, **variables, "PATH": path}
    return subprocess.run(
        ["bash", "-e", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize(("pins", "code"), [("pins.yaml", 0), ("less.yaml", 1)])
def test_github_actions(project: Path, pins: str, code: int, tmp_path: Path) -> None:
    workflow = read("github-actions.yml")
    job = workflow["jobs"]["gate"]
    summary = tmp_path / "summary.md"
    variables = {**workflow["env"], "SUITE": "suite.yaml", "PINS": pins, "GITHUB_STEP_SUMMARY": str(summary)}
    steps = [step for step in job["steps"] if "run" in step and step["name"] not in FETCHING]
    ended = [bash(step["run"], project, variables) for step in steps]
    assert [each.returncode for each in ended] == [0, code], [each.stderr for each in ended]
    assert summary.read_text().startswith(f"**small against {pins}: {'regressed' if code else 'passed'}")
    kept = next(step for step in job["steps"] if str(step.get("uses", "")).startswith("actions/upload-artifact"))
    assert all((project / file).is_file() for file in kept["with"]["path"].split())


@pytest.mark.parametrize(("pins", "code"), [("pins.yaml", 0), ("less.yaml", 1)])
def test_gitlab(project: Path, pins: str, code: int) -> None:
    job = read("gitlab-ci.yml")["benchctl"]
    variables = {**job["variables"], "SUITE": "suite.yaml", "PINS": pins}
    # GitLab runs all lines in one shell, and ends at the first that fails
    ended = bash("\n".join(job["script"]), project, variables)
    assert ended.returncode == code, ended.stderr
    assert f"\nsmall against {pins}: {'regressed' if code else 'passed'}" in ended.stdout
    assert (project / job["artifacts"]["reports"]["junit"]).is_file()


def test_they_name_what_ships() -> None:
    for variables in (read("github-actions.yml")["env"], read("gitlab-ci.yml")["benchctl"]["variables"]):
        assert (REPOSITORY / variables["SUITE"]).is_file()
        assert (REPOSITORY / variables["PINS"]).is_file()
