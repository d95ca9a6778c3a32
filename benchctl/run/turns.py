"""Times of two commands, taken in turns on one machine: what else happens there happens to both."""

from __future__ import annotations

import shlex
import subprocess
import time
from typing import NamedTuple

from benchctl.errors import BenchctlError, UsageError


class Turns(NamedTuple):
    """Wall-clock seconds of each command, round by round."""

    before: tuple[float, ...]
    after: tuple[float, ...]


def timed_in_turns(before: str, after: str, *, rounds: int) -> Turns:
    """Run both commands once without counting, and then `rounds` times each: A B, B A, A B ..., so that neither is always first.

    Args:
        before: a command as a shell has it, without the shell's own words.
        after: likewise.
        rounds: of both.

    Raises:
        UsageError: a command that does not exist.
        BenchctlError: one that fails; its time would say nothing.
    """
    commands = [_words(command) for command in (before, after)]
    for command in commands:
        _timed(command)
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            times[which].append(_timed(commands[which]))
    return Turns(tuple(times[0]), tuple(times[1]))


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as problem:
        raise UsageError(f"{problem}".lower(), where=f"--ab {command}", fix="close the quotation") from None
    if not words:
        raise UsageError("a command is empty", where="--ab")
    return words


def _timed(command: list[str]) -> float:
    start = time.perf_counter()
    try:
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    except OSError as problem:
        raise UsageError(f"cannot be started: {problem.strerror}", where=f"--ab {shlex.join(command)}") from None
    seconds = time.perf_counter() - start
    if ended.returncode:
        last = (ended.stderr.decode(errors="replace").strip().splitlines() or ["it says nothing"])[-1]
        raise BenchctlError(f"ended with {ended.returncode}: {last[:200]}", where=f"--ab {shlex.join(command)}", fix="mend it first")
    return seconds
