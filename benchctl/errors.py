"""Every error that reaches a user, each with the exit code it ends the command with.

    BenchctlError                 1  a failed cell, or anything without a kind of its own
    ├── UsageError                2  what was typed cannot be right
    │   ├── SuiteError            2  a suite file, with file:line:column
    │   ├── UnknownName           2  a method, data set, table ... that is not there, with near misses
    │   └── ShapeError            2  a clip shape that a method cannot take
    ├── MissingError              3  the environment lacks something
    │   ├── DataMissing           3  a data root or its files
    │   ├── WeightsMissing        3  a checkpoint that could not be fetched
    │   ├── DeviceMissing         3  a GPU or its driver
    │   └── StoreError            3  a results database that is locked, corrupt, read-only, newer, or full
    ├── ClipUnreadable            1  one video file that cannot be decoded
    ├── TraceFailed               1  a model that memory prediction could not trace
    └── Inconclusive              4  the database does not hold enough to answer

A message is one line: where, what, and the fix.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BenchctlError(Exception):
    """One line for the user: `where: what; fix`."""

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what, where, fix)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        line = f"{line}; {self.fix}" if self.fix else line
        return " ".join(line.split())

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword arguments do not survive pickling by default; data-loader workers pickle them.
        return (_rebuild, (type(self), self.what, self.where, self.fix))


def _rebuild(kind: type[BenchctlError], what: str, where: str | None, fix: str | None) -> BenchctlError:
    return kind(what, where=where, fix=fix)


class UsageError(BenchctlError):
    """What was typed cannot be right."""

    exit_code = 2


class SuiteError(UsageError):
    """A suite file is wrong; `where` is `file:line:column`."""


class UnknownName(UsageError):
    """A name that nothing is registered under."""


class ShapeError(UsageError):
    """A clip shape that a method cannot take."""


class MissingError(BenchctlError):
    """The environment lacks something."""

    exit_code = 3


class DataMissing(MissingError):
    """A data root or its files are not there."""


class WeightsMissing(MissingError):
    """A checkpoint is not on this machine and could not be fetched."""


class DeviceMissing(MissingError):
    """A GPU or its driver is not there."""


class StoreError(MissingError):
    """A results database that cannot be used as it is."""


class ClipUnreadable(BenchctlError):
    """One video file that cannot be decoded; `where` is its path."""


class TraceFailed(BenchctlError):
    """Memory prediction could not trace this model; there is no number, and none is made up."""


class Inconclusive(BenchctlError):
    """The database does not hold enough to answer."""

    exit_code = 4


def unknown(kind: str, name: str, known: Iterable[str], *, where: str | None = None) -> UnknownName:
    """The error for `name`, with the nearest known names, or all of them when none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if near:
        fix = "did you mean " + " or ".join(f"'{n}'" for n in near) + "?"
    elif known:
        fix = f"known: {', '.join(known)}"
    else:
        fix = f"no {kind} is registered"
    return UnknownName(f"unknown {kind} '{name}'", where=where, fix=fix)
