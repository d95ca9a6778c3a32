"""What papers claim, as statements over results. Pure: `judge(claim, results)` reads no file and no clock.

    holds          the numbers say so, and not by chance
    contradicted   they say the opposite, or rule out what was claimed
    undecided      cells are missing, or chance explains what there is

A claim compares what two cells came to, in one of four forms:

    ratio       {left: 0.7 of right or less}     counts and predicted memory, which are exact
    above       left - right                     scores of trainings over seeds, by Welch's interval
    falls_less  how much each falls from another cell of its own
    ends        how cells end: within a memory cap, or out of memory
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from benchctl import yaml_file
from benchctl.errors import UsageError
from benchctl.pins import SCORES, Pin, Pins, ValueKey, varied
from benchctl.record import Outcome
from benchctl.spec import options_text
from benchctl.statistics import contrast, sample
from benchctl.vocabulary import Count, Vocabulary
from benchctl.yaml_file import FileKind, YamlFile

#: of every interval
LEVEL = 0.95
#: trainings that a mean needs
SEEDS = 3


class Which(Vocabulary):
    """The cell that a side of a claim is about, by what tells it from the others of the suite; its seeds belong together."""

    method: str
    #: changed options, as a suite writes them; also `train_fraction` and the like, as tables have them
    options: dict[str, Any] = Field(default_factory=dict)
    #: whether it starts from weights that another cell of the suite left
    started: bool = False
    frames: Count | None = None
    resolution: Count | None = None
    batch_size: Count | None = None
    precision: str | None = None

    @property
    def variant(self) -> str:
        """The method, with what was changed."""
        return varied(self.method, options_text(self.options), "*" if self.started else "")

    def fits(self, pin: Pin) -> bool:
        """Whether `pin` is such a cell."""
        words = pin.words
        given = {name: value for name in ("frames", "resolution", "batch_size", "precision") if (value := getattr(self, name)) is not None}
        same = (words.method, words.options, bool(words.start)) == (self.method, options_text(self.options), self.started)
        return same and all(getattr(words, name) == value for name, value in given.items())

    def glob(self, task: str) -> str:
        """What `--only` takes for it, and for what it starts from."""
        if self.started:
            return f"{self.method}*"
        batch, frames, resolution = (each or "*" for each in (self.batch_size, self.frames, self.resolution))
        return f"{self.variant}/{task}/{batch}x{frames}x{resolution}/{self.precision or '*'}/*"


class Claim(Vocabulary):
    """One statement of a paper, and the numbers that decide about it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    #: in words of ours
    says: str
    #: table, figure or section of the paper
    where: str
    #: the shipped suite that fills the cells
    suite: str
    task: Literal["profile", "train", "evaluate"] = "train"
    #: what is compared, as pins write it: `top1`, `peak_memory_bytes allocated predicted cuda`
    metric: str | None = None
    left: Which
    right: Which | None = None
    #: left is at most this multiple of right
    ratio: PositiveFloat | None = None
    #: left is above right by more than this
    above: float | None = None
    #: what each falls from: left loses less of its own than right does
    left_from: Which | None = None
    right_from: Which | None = None
    #: how left ends, and how right does
    ends: tuple[Outcome, ...] | None = None
    #: what a reader must know: how what is run here differs from what the paper ran
    note: str = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        forms = {
            "ratio": self.ratio is not None,
            "above": self.above is not None,
            "falls_less": self.left_from is not None or self.right_from is not None,
            "ends": self.ends is not None,
        }
        if sum(forms.values()) != 1:
            raise ValueError("a claim has one of 'ratio', 'above', 'left_from' with 'right_from', and 'ends'")
        if forms["ends"]:
            if self.metric is not None or len(self.ends or ()) != (2 if self.right else 1):
                raise ValueError("'ends' has an outcome for each side, and no 'metric'")
            return self
        if self.metric is None or self.right is None:
            raise ValueError("'metric' and 'right' are missing")
        if forms["falls_less"] and not (self.left_from and self.right_from):
            raise ValueError("'left_from' and 'right_from' go together")
        score = ValueKey.parse(self.metric).metric in SCORES
        if forms["ratio"] == score:
            raise ValueError("a ratio is of counts or memory, a difference of scores")
        return self

    @property
    def sides(self) -> tuple[Which, ...]:
        """The cells that it is about."""
        return tuple(side for side in (self.left, self.right, self.left_from, self.right_from) if side is not None)


class PaperClaims(Vocabulary):
    """A file of claims."""

    paper: str
    title: str
    claims: tuple[Claim, ...] = Field(min_length=1)


class Word(StrEnum):
    """What the database says of a claim."""

    HOLDS = "holds"
    CONTRADICTED = "contradicted"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Judgement:
    """What becomes of one claim."""

    paper: str
    claim: Claim
    word: Word
    #: left and right, as they are; None: missing
    left: float | int | str | None
    right: float | int | str | None
    #: ratio, or difference; None: there is none
    effect: float | None
    #: of the effect; None: it is exact, or there is none
    interval: tuple[float, float] | None
    #: how that was decided
    test: str
    #: labels of cells that are missing
    missing: tuple[str, ...]
    #: what fills them, or trains with more seeds; empty: it is decided
    command: str


FILE = FileKind(UsageError, "a file of claims", needs="paper, title and claims", begin="paper: ...")


def shipped() -> dict[str, Path]:
    """The papers whose claims come with benchctl, by key."""
    return yaml_file.shipped("baselines/claims")


def load(path: Path) -> PaperClaims:
    """The claims in the file `path`.

    Raises:
        UsageError: with file:line:column.
    """
    file = yaml_file.read(path, FILE)
    claims = file.validated(PaperClaims)
    _check(file, claims)
    return claims


def _check(file: YamlFile, claims: PaperClaims) -> None:
    if claims.paper != file.path.stem:
        raise file.error(
            ("paper",), f"'{claims.paper}' is in a file called '{file.path.name}'", f"call one as the other: {claims.paper}.yaml"
        )
    names = [claim.name for claim in claims.claims]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise file.error(("claims", index, "name"), f"'{name}' is there twice")


def judge(paper: str, claim: Claim, results: Pins | None) -> Judgement:
    """What `results`, those of the claim's suite, say of it; None: the suite was never run."""
    cells = [pin for pin in results.cells if pin.words.task == claim.task] if results else []
    found = [_Side(which, tuple(pin for pin in cells if which.fits(pin))) for which in claim.sides]
    needed = 1 if claim.ratio is not None or claim.ends is not None else SEEDS
    missing = [side for side in found if len(side.values(claim)) < needed]
    if missing:
        counts = ", ".join(f"{len(side.values(claim))} of {side.which.variant}" for side in missing)
        test = f"{needed} trainings are needed of each; there are {counts}" if needed > 1 else "cells are missing"
        labels = tuple(f"{side.which.variant}/{claim.task}" for side in missing)
        left, right = found[0].shown(claim), found[1].shown(claim) if claim.right else None
        return Judgement(paper, claim, Word.UNDECIDED, left, right, None, None, test, labels, _fill(claim, missing))
    if claim.ends is not None:
        return _ends(paper, claim, found)
    return _ratio(paper, claim, found) if claim.ratio is not None else _difference(paper, claim, found)


@dataclass(frozen=True)
class _Side:
    """The cells of one side, one for each seed."""

    which: Which
    pins: tuple[Pin, ...]

    def values(self, claim: Claim) -> list[float | int | str]:
        """What is compared of each; of scores, only trainings that ended well have one."""
        if claim.metric is None:
            return [str(pin.outcome) for pin in self.pins]
        key = ValueKey.parse(claim.metric)
        return [value for pin in self.pins if (value := pin.number(key)) is not None]

    def numbers(self, claim: Claim) -> list[float | int]:
        """The same, of numbers."""
        return [value for value in self.values(claim) if not isinstance(value, str)]

    def shown(self, claim: Claim) -> float | int | str | None:
        """One value for all: the mean of scores, and else what all seeds agree on."""
        values = self.values(claim)
        numbers = self.numbers(claim)
        if not values:
            return None
        return values[0] if claim.metric is None or claim.ratio is not None else sample(numbers).mean


def _ends(paper: str, claim: Claim, found: Sequence[_Side]) -> Judgement:
    ends = [str(each) for each in claim.ends or ()]
    now = [side.shown(claim) for side in found]
    word = Word.HOLDS if now == ends else Word.CONTRADICTED
    test = f"outcomes; claimed: {', '.join(ends)}"
    return Judgement(paper, claim, word, now[0], now[1] if len(now) > 1 else None, None, None, test, (), "")


def _ratio(paper: str, claim: Claim, found: Sequence[_Side]) -> Judgement:
    assert claim.ratio is not None, "the form says so"
    left, right = (side.numbers(claim)[0] for side in found)
    effect = left / right if right else float("inf")
    word = Word.HOLDS if effect <= claim.ratio else Word.CONTRADICTED
    return Judgement(paper, claim, word, left, right, effect, None, f"exact; claimed: at most {claim.ratio:g} times", (), "")


def _difference(paper: str, claim: Claim, found: Sequence[_Side]) -> Judgement:
    """A difference of scores, or of falls, in the sense that what is above 0 is for the claim."""
    samples = [sample(side.numbers(claim)) for side in found]
    # left - right, and where each falls from something: (left - left_from) - (right - right_from)
    factors = (1.0, -1.0, -1.0, 1.0)
    compared = contrast(list(zip(factors, samples)), LEVEL)
    bar = claim.above or 0.0
    word = Word.HOLDS if compared.low > bar else Word.CONTRADICTED if compared.high < bar else Word.UNDECIDED
    seeds = " and ".join(str(len(each.values)) for each in samples)
    test = f"Welch over {seeds} trainings, p = {compared.p:.2g}" + (f"; claimed: more than {100 * bar:g} points" if bar else "")
    command = ""
    if word is Word.UNDECIDED:
        test += f"; {100 * bar:g} lies in the interval: more seeds can tell"
        more = list(range(2 * max(len(each.values) for each in samples)))
        command = f"{_fill(claim, found)} --set 'seeds={more}'"
    interval = (compared.low, compared.high)
    return Judgement(paper, claim, word, samples[0].mean, samples[1].mean, compared.difference, interval, test, (), command)


def _fill(claim: Claim, sides: Sequence[_Side]) -> str:
    """The command that runs the cells of `sides`."""
    globs = dict.fromkeys(f"--only '{side.which.glob(claim.task)}'" for side in sides)
    return f"benchctl run {claim.suite} {' '.join(globs)}"
