"""Pins and the gate as a user meets them: a suite is run, accepted, changed and checked; every bad input is one line."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from test_commands import benchctl

SUITE = """\
name: small
task: profile
methods: [moss-tiny, timesformer-tiny]
sweep:
  - {frames: 4, resolution: [32, 64, 96]}
measure: [flops, params]
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a small suite has run, with its pins."""
    folder = tmp_path_factory.mktemp("gate")
    (folder / "suite.yaml").write_text(SUITE)
    ended = benchctl("run", "suite.yaml", folder=folder)
    assert ended.returncode == 0, ended.stderr
    accepted = benchctl("baseline", "accept", "pins.yaml", "--run", run_id(folder), "--reason", "First pins", folder=folder)
    assert accepted.returncode == 0, accepted.stderr
    assert len(accepted.stdout.splitlines()) == 6
    return folder


def run_id(folder: Path) -> str:
    return benchctl("list", "runs", folder=folder).stdout.split()[0]


def changed(folder: Path, name: str, *changes: tuple[str, str]) -> Path:
    """A copy of the pins with some of their text replaced."""
    text = (folder / "pins.yaml").read_text()
    for old, new in changes:
        assert re.search(old, text), old
        text = re.sub(old, new, text, count=1)
    file = folder / name
    file.write_text(text)
    return file


def one_line(folder: Path, code: int, *words: str) -> str:
    ended = benchctl(*words, folder=folder)
    assert ended.returncode == code, ended.stderr
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("benchctl: ")
    return lines[0]


def test_what_was_accepted_passes(ran: Path) -> None:
    ended = benchctl("check", "pins.yaml", folder=ran)
    assert ended.returncode == 0
    assert re.fullmatch(r"small against pins\.yaml: passed \(\d+ pass\)\n", ended.stdout)
    every = benchctl("check", "pins.yaml", "--all", folder=ran).stdout
    assert "macs without_attention" in every
    assert every.count("outcome") == 6
    again = benchctl("baseline", "accept", "pins.yaml", "--run", run_id(ran), "--reason", "Again", folder=ran)
    assert again.returncode == 0
    assert "came to what is pinned already; nothing was written" in again.stderr


def test_a_regression_in_every_form(ran: Path) -> None:
    less = changed(ran, "less.yaml", (r"macs all: (\d+)(\d)\n", r"macs all: \g<1>\n"))
    text = benchctl("check", str(less), folder=ran)
    assert text.returncode == 1
    head, _, titles, _, first, *_ = text.stdout.splitlines()
    assert head.startswith("small against less.yaml: regressed (1 regressed, ")
    assert titles.split() == ["verdict", "cell", "what", "pinned", "found", "change", "rule"]
    assert re.match(r"regressed +moss-tiny/profile/1x4x32/fp32/sdpa/seed0 +macs all +[\d,]+ +[\d,]+ +\+\d+\.\d\d %  exact", first)

    document = json.loads(benchctl("check", str(less), "--format", "json", folder=ran).stdout)
    assert (document["schema_version"], document["exit_code"], document["counts"]["regressed"]) == (1, 1, 1)
    assert document["verdicts"][0]["word"] == "regressed"
    assert sum(document["counts"].values()) == len(document["verdicts"])

    markdown = benchctl("check", str(less), "--format", "markdown", folder=ran).stdout.splitlines()
    assert markdown[0].startswith("**small against less.yaml: regressed (")
    assert markdown[2] == "| verdict | cell | what | pinned | found | change | rule |"
    assert len(markdown) == 5

    junit = benchctl("check", str(less), "--format", "junit", "-o", "gate.xml", folder=ran)
    assert (junit.returncode, junit.stdout) == (1, "")
    root = ElementTree.parse(ran / "gate.xml").getroot()
    (suite,) = root
    assert int(suite.get("tests", 0)) == len(suite.findall("testcase")) == len(document["verdicts"])
    (failure,) = suite.iter("failure")
    assert "exact" in failure.get("message", "")
    assert (suite.get("failures"), suite.get("errors")) == ("1", "0")


def test_growth_is_gated(ran: Path) -> None:
    every = json.loads(benchctl("check", "pins.yaml", "--format", "json", folder=ran).stdout)["verdicts"]
    assert not [v for v in every if v["subject"].startswith("growth")], "counts do not grow in memory"


def test_a_missing_cell_is_never_a_pass(ran: Path) -> None:
    other = changed(
        ran, "missing.yaml", (r"cell: (\"?)[0-9a-f]{16}", r"cell: \g<1>000000000000000f"), (r"resolution: 32", "resolution: 33")
    )
    ended = benchctl("check", str(other), folder=ran)
    assert ended.returncode == 4
    assert "inconclusive" in ended.stdout
    assert "no result of this cell" in ended.stdout


def test_two_runs_are_compared(ran: Path) -> None:
    ended = benchctl("run", "suite.yaml", "--fresh", folder=ran)
    assert ended.returncode == 0
    second, first = (line.split()[0] for line in benchctl("list", "runs", folder=ran).stdout.splitlines()[:2])
    ended = benchctl("compare", first, second, folder=ran)
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.startswith(f"{second} against {first}: passed (")


def test_two_commands_are_timed_in_turns(ran: Path) -> None:
    quick, slow = (f"python -c 'import time; time.sleep({seconds})'" for seconds in (0.01, 0.09))
    ended = benchctl("compare", "--ab", quick, slow, "--rounds", "8", "--format", "json", folder=ran)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    (verdict,) = json.loads(ended.stdout)["verdicts"]
    assert verdict["word"] == "regressed"
    assert "8 and 8 times in turns" in verdict["rule"]
    assert "cannot be started" in one_line(ran, 2, "compare", "--ab", "no-such-command", quick)
    assert "ended with 3: why" in one_line(
        ran, 1, "compare", "--ab", quick, "python -c 'import sys; print(\"why\", file=sys.stderr); sys.exit(3)'"
    )
    assert "two runs are compared" in one_line(ran, 2, "compare")
    assert "no runs" in one_line(ran, 2, "compare", "x", "--ab", quick, slow)


def test_bad_pins(ran: Path) -> None:
    torn = ran / "torn.yaml"
    torn.write_text((ran / "pins.yaml").read_text()[:700])
    assert "torn.yaml:" in one_line(ran, 2, "check", "torn.yaml")
    newer = changed(ran, "newer.yaml", (r"^version: 1", "version: 7"))
    assert "newer.yaml:1:1: version: pins of version 7, and this benchctl reads up to 1; use a newer benchctl" in one_line(
        ran, 2, "check", str(newer)
    )
    unknown = changed(ran, "unknown.yaml", (r"method: moss-tiny", "method: mos-tiny"))
    assert "unknown method 'mos-tiny'; did you mean 'moss-tiny'" in one_line(ran, 2, "check", str(unknown))
    assert "did you mean 'ci'" in one_line(ran, 2, "check", "cii")
    assert "cannot be read" in one_line(ran, 2, "check", "none.yaml")
    assert "no results database" in one_line(ran, 3, "check", "pins.yaml", "--db", "none.db")
    other = changed(ran, "other.yaml", (r"suite: small", "suite: large"))
    assert "suite 'large' was never run" in one_line(ran, 4, "check", str(other))
    assert "of suite 'small'" in one_line(ran, 2, "check", str(other), "--run", run_id(ran))
    assert "the reason is empty" in one_line(ran, 2, "baseline", "accept", "pins.yaml", "--run", run_id(ran), "--reason", " ")
    assert "unknown run" in one_line(ran, 2, "baseline", "accept", "pins.yaml", "--run", "x", "--reason", "So")


def test_a_run_that_has_not_ended(ran: Path, tmp_path: Path) -> None:
    """A killed run says `running` for ever: the database of one, made from that of a finished one."""
    source, copy = sqlite3.connect(ran / "results" / "benchctl.db"), sqlite3.connect(tmp_path / "going.db")
    source.backup(copy)
    copy.execute("DROP TRIGGER runs_finish")
    copy.execute("UPDATE runs SET status = 'running', finished_at = NULL")
    copy.commit()
    copy.close()
    source.close()
    db = str(tmp_path / "going.db")
    assert "has not ended; wait for it" in one_line(ran, 4, "check", "pins.yaml", "--db", db)
    assert "has not ended" in one_line(ran, 4, "baseline", "accept", "new.yaml", "--run", run_id(ran), "--reason", "So", "--db", db)
    assert not (ran / "new.yaml").exists()


def test_a_failed_cell_is_no_baseline(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE.replace("measure: [flops, params]", "timeout_s: 0.01"))
    assert benchctl("run", "suite.yaml", "--only", "moss-tiny/*x32/*", folder=tmp_path).returncode == 1
    said = one_line(tmp_path, 2, "baseline", "accept", "pins.yaml", "--run", run_id(tmp_path), "--reason", "So")
    assert "ended as timeout: that is nothing to compare with" in said


def test_claims_without_results(tmp_path: Path) -> None:
    ended = benchctl("claims", "moss_motion", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("3 claims: 0 holds, 0 contradicted, 3 undecided")
    assert "benchctl run moss_motion --only 'moss-tiny(orders=1)/train/*x4x*/*/*'" in ended.stdout
    document = json.loads(benchctl("claims", "--format", "json", folder=tmp_path).stdout)
    assert len(document["claims"]) >= 25
    assert {claim["judged"] for claim in document["claims"]} == {"undecided"}
    assert "did you mean 'moss'" in one_line(tmp_path, 2, "claims", "--paper", "mos")
    assert "did you mean 'moss_motion'" in one_line(tmp_path, 2, "claims", "moss_motin")


def test_a_claim_is_judged_by_what_was_run(tmp_path: Path) -> None:
    ended = benchctl("run", "movt", "--only", "movt/profile/1x32x224/*", "--only", "videomae-s(tubelet_size=1)/*", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    said = benchctl("claims", "movt", folder=tmp_path).stdout
    assert said.startswith("1 claim: 1 holds, 0 contradicted, 0 undecided")
    assert "movt 0.51 G, videomae-s(tubelet_size=1) 3.19 G: 0.161 x" in said
    table = benchctl("claims", "movt", "--format", "markdown", folder=tmp_path).stdout
    assert "| movt/tracks-cost-little | holds | 0.51 G | 3.19 G | 0.161 x |" in table


@pytest.mark.parametrize("words", [["check", "pins.yaml"], ["claims"]], ids=" ".join)
def test_verdicts_need_no_torch(ran: Path, words: list[str]) -> None:
    code = (
        "import sys\nfrom benchctl.cli.app import main\n"
        f"sys.argv = ['benchctl', *{words!r}, '--db', 'results/benchctl.db']\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    print('ENDED', ended.code, *sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ran, check=True)
    state, _, modules = ended.stdout.rpartition("ENDED ")[2].partition(" ")
    assert state == "0"
    assert "benchctl.report.verdicts" in modules or "benchctl.report.judgements" in modules
    assert not set(modules.split()) & {"torch", "numpy", "scipy", "pandas", "matplotlib"}
