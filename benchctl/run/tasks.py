"""Processes that a launcher starts on several nodes, one for each GPU: `srun`, or `torchrun`.

All of them run the same `benchctl run`. The first is the runner. Each of the others is its hand on another GPU: it starts a worker when the
runner asks for one, hands on what the runner says, and tells what the worker answers. They meet by a file in the results folder, which
names the runner's address and a key; that folder must be one that all nodes see, as they must see data and checkpoints.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Literal

from benchctl.atomic_file import replacing
from benchctl.errors import BenchctlError, MissingError
from benchctl.record import Outcome
from benchctl.run.process import GRACE_SECONDS, POLL_SECONDS, Answer, Worker

#: environment variable: how long tasks wait for each other, in seconds, and how long where it is not set
JOIN = "BENCHCTL_JOIN_SECONDS"
JOIN_SECONDS = 120.0


@dataclass(frozen=True)
class Tasks:
    """This process among those that a launcher started."""

    launcher: Literal["srun", "torchrun"]
    #: from 0; the first is the runner
    number: int
    count: int
    #: number on its node
    local: int
    nodes: int
    #: of what was started, so that two starts do not meet each other
    name: str
    #: name or address by which other nodes reach this one
    address: str

    @property
    def first(self) -> bool:
        """Whether it is the runner."""
        return self.number == 0


def tasks(environment: Mapping[str, str] = os.environ) -> Tasks | None:
    """What the launcher says in environment variables; None: this process is alone."""
    found = _torchrun(environment) if "TORCHELASTIC_RUN_ID" in environment else _srun(environment)
    return found if found is not None and found.count > 1 else None


def _torchrun(said: Mapping[str, str]) -> Tasks:
    name = f"torchrun-{said['TORCHELASTIC_RUN_ID']}-{said['MASTER_PORT']}"
    number, count, local, nodes = (int(said[key]) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_WORLD_SIZE"))
    return Tasks("torchrun", number, count, local, nodes, name, said["MASTER_ADDR"])


def _srun(said: Mapping[str, str]) -> Tasks | None:
    """Of a step alone: in a batch script, which is one process, the job's variables are there too."""
    keys = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_NUM_NODES")
    if any(key not in said for key in keys):
        return None
    number, count, local, nodes = (int(said[key]) for key in keys)
    name = f"slurm-{said.get('SLURM_JOB_ID', '0')}.{said.get('SLURM_STEP_ID', '0')}"
    return Tasks("srun", number, count, local, nodes, name, said.get("SLURMD_NODENAME") or socket.gethostname())


def join_seconds() -> float:
    """How long tasks wait for each other."""
    return float(os.environ.get(JOIN, JOIN_SECONDS))


def _meeting(folder: Path, of: Tasks) -> Path:
    return folder / "work" / f"{of.name}.meeting"


class Hand:
    """Another task as the runner sees it."""

    def __init__(self, connection: Connection[Any, Any], number: int, local: int, host: str) -> None:
        self.number = number
        self.local = local
        self.host = host
        self._connection = connection
        # who lost a lease ends workers from a thread of its own
        self._lock = threading.Lock()
        self.gone = False

    def say(self, *words: Any) -> None:
        """Send a request, and do not wait; one who is gone hears nothing."""
        with self._lock:
            try:
                self._connection.send(words)
            except OSError:
                self.gone = True

    def hear(self, within_s: float) -> tuple[Any, ...] | None:
        """What it says within that time."""
        try:
            if self.gone or not self._connection.poll(within_s):
                return None
            words: tuple[Any, ...] = self._connection.recv()
        except (OSError, EOFError):
            self.gone = True
            return None
        return words

    def close(self) -> None:
        """Let it go."""
        self.say("bye")
        self._connection.close()


class RemoteWorker:
    """A worker that another task started, asked as one's own is."""

    def __init__(self, hand: Hand, log: Path, *, threads: int | None, extra: Mapping[str, str]) -> None:
        self._hand = hand
        self.log = log
        self.signalled = False
        #: the first task does not see its state
        self.frozen = False
        hand.say("start", str(log.resolve()), threads, dict(extra))

    def hand_over(self, job_file: Path, result_file: Path) -> Answer | None:
        """Give it one job, and do not wait."""
        self._hand.say("hand_over", str(job_file.resolve()), str(result_file.resolve()))
        return None

    def answered(self, within_s: float) -> Answer | None:
        """What it says within that time about the job; None: nothing yet."""
        words = self._hand.hear(within_s)
        if words is not None:
            _, outcome, reason, self.signalled = words
            return Answer(Outcome(outcome), reason)
        if self._hand.gone:
            self.signalled = True
            return Answer(Outcome.FAILED, f"task {self._hand.number} on {self._hand.host} is gone")
        return None

    def ask_to_end(self) -> None:
        """Ask it to end, and do not wait."""
        self._hand.say("ask_to_end")

    def end(self, *, grace_s: float = GRACE_SECONDS) -> None:
        """End it and everything it started: first asked, then not."""
        self._hand.say("end", grace_s)
        deadline = time.monotonic() + grace_s + GRACE_SECONDS
        while not self._hand.gone and time.monotonic() < deadline:
            if (words := self._hand.hear(POLL_SECONDS)) is not None and words[0] == "ended":
                return

    def kill(self) -> None:
        """End it and everything it started at once."""
        self._hand.say("signal", int(signal.SIGKILL))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and everything it started."""
        self._hand.say("signal", int(number))


class Hands:
    """The other tasks, gathered by the runner."""

    def __init__(self, of: Tasks, folder: Path) -> None:
        """Wait until all of them have come.

        Raises:
            MissingError: some did not; nothing was started.
        """
        self.address = of.address
        self._file = _meeting(folder, of)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._hands: dict[int, Hand] = {}
        key = secrets.token_bytes(32)
        try:
            self._listener = Listener((of.address, 0), backlog=of.count, authkey=key)
        except OSError as problem:
            raise MissingError(f"cannot listen there for the other tasks: {problem}", where=of.address) from None
        host, port = self._listener.address
        self._file.unlink(missing_ok=True)
        with replacing(self._file) as file:
            Path(file.name).chmod(0o600)
            file.write(json.dumps({"address": host, "port": port, "key": key.hex()}).encode())
        everyone = threading.Event()
        threading.Thread(target=self._accept, args=(of.count - 1, everyone), daemon=True, name="gather").start()
        if not everyone.wait(join_seconds()):
            self.close()
            absent = ", ".join(str(number) for number in range(1, of.count) if number not in self._hands)
            what = f"of the tasks 0 to {of.count - 1}, {absent} did not come within {join_seconds():g} s"
            raise MissingError(
                what, where=f"{host}:{port}", fix=f"see that their nodes reach this address, and see {folder}; {JOIN} sets the time"
            )

    def _accept(self, count: int, everyone: threading.Event) -> None:
        while len(self._hands) < count:
            try:
                connection = self._listener.accept()
                number, local, host = connection.recv()
            except (AuthenticationError, EOFError, ValueError):
                # not one of us
                continue
            except OSError:
                return
            self._hands[number] = Hand(connection, number, local, host)
        everyone.set()

    def __getitem__(self, number: int) -> Hand:
        return self._hands[number]

    def __enter__(self) -> Hands:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let all of them go."""
        self._file.unlink(missing_ok=True)
        self._listener.close()
        for hand in self._hands.values():
            hand.close()


def follow(of: Tasks, folder: Path) -> None:
    """Be the runner's hand until it lets go.

    Raises:
        MissingError: the runner cannot be found or reached.
        BenchctlError: it is gone.
    """
    with contextlib.closing(_connected(of, folder)) as runner:
        # Slurm and torchrun send them to all tasks: the first one decides what comes of it
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        work = _Work(runner)
        try:
            runner.send((of.number, of.local, socket.gethostname()))
            while work.goes_on:
                work.report()
                if runner.poll(POLL_SECONDS / 4):
                    what, *about = runner.recv()
                    getattr(work, what)(*about)
        except (OSError, EOFError):
            raise BenchctlError(f"task {of.number}: the first task is gone", where=socket.gethostname()) from None
        finally:
            work.drop()


class _Work:
    """What a hand does: methods that the runner calls by their names."""

    def __init__(self, runner: Connection[Any, Any]) -> None:
        self._runner = runner
        self._worker: Worker | None = None
        self._waiting = False
        self.goes_on = True

    def report(self) -> None:
        """Hand on what the worker answers, once."""
        if self._worker is not None and self._waiting:
            self._answer(self._worker, self._worker.answered(0.0))

    def _answer(self, worker: Worker, answer: Answer | None) -> None:
        self._waiting = answer is None
        if answer is not None:
            self._runner.send(("answer", answer.outcome.value, answer.reason, worker.signalled))

    def bye(self) -> None:
        self.goes_on = False

    def start(self, log: str, threads: int | None, extra: dict[str, str]) -> None:
        self._worker = Worker(Path(log), threads=threads, extra=extra)

    def hand_over(self, job: str, result: str) -> None:
        if self._worker is not None:
            self._answer(self._worker, self._worker.hand_over(Path(job), Path(result)))

    def ask_to_end(self) -> None:
        if self._worker is not None:
            self._worker.ask_to_end()

    def signal(self, number: int) -> None:
        if self._worker is not None:
            self._worker.signal(signal.Signals(number))

    def end(self, grace_s: float) -> None:
        self.drop(grace_s)
        self._runner.send(("ended",))

    def drop(self, grace_s: float = 0.0) -> None:
        if self._worker is not None:
            self._worker.end(grace_s=grace_s)
        self._worker, self._waiting = None, False


def _connected(of: Tasks, folder: Path) -> Connection[Any, Any]:
    file, deadline = _meeting(folder, of), time.monotonic() + join_seconds()
    problem = f"{file} does not appear"
    while time.monotonic() < deadline:
        try:
            met = json.loads(file.read_bytes())
            return Client((met["address"], met["port"]), authkey=bytes.fromhex(met["key"]))
        except FileNotFoundError:
            pass
        except (OSError, EOFError, ValueError, AuthenticationError) as error:
            # also what an earlier start left behind
            problem = f"{file}: {error}"
        time.sleep(POLL_SECONDS)
    what = f"task {of.number} of {of.count} cannot reach the first one: {problem}"
    fix = "put the results folder where all nodes see it, and open the ports between them"
    raise MissingError(what, where=socket.gethostname(), fix=fix)
