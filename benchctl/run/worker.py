"""The child process that does jobs: the only module of this room that reaches the engine.

`python -m benchctl.run.worker` serves jobs from its standard input, see `benchctl.run.job`.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from queue import Queue

from benchctl.atomic_file import replacing
from benchctl.errors import BenchctlError
from benchctl.record import CellResult, Outcome
from benchctl.run.job import DONE, Job

#: how long training may take to write its checkpoint once the runner has gone, in seconds
FAREWELL_SECONDS = 30.0


class Lifeline:
    """Ends this process when the runner asks for it (SIGTERM) or has gone (end of standard input).

    Training is given the time to write its checkpoint: it watches `stop`. Anything else is ended on the spot.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._graceful = threading.Event()
        self._idle = threading.Event()
        self._lines: Queue[str | None] = Queue()
        signal.signal(signal.SIGTERM, lambda _number, _frame: self._end(143))
        threading.Thread(target=self._read, daemon=True, name="runner-watch").start()

    def jobs(self) -> Iterator[tuple[Job, Path]]:
        """Each job and the path of its result file, until standard input ends."""
        while True:
            self._idle.set()
            line = self._lines.get()
            if line is None:
                return
            self._idle.clear()
            request = json.loads(line)
            job = Job.model_validate_json(Path(request["job"]).read_bytes())
            if job.kind == "execute" and job.cell.task in ("pretrain", "train"):
                self._graceful.set()
            yield job, Path(request["result"])
            self._graceful.clear()

    def _read(self) -> None:
        for line in sys.stdin:
            self._lines.put(line)
        self._lines.put(None)
        if not self._idle.is_set():
            self._end(1)
            time.sleep(FAREWELL_SECONDS)
            os._exit(1)

    def _end(self, code: int) -> None:
        if self.stop.is_set() or not self._graceful.is_set():
            os._exit(code)
        self.stop.set()


def serve() -> None:
    """Do jobs until standard input ends."""
    # where it hangs, for whoever asks
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    # libraries print; only `done` may reach the runner
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    lifeline = Lifeline()
    for job, result_file in lifeline.jobs():
        result = do(job, lifeline.stop)
        with replacing(result_file) as file:
            file.write(result.model_dump_json().encode())
        answers.write(DONE + "\n")


def do(job: Job, stop: threading.Event) -> CellResult:
    """Do one job. Whatever happens inside it is an outcome."""
    started_at, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    try:
        result = _dispatch(job, stop)
    except BenchctlError as error:
        result = _failed(job, started_at, str(error))
    except Exception as error:
        # the whole story goes to the worker's log, its first line to the user
        traceback.print_exc()
        first = " ".join(str(error).split())[:300]
        result = _failed(job, started_at, f"{type(error).__name__}: {first}" if first else type(error).__name__)
    return result.model_copy(update={"started_at": started_at, "seconds": time.monotonic() - clock})


def _dispatch(job: Job, stop: threading.Event) -> CellResult:
    # not at the top: a worker that cannot import torch must still be able to say so
    from benchctl.engine import work
    from benchctl.engine.learning import WorkSettings

    if job.kind == "predict":
        return work.predict(job.cell)
    if job.device is None:
        raise BenchctlError("a job to execute names no device")
    settings = WorkSettings(
        device=job.device,
        data_root=Path(job.data_root) if job.data_root else None,
        checkpoint_folder=Path(job.checkpoint_folder) if job.checkpoint_folder else None,
        checkpoint=Path(job.checkpoint) if job.checkpoint else None,
        step_flops=list(job.step_flops) if job.step_flops else None,
        resume=Path(job.resume) if job.resume else None,
        micro_batch=job.micro_batch,
    )
    return work.execute(job.cell, settings, stop)


def _failed(job: Job, started_at: str, reason: str) -> CellResult:
    return CellResult(cell_id=job.cell.id, outcome=Outcome.FAILED, reason=reason, started_at=started_at, seconds=0)


if __name__ == "__main__":
    serve()
