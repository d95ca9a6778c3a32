"""The command line as a user meets it: real processes, exit codes, one-line errors, no traceback."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent.parent
SUITE = """\
name: small
task: profile
methods: [timesformer-tiny, videomae-tiny]
sweep:
  - {frames: 4, resolution: 32, batch_size: [1, 2]}
measure: [memory, flops, params, latency]
memory_cap_gib: 2
"""


def benchctl(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BENCHCTL_")}
    return subprocess.run(
        [sys.executable, "-m", "benchctl", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=300,
        env={**inherited, **environment},
        check=False,
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a small suite has run; its database is the default one."""
    folder = tmp_path_factory.mktemp("ran")
    (folder / "suite.yaml").write_text(SUITE)
    ended = benchctl("run", "suite.yaml", "--json", folder=folder)
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert document["schema_version"] == 1
    assert document["outcomes"] == {"ok": 4}
    lines = [line for line in ended.stderr.splitlines() if line.startswith("[")]
    assert len(lines) == 4, "one line per finished cell"
    assert "\x1b" not in ended.stderr + ended.stdout
    return folder


def test_the_same_command_again_runs_nothing(ran: Path):
    ended = benchctl("run", "suite.yaml", "--json", folder=ran)
    assert ended.returncode == 0
    document = json.loads(ended.stdout)
    assert (document["reused"], document["outcomes"]) == (4, {})


def test_the_efficiency_table_as_json(ran: Path):
    ended = benchctl("report", "--table", "efficiency", "--format", "json", folder=ran)
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert set(document) >= {"schema_version", "table", "columns", "rows"}
    wanted = (
        "method task frames resolution batch_size precision params trainable_params macs flops peak_memory_bytes memory_kind memory_source "
        "outcome top1 top5 seconds run cell"
    ).split()
    for row in document["rows"]:
        assert set(wanted) <= set(row)
    row = document["rows"][0]
    assert (row["method"], row["frames"], row["outcome"]) == ("timesformer-tiny", 4, "ok")
    assert row["params"] > 0
    assert row["macs"] > 0
    assert row["top1"] is None


def test_measured_and_predicted_stand_apart_in_the_memory_table(ran: Path):
    rows = json.loads(benchctl("report", "--table", "memory", "--format", "json", folder=ran).stdout)["rows"]
    readings = {(row["memory_source"], row["memory_kind"]) for row in rows}
    assert {("measured", "allocated"), ("measured", "rss"), ("predicted", "allocated"), ("predicted", "reserved")} <= readings


@pytest.mark.parametrize("form", ["text", "markdown", "csv", "latex"])
@pytest.mark.parametrize("table", ["efficiency", "memory"])
def test_every_form_of_every_table(ran: Path, table: str, form: str):
    ended = benchctl("report", "--table", table, "--format", form, folder=ran)
    assert ended.returncode == 0, ended.stderr
    assert "timesformer-tiny" in ended.stdout
    assert "predictions were within" in ended.stdout or form == "csv"


def test_plan_says_state_macs_and_memory(ran: Path):
    ended = benchctl("plan", "suite.yaml", "--json", folder=ran)
    cells = json.loads(ended.stdout)["cells"]
    assert [cell["state"] for cell in cells] == ["done"] * 4
    assert all(cell["macs"] > 0 and cell["predicted_allocated_bytes"] > 0 for cell in cells)
    text = benchctl("plan", "suite.yaml", "--set", "memory_cap_gib=0.001", "--no-predict", folder=ran)
    assert "4 new" in text.stdout
    assert "not counted" in text.stdout
    capped = benchctl("plan", "suite.yaml", "--set", "memory_cap_gib=0.001", "--only", "videomae-tiny", folder=ran)
    assert "the cap is 0.001 GiB" in capped.stdout


def test_plan_runs_nothing(tmp_path: Path):
    (tmp_path / "suite.yaml").write_text(SUITE)
    assert benchctl("plan", "suite.yaml", folder=tmp_path).returncode == 0
    assert benchctl("report", "--table", "efficiency", folder=tmp_path).returncode == 4


def test_plot_writes_a_picture(ran: Path):
    changes = ("--set", "sweep.0.frames=[4,8]", "--set", "measure=[memory]", "--only", "*/1x*")
    ended = benchctl("run", "suite.yaml", *changes, "--db", "plot.db", folder=ran)
    assert ended.returncode == 0, ended.stderr
    for suffix, magic in (("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")):
        ended = benchctl("plot", "memory-scaling", "--db", "plot.db", "-o", f"figure.{suffix}", folder=ran)
        assert ended.returncode == 0, ended.stderr
        assert (ran / f"figure.{suffix}").read_bytes().startswith(magic)


def test_show_traces_a_number_to_its_command(ran: Path):
    row = json.loads(benchctl("report", "--table", "efficiency", "--format", "json", folder=ran).stdout)["rows"][0]
    run = json.loads(benchctl("show", row["run"], folder=ran).stdout)
    assert run["command"].startswith("benchctl run suite.yaml")
    assert run["environment"]["packages"]["torch"]
    cell = json.loads(benchctl("show", row["cell"], folder=ran).stdout)
    assert cell["result"]["outcome"] == "ok"
    assert any(m["metric"] == "macs" and m["kind"] == "without_attention" for m in cell["result"]["measurements"])
    assert json.loads(benchctl("show", "videomae-b", folder=ran).stdout)["config"]["patch_size"] == 16


def test_a_pipe_that_closes_early_is_no_error(ran: Path):
    command = f"{shlex.quote(sys.executable)} -m benchctl report --table memory | head -1"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ran, check=False)
    assert ended.stderr == ""


WRONG = [
    (["run", "nothing.yaml"], 2, "nothing.yaml: no such suite file; "),
    (["run", "memory_scalin"], 2, "unknown suite 'memory_scalin'; did you mean 'memory_scaling' or 'scaling'?"),
    (["run", "torn.yaml"], 2, "torn.yaml:1:8: not valid YAML: "),
    (["run", "suite.yaml", "--set", "methods=[mose]"], 2, "unknown method 'mose'"),
    (["run", "suite.yaml", "--set", "sweep.0.frames=5"], 2, "5 frames are not a multiple of the tubelet size 2; use 4 or 6 frames"),
    (["run", "suite.yaml", "--device", "cuda"], 3, "--device cuda: no GPU can be used: "),
    (["run", "suite.yaml", "--only", "x"], 2, "--only x: no cell matches"),
    (["report", "--table", "eficiency"], 2, "unknown table 'eficiency'; did you mean 'efficiency'?"),
    (["report", "--table", "efficiency", "--db", "none.db"], 3, "none.db"),
    (["report", "--table", "efficiency", "--db", "suite.yaml"], 3, "suite.yaml"),
    (["report", "--table", "efficiency", "--suite", "smal"], 2, "unknown suite 'smal'; did you mean 'small'?"),
    (["report", "--table", "efficiency", "-o", "no/folder.txt"], 3, "no/folder.txt: cannot be written"),
    (["plot", "memory-scaling", "-o", "figure.gif"], 2, "figure.gif"),
    (["show", "nothing"], 2, "no method, cell or run is called 'nothing'"),
    (["data", "make", "egogestar"], 2, "'egogestar' cannot be generated"),
    (["data", "make", "motion_shapes", "--set", "sise=3"], 2, "--set sise: "),
    (["run", "train.yaml"], 3, "train.yaml:6:1: no data set: 'egogestar' at "),
    (
        [
            "run",
            "suite.yaml",
            "--set",
            "methods=[timesformer-b]",
            "--set",
            "pretrained=true",
            "--set",
            "measure=[latency]",
            "--device",
            "cpu",
        ],
        1,
        "",
    ),
]


@pytest.mark.parametrize(("arguments", "code", "message"), WRONG, ids=[" ".join(a) for a, _, _ in WRONG])
def test_a_wrong_turn_is_one_line_with_the_right_exit_code(ran: Path, arguments: list[str], code: int, message: str):
    (ran / "torn.yaml").write_text("name: [")
    train = "name: t\ntask: train\nmethods: [videomae-tiny]\nsweep: [{frames: 4, resolution: 32}]\nbudget: {match_on: steps, amount: 2}\ndataset: egogestar\n"
    (ran / "train.yaml").write_text(train)
    if sys.platform == "linux" and arguments[-1] == "cuda" and Path("/dev/nvidiactl").exists():
        pytest.skip("there is a GPU here")
    ended = benchctl(*arguments, folder=ran, HF_HUB_OFFLINE="1", BENCHCTL_DATA=str(ran / "nowhere"))
    assert ended.returncode == code, ended.stderr
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    if code != 1:
        assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
        assert ended.stdout == ""


def test_pretrained_weights_that_cannot_be_had_name_the_file(ran: Path):
    arguments = ("--set", "methods=[timesformer-b]", "--set", "pretrained=true", "--set", "measure=[latency]", "--device", "cpu", "--json")
    ended = benchctl("run", "suite.yaml", *arguments, folder=ran, HF_HUB_OFFLINE="1")
    reasons = [failed["reason"] for failed in json.loads(ended.stdout)["failed"]]
    assert reasons
    assert all("facebook/timesformer-base-finetuned-k400" in reason and "BENCHCTL_WEIGHTS" in reason for reason in reasons)


def test_a_time_limit_is_an_outcome(ran: Path):
    ended = benchctl(
        "run", "suite.yaml", "--only", "videomae-tiny", "--fresh", "--timeout", "1", "--json", "--db", "timeout.db", folder=ran
    )
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["outcomes"] == {"timeout": 2}


def test_doctor_says_what_cannot_be_measured(ran: Path):
    document = json.loads(benchctl("doctor", "--json", folder=ran).stdout)
    assert document["environment"]["cpu_cores"] >= 1
    for capability in document["capabilities"]:
        assert capability["available"] or capability["detail"], "what is missing has a reason"


def test_list_names_everything(ran: Path):
    for what, name in [
        ("methods", "side4video-b"),
        ("datasets", "motion_shapes"),
        ("suites", "memory_scaling"),
        ("tables", "efficiency"),
        ("figures", "memory-scaling"),
        ("runs", "small: finished"),
    ]:
        ended = benchctl("list", what, folder=ran)
        assert ended.returncode == 0, ended.stderr
        assert name in ended.stdout


def test_the_commands_of_the_readme_exist(tmp_path: Path):
    """Every `benchctl` line of the README parses: its options are those of the command."""
    readme = (REPOSITORY / "README.md").read_text()
    lines = [line for block in re.findall(r"```\n(.*?)```", readme, re.DOTALL) for line in block.splitlines()]
    commands = [shlex.split(line.partition("#")[0]) for line in lines if line.startswith("benchctl ")]
    assert len(commands) >= 6
    for command in commands:
        helped = benchctl(command[1], "--help", folder=tmp_path)
        assert helped.returncode == 0, command
        for word in command[2:]:
            if word.startswith("--"):
                assert word in helped.stdout, command


LEARN = """\
name: learn
task: [train, evaluate]
methods: [videomae-tiny]
dataset: {name: motion_shapes, options: {train_clips_per_class: 1, test_clips_per_class: 1, frames: 8, size: 32}}
sweep: [{frames: 4, resolution: 32, batch_size: 4}]
budget: {match_on: steps, amount: 3}
recipe: {optimizer: sgd, warmup_fraction: 0, sampling: segment, eval_clips: 1}
seeds: 0
"""


def test_what_diverges_fails_and_what_needs_it_is_skipped(tmp_path: Path):
    (tmp_path / "suite.yaml").write_text(LEARN)
    cache = str(tmp_path / "cache")
    wild = benchctl("run", "suite.yaml", "--set", "recipe.learning_rate=1e30", "--json", folder=tmp_path, BENCHCTL_CACHE=cache)
    assert wild.returncode == 1
    assert json.loads(wild.stdout)["outcomes"] == {"diverged": 1, "skipped": 1}
    reason = json.loads(wild.stdout)["failed"][0]["reason"]
    assert reason.startswith("the loss became ")

    calm = benchctl("run", "suite.yaml", "--set", "recipe.learning_rate=1e-3", "--json", folder=tmp_path, BENCHCTL_CACHE=cache)
    assert calm.returncode == 0, calm.stderr
    assert json.loads(calm.stdout)["outcomes"] == {"ok": 2}
    rows = json.loads(benchctl("report", "--table", "efficiency", "--suite", "learn", "--format", "json", folder=tmp_path).stdout)["rows"]
    assert len({row["top1"] for row in rows}) == 1, "the checkpoint is what was trained"

    # the checkpoint is gone: evaluation says so instead of inventing one
    for file in (tmp_path / "results" / "checkpoints").rglob("*.pt"):
        file.unlink()
    again = benchctl(
        "run",
        "suite.yaml",
        "--set",
        "recipe.learning_rate=1e-3",
        "--only",
        "*/evaluate/*",
        "--fresh",
        "--json",
        folder=tmp_path,
        BENCHCTL_CACHE=cache,
    )
    assert json.loads(again.stdout)["outcomes"] == {"skipped": 1}
