"""The protocol between runner and worker, and every way in which a worker can fail."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchctl.recipe import Recipe
from benchctl.record import CellResult, Outcome
from benchctl.run import process
from benchctl.run.job import Job
from benchctl.run.process import Answer, Worker, ask
from benchctl.spec import Cell
from benchctl.vocabulary import ClipShape


def cell() -> Cell:
    from benchctl.methods import videomae

    return Cell(
        task="profile",
        method="videomae-tiny",
        config=videomae.Config.model_validate(videomae.PRESETS["videomae-tiny"]).model_dump(mode="json"),
        shape=ClipShape(frames=2, resolution=32),
        precision="fp32",
        attention="sdpa",
        pretrained=False,
        pad=False,
        num_classes=4,
        seed=0,
        recipe=Recipe(),
        measure=("flops", "memory", "params"),
    )


JOB = Job(kind="predict", cell=cell())


def impostor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> Worker:
    """A worker process that runs `code` instead, with `request` the first line it is given."""
    script = tmp_path / "impostor.py"
    script.write_text("import json, os, sys, time, signal, subprocess\nrequest = json.loads(sys.stdin.readline())\n" + code)
    real = subprocess.Popen

    def popen(command: list[str], **options: object) -> object:
        return real([sys.executable, str(script)] if "benchctl.run.worker" in command else command, **options)

    monkeypatch.setattr(process.subprocess, "Popen", popen)
    return Worker(tmp_path / "worker.log")


def asked(worker: Worker, tmp_path: Path, timeout_s: float = 30, stop: threading.Event | None = None) -> CellResult | Answer:
    try:
        return ask(worker, JOB, tmp_path, timeout_s=timeout_s, stop=stop or threading.Event())
    finally:
        worker.end()


def test_a_warm_worker_does_one_job_after_the_other(tmp_path: Path):
    worker = Worker(tmp_path / "worker.log")
    try:
        results = [ask(worker, JOB, tmp_path, timeout_s=120, stop=threading.Event()) for _ in range(2)]
        assert worker.alive
    finally:
        worker.end()
    assert not worker.alive
    first, second = results
    assert isinstance(first, CellResult), first
    assert isinstance(second, CellResult)
    assert first.outcome is Outcome.OK
    assert first.measurements == second.measurements, "a prediction does not depend on what ran before"
    assert not list(tmp_path.glob("*.json")), "nothing is left lying about"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print('out of luck', file=sys.stderr); sys.exit(3)", "the worker ended with exit code 3: out of luck"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "the worker was ended by SIGKILL (out of memory?)"),
        ("os.kill(os.getpid(), signal.SIGABRT)", "the worker was ended by SIGABRT"),
        ("print('done', flush=True); time.sleep(60)", "the worker left no result file"),
        ("open(request['result'], 'w').write('{\"cell'); print('done', flush=True); time.sleep(60)", "the worker's result cannot be read"),
        ("print('hello', flush=True); time.sleep(60)", "the worker said 'hello' instead of 'done'"),
    ],
)
def test_a_worker_that_fails_is_an_outcome(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, reason: str):
    answer = asked(impostor(monkeypatch, tmp_path, code), tmp_path)
    assert isinstance(answer, Answer)
    assert answer.outcome is Outcome.FAILED
    assert answer.reason.startswith(reason)


def test_a_result_for_another_cell_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    wrong = CellResult(cell_id="other", outcome=Outcome.OK, started_at="2026-01-01T00:00:00+00:00", seconds=1).model_dump_json()
    answer = asked(
        impostor(monkeypatch, tmp_path, f"open(request['result'], 'w').write({wrong!r}); print('done', flush=True); time.sleep(9)"),
        tmp_path,
    )
    assert isinstance(answer, Answer)
    assert answer.reason == "the worker's result is for another cell, other"


def test_a_time_limit_ends_the_worker_and_what_it_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    code = "child = subprocess.Popen(['sleep', '600']); open('PID', 'w').write(str(child.pid)); time.sleep(600)".replace(
        "PID", str(tmp_path / "pid")
    )
    answer = asked(impostor(monkeypatch, tmp_path, code), tmp_path, timeout_s=2)
    assert answer == Answer(Outcome.TIMEOUT, "took longer than 2 s")
    child = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().rpartition(")")[2][:3]:
        assert time.monotonic() < deadline, "a process of the worker outlived it"
        time.sleep(0.05)


def test_a_stubborn_worker_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.5)
    answer = asked(impostor(monkeypatch, tmp_path, "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"), tmp_path, timeout_s=1)
    assert answer.outcome is Outcome.TIMEOUT


def test_stopping_is_an_outcome(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    stop = threading.Event()
    stop.set()
    answer = asked(impostor(monkeypatch, tmp_path, "time.sleep(600)"), tmp_path, stop=stop)
    assert answer == Answer(Outcome.INTERRUPTED, "interrupted by the user")


def test_a_method_that_raises_is_one_line_for_the_user_and_a_traceback_for_the_log(tmp_path: Path):
    worker = Worker(tmp_path / "worker.log")
    broken = JOB.model_copy(update={"cell": JOB.cell.model_copy(update={"config": {"patch_size": "x"}})})
    try:
        result = ask(worker, broken, tmp_path, timeout_s=120, stop=threading.Event())
    finally:
        worker.end()
    assert isinstance(result, CellResult)
    assert result.outcome is Outcome.FAILED
    assert "\n" not in result.reason
    assert "Traceback" in (tmp_path / "worker.log").read_text()


def test_the_protocol_is_one_json_object_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    code = "json.dump(request, open('SEEN', 'w')); sys.exit(0)".replace("SEEN", str(tmp_path / "seen"))
    asked(impostor(monkeypatch, tmp_path, code), tmp_path)
    seen = json.loads((tmp_path / "seen").read_text())
    assert set(seen) == {"job", "result"}
