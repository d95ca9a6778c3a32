"""Worker processes as the runner sees them: start, ask, time limit, end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import MappingProxyType
from typing import Protocol

from pydantic import ValidationError

from benchctl.atomic_file import replacing
from benchctl.record import CellResult, Outcome
from benchctl.run.job import DONE, Job

#: seconds between asking a worker to end and ending it
GRACE_SECONDS = 5.0
#: how often a waiting runner looks whether it was interrupted, in seconds
POLL_SECONDS = 0.2
#: environment variables that torchrun sets for each process, and how the rest of them begin
_OF_TORCHRUN = {f"{of}{what}" for of in ("", "LOCAL_", "GROUP_", "ROLE_") for what in ("RANK", "WORLD_SIZE")} | {
    "MASTER_ADDR",
    "MASTER_PORT",
}
_OF_ELASTIC = "TORCHELASTIC_"


@dataclass(frozen=True)
class Answer:
    """How a job ended as far as the process goes: a result file in place, or why there is none."""

    outcome: Outcome
    reason: str | None = None


class Worker:
    """One child process that does jobs one after the other. Not shared between threads."""

    def __init__(self, log: Path, *, threads: int | None = None, extra: Mapping[str, str] = MappingProxyType({})) -> None:
        """Start the process.

        Args:
            log: file that its output goes to.
            threads: CPU threads it may use; None: as many as torch takes.
            extra: environment variables of its own.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        # what a launcher said of this process is not about its workers
        inherited = {name: value for name, value in os.environ.items() if name not in _OF_TORCHRUN and not name.startswith(_OF_ELASTIC)}
        environment = {**inherited, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false", **extra}
        # threads that spin while they wait make a step 30 times slower as soon as anything else uses a core
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        if threads is not None:
            environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        with log.open("ab") as output:
            # its own session: Ctrl-C reaches the runner alone, which then ends its workers in order
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchctl.run.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
                env=environment,
            )

    @property
    def alive(self) -> bool:
        """Whether it can take another job."""
        return self._process.poll() is None

    @property
    def told(self) -> Path:
        """Where a reader finds what it printed."""
        return self.log

    @property
    def pid(self) -> int:
        """Of its process, which leads a session of its own."""
        return self._process.pid

    @property
    def frozen(self) -> bool:
        """Whether the system keeps it from running: stopped, or waiting for a device that does not answer. False where nobody can say."""
        try:
            # the state follows the name, which is in parentheses and may hold any character
            return Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] in ("T", "t", "D")
        except (OSError, IndexError):
            return False

    @property
    def signalled(self) -> bool:
        """Whether a signal ended it."""
        code = self._process.poll()
        return code is not None and code < 0

    def do(self, job_file: Path, result_file: Path, *, timeout_s: float, stop: Event) -> Answer:
        """Hand over one job and wait. After anything but `ok` the worker has been ended."""
        answer = self.hand_over(job_file, result_file)
        deadline = time.monotonic() + timeout_s
        while answer is None and (answer := self.answered(POLL_SECONDS)) is None:
            if stop.is_set():
                answer = Answer(Outcome.INTERRUPTED, "interrupted by the user")
            elif time.monotonic() > deadline:
                answer = Answer(Outcome.TIMEOUT, f"took longer than {timeout_s:g} s")
        if answer.outcome is not Outcome.OK:
            self.end()
        return answer

    def hand_over(self, job_file: Path, result_file: Path) -> Answer | None:
        """Give it one job, and do not wait; an answer at once only where it is gone."""
        assert self._process.stdin is not None
        result_file.unlink(missing_ok=True)
        line = json.dumps({"job": str(job_file), "result": str(result_file)}) + "\n"
        try:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except OSError:
            return Answer(Outcome.FAILED, self._epitaph())
        return None

    def answered(self, within_s: float) -> Answer | None:
        """What it says within that time about the job that it was given; None: nothing yet."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], within_s)[0]:
            return None
        said = self._process.stdout.readline().decode(errors="replace").strip()
        if said == DONE:
            return Answer(Outcome.OK)
        return Answer(Outcome.FAILED, self._epitaph() if not said else f"the worker said '{said}' instead of '{DONE}'")

    def ask_to_end(self) -> None:
        """Ask it to end, and do not wait: a training then writes its checkpoint.

        By the end of its input alone. A signal beside it would be a second request, which ends it on the spot, and would reach the
        processes that load its clips.
        """
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def end(self, *, grace_s: float = GRACE_SECONDS) -> None:
        """End it and everything it started: first asked, then not."""
        self.ask_to_end()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        # also when the worker itself has gone: what it started may still be there
        self.signal(signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def kill(self) -> None:
        """End it and everything it started at once, also from another thread: it writes nothing any more."""
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and everything it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _epitaph(self) -> str:
        """Why the process is gone, with the last line of its log."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_SECONDS)
        code = self._process.returncode
        if code is None:
            how = "the worker closed its output"
        elif code < 0:
            how = f"the worker was ended by {signal.Signals(-code).name}" + (" (out of memory?)" if code == -signal.SIGKILL else "")
        else:
            how = f"the worker ended with exit code {code}"
        last = _last_line(self.log)
        return f"{how}: {last}" if last else f"{how}; log: {self.log}"


class Asked(Protocol):
    """What does jobs: one process, or several together."""

    def do(self, job_file: Path, result_file: Path, *, timeout_s: float, stop: Event) -> Answer:
        """Hand over one job and wait."""

    def end(self) -> None:
        """End it."""


def ask(worker: Asked, job: Job, folder: Path, *, timeout_s: float, stop: Event) -> CellResult | Answer:
    """Give `job` to `worker` by files in `folder`: the validated result, or why there is none."""
    job_file = folder / f"{job.cell.id}.{job.kind}.json"
    result_file = folder / f"{job.cell.id}.{job.kind}.result.json"
    with replacing(job_file) as file:
        file.write(job.model_dump_json(exclude_none=True).encode())
    answer = worker.do(job_file, result_file, timeout_s=timeout_s, stop=stop)
    try:
        if answer.outcome is not Outcome.OK:
            return answer
        result = CellResult.model_validate_json(result_file.read_bytes())
    except FileNotFoundError:
        return Answer(Outcome.FAILED, "the worker left no result file")
    except (ValidationError, ValueError) as problem:
        return Answer(Outcome.FAILED, f"the worker's result cannot be read: {str(problem).splitlines()[0]}")
    finally:
        job_file.unlink(missing_ok=True)
        result_file.unlink(missing_ok=True)
    if result.cell_id != job.cell.id:
        return Answer(Outcome.FAILED, f"the worker's result is for another cell, {result.cell_id}")
    return result


def _last_line(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip()[:300] if lines else ""
