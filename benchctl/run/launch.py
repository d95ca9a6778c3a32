"""The ranks of one cell as the runner sees them: one process each, started, watched and ended together.

Every rank is a worker process of its own session (`benchctl.run.process`) that finds its partners by the environment variables of
torch.distributed. The first of them whose end is not explained by another's is the cause, and the others are ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from benchctl.launch import Launch
from benchctl.record import CellResult, Outcome
from benchctl.run.process import POLL_SECONDS, Answer, Worker
from benchctl.run.tasks import Hands, RemoteWorker

#: of ranks that are all on one node
LOOPBACK = "127.0.0.1"
#: after the first sign of trouble, how long others are listened to: who lost a connection may speak before who caused it is seen dead
SETTLE_SECONDS = 1.0
#: how long a hung rank is given to write where it hangs into its log, in seconds
DUMP_SECONDS = 0.5
#: what the partners of a rank that is gone say
_LOST = ("connection closed", "connection reset", "connection refused", "gloo", "nccl", "broken pipe", "socket", "timed out", "timeout")
#: where a rank notes what it is doing; `benchctl.engine.ranks` reads it
_BEAT = "BENCHCTL_BEAT"


@dataclass
class _Rank:
    """One process, and what it was asked."""

    number: int
    worker: Worker | RemoteWorker
    beat: Path
    result: Path | None = None
    answer: Answer | None = None
    #: when its last note was written, by the clock of whoever keeps the file, and since when that is known, by this process's
    noted: float = 0.0
    since: float = field(default_factory=time.monotonic)

    def silent_seconds(self) -> float:
        """Since it last noted what it does."""
        with contextlib.suppress(OSError):
            if (noted := self.beat.stat().st_mtime) != self.noted:
                self.noted, self.since = noted, time.monotonic()
        return time.monotonic() - self.since

    def doing(self) -> str:
        """What it noted last."""
        try:
            return self.beat.read_text(encoding="utf-8") or "starting"
        except OSError:
            return "starting"


class RankedWorker:
    """All ranks of a cell, asked as one worker is."""

    def __init__(self, log: Path, launch: Launch, *, threads: int | None = None, hands: Hands | None = None) -> None:
        """Start the processes.

        Args:
            log: beside it, each rank has a log of its own: `NAME.rank0.log`.
            launch: how many they are, and how long one may be silent.
            threads: CPU threads that each may use; None: as many as torch takes.
            hands: the other tasks, which start one rank each; None: all ranks are of this node.
        """
        self.log = log
        self._launch = launch
        log.parent.mkdir(parents=True, exist_ok=True)
        common = {
            "MASTER_ADDR": (address := hands.address if hands else LOOPBACK),
            "MASTER_PORT": str(_free_port(address)),
            "WORLD_SIZE": str(launch.ranks),
            "LOCAL_WORLD_SIZE": str(launch.gpus),
            # what a library compiles, and the locks of that, go with the cell
            "TORCH_EXTENSIONS_DIR": str(log.with_suffix(".extensions").resolve()),
        }
        if address in (LOOPBACK, "localhost"):
            # names of machines are not looked up, and nothing leaves this one
            common |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
        self._ranks = [self._start(number, common, threads, hands) for number in range(launch.ranks)]

    def _start(self, number: int, common: dict[str, str], threads: int | None, hands: Hands | None) -> _Rank:
        beat = self.log.with_suffix(f".rank{number}.beat")
        beat.unlink(missing_ok=True)
        log = self.log.with_suffix(f".rank{number}.log")
        hand = hands[number] if hands and number else None
        # the first task is its node's first
        local = number if hands is None else hand.local if hand else 0
        extra = {**common, "RANK": str(number), "LOCAL_RANK": str(local), _BEAT: str(beat.resolve())}
        worker = Worker(log, threads=threads, extra=extra) if hand is None else RemoteWorker(hand, log, threads=threads, extra=extra)
        return _Rank(number, worker, beat)

    @property
    def told(self) -> Path:
        """Where a reader finds what they printed: a file for each rank."""
        return self.log.with_suffix(".rank*.log")

    @property
    def alive(self) -> bool:
        """Whether they can take another job: never, their process group is of one cell."""
        return False

    def do(self, job_file: Path, result_file: Path, *, timeout_s: float, stop: Event) -> Answer:
        """Hand over one job to all ranks and wait. The first rank's result is the cell's; afterwards all have been ended."""
        result_file.unlink(missing_ok=True)
        for rank in self._ranks:
            rank.result = result_file if rank.number == 0 else result_file.with_suffix(f".rank{rank.number}.json")
            rank.answer = rank.worker.hand_over(job_file, rank.result)
        try:
            return self._wait(time.monotonic() + timeout_s, timeout_s, stop)
        finally:
            self.end()

    def _wait(self, deadline: float, timeout_s: float, stop: Event) -> Answer:
        while True:
            self._listen(POLL_SECONDS)
            if stop.is_set():
                self._farewell()
                return Answer(Outcome.INTERRUPTED, "interrupted by the user")
            if (trouble := self._trouble()) is not None:
                return trouble
            if all(rank.answer is not None for rank in self._ranks):
                return Answer(Outcome.OK)
            if time.monotonic() > deadline:
                return Answer(Outcome.TIMEOUT, f"took longer than {timeout_s:g} s")
            if (hung := self._hung()) is not None:
                return hung

    def _listen(self, seconds: float) -> None:
        """Note what ranks answer within `seconds`."""
        end = time.monotonic() + seconds
        waiting = [rank for rank in self._ranks if rank.answer is None]
        while True:
            for rank in waiting:
                rank.answer = rank.worker.answered(0.0)
            waiting = [rank for rank in waiting if rank.answer is None]
            left = end - time.monotonic()
            if left <= 0 or not waiting:
                return
            time.sleep(min(left, POLL_SECONDS / 4))

    def _trouble(self) -> Answer | None:
        """Why the cell is over, if a rank is gone or says that it failed: by the first cause, not by the first to say something."""
        if not any(self._failed(rank) for rank in self._ranks):
            return None
        self._listen(SETTLE_SECONDS)
        found = [(self._order(rank, answer), rank, answer) for rank in self._ranks if (answer := self._failed(rank)) is not None]
        _, rank, answer = min(found, key=lambda each: each[0])
        return Answer(answer.outcome, f"rank {rank.number} of {self._launch.ranks}: {answer.reason}")

    def _order(self, rank: _Rank, answer: Answer) -> tuple[int, float]:
        """Who died by a signal caused it; who lost a connection did not."""
        lost = any(word in (answer.reason or "").lower() for word in _LOST)
        return (0 if rank.worker.signalled else 2 if lost else 1), -rank.silent_seconds()

    def _failed(self, rank: _Rank) -> Answer | None:
        if rank.answer is None:
            return None
        if rank.answer.outcome is not Outcome.OK or rank.result is None:
            return rank.answer
        try:
            said = CellResult.model_validate_json(rank.result.read_bytes())
        except (OSError, ValueError):
            return Answer(Outcome.FAILED, "its result cannot be read")
        # what all ranks agree on, as a loss that is not finite, is told by the first one's result
        if said.outcome in (Outcome.FAILED, Outcome.OOM):
            return Answer(said.outcome, said.reason)
        return None

    def _hung(self) -> Answer | None:
        silent = [(rank.silent_seconds(), rank) for rank in self._ranks if rank.answer is None]
        longest = max((seconds for seconds, _ in silent), default=0.0)
        if longest < self._launch.hang_timeout_s:
            return None
        # partners note a step at almost the same moment: among those, who is frozen says more than whose note is older
        alike = [(rank.worker.frozen, seconds, rank) for seconds, rank in silent if seconds > longest - SETTLE_SECONDS]
        _, seconds, hung = max(alike, key=lambda each: each[:2])
        # its log then says where
        hung.worker.signal(signal.SIGUSR1)
        time.sleep(DUMP_SECONDS)
        what = f"rank {hung.number} of {self._launch.ranks} is hung: no progress for {seconds:.0f} s, last {hung.doing()}"
        return Answer(Outcome.FAILED, what)

    def _farewell(self) -> None:
        """Let training write its checkpoint: all ranks are asked together, and stop at the same step."""
        for rank in self._ranks:
            rank.worker.ask_to_end()
        deadline = time.monotonic() + FAREWELL_SECONDS
        while time.monotonic() < deadline and any(rank.answer is None for rank in self._ranks):
            self._listen(POLL_SECONDS)

    def kill(self) -> None:
        """End all of them and everything that they started at once, also from another thread: they write nothing any more."""
        for rank in self._ranks:
            rank.worker.kill()

    def end(self) -> None:
        """End all of them, and everything that they started; remove what they shared."""
        for rank in self._ranks:
            rank.worker.ask_to_end()
        for rank in self._ranks:
            rank.worker.end(grace_s=0.0)
            rank.beat.unlink(missing_ok=True)
            if rank.number and rank.result is not None:
                rank.result.unlink(missing_ok=True)
        extensions = self.log.with_suffix(".extensions")
        with contextlib.suppress(OSError):
            _remove(extensions)


#: how long ranks that are asked to end are waited for, in seconds
FAREWELL_SECONDS = 5.0


def _remove(folder: Path) -> None:
    for root, folders, files in os.walk(folder, topdown=False):
        for name in files:
            (Path(root) / name).unlink()
        for name in folders:
            (Path(root) / name).rmdir()
    folder.rmdir()


def _free_port(address: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port
