"""A small search before a training, inside its budget: every recipe learns from a part of the clips and is judged by the others."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchctl.data.clip_set import ClipSet
from benchctl.engine.budget import Used
from benchctl.engine.train import Ending
from benchctl.errors import BenchctlError
from benchctl.record import Measurement, Outcome
from benchctl.spec import Cell


@dataclass(frozen=True)
class Tried:
    """How one trial ended."""

    ending: Ending
    #: of the clips that were held out; None: it came to no end that can be judged
    top1: float | None = None


#: trains a cell on clips, keeps its checkpoint in a folder, and judges it by the clips to test on
Try = Callable[[Cell, ClipSet, Path], Tried]


@dataclass
class Searched:
    """What the trials came to."""

    #: each as the keys that it changed, in the order of the suite
    trials: list[tuple[dict[str, float], Tried]] = field(default_factory=list)
    #: of the budget, by all of them
    used: Used = field(default_factory=Used)

    @property
    def stopped(self) -> Ending | None:
        """The ending of the trial in which the search was stopped."""
        return next((tried.ending for _, tried in self.trials if tried.ending.outcome is Outcome.INTERRUPTED), None)

    @property
    def best(self) -> dict[str, float]:
        """The keys of the best trial; of equal ones the first.

        Raises:
            BenchctlError: no trial could be judged.
        """
        judged = [(tried.top1, changes) for changes, tried in self.trials if tried.top1 is not None]
        if not judged:
            reasons = dict.fromkeys(tried.ending.reason for _, tried in self.trials if tried.ending.reason)
            raise BenchctlError(f"no trial of the search came to its end: {'; '.join(map(str, reasons))}", fix="search other values")
        return max(judged, key=lambda each: each[0])[1]

    def measurements(self, device: str) -> Iterator[Measurement]:
        """The top-1 accuracy of each trial on the clips that were held out, by the keys that it changed."""
        for changes, tried in self.trials:
            reason = None if tried.top1 is not None else tried.ending.reason or "not judged"
            yield Measurement(metric="trial_top1", value=tried.top1, kind=_words(changes), device=device, reason=reason)

    def note(self, cell: Cell) -> str:
        """What was searched and found, in words."""
        assert cell.search is not None, "searched where a search is asked for"
        return f"{_words(self.best)}, the best of {len(self.trials)} trials, which had {100 * cell.search.share:g} % of the budget"


def search(cell: Cell, clips: ClipSet, folder: Path, attempt: Try) -> Searched:
    """Try every recipe of the cell's search; a trial that was made before a stop is not made again.

    Args:
        cell: one with a search.
        clips: of which a part judges the trials; the clips to test on are not touched.
        folder: where the trials keep their checkpoints.
        attempt: makes one trial.

    Raises:
        BenchctlError: no clip can be held out.
    """
    asked = cell.search
    assert asked is not None, "called where a search is asked for"
    assert cell.budget is not None, "a cell that learns has a budget"
    held = clips.held_out(asked.held_out, cell.seed)
    if not held.test:
        raise BenchctlError(
            f"holding out {100 * asked.held_out:g} % of {len(clips.train)} training clips, class by class, leaves none to judge a trial by",
            fix="raise 'search.held_out', or use more clips",
        )
    searched = Searched()
    for number, changes in enumerate(asked.combinations):
        trial = cell.model_copy(
            update={"recipe": cell.recipe.changed(changes), "budget": cell.budget.part(asked.share_of_one), "search": None}
        )
        tried = attempt(trial, held, folder / f"trial-{number}")
        searched.trials.append((changes, tried))
        searched.used.add(tried.ending.progress.used)
        if tried.ending.outcome is Outcome.INTERRUPTED:
            break
    return searched


def forget(folder: Path) -> None:
    """Remove the checkpoints of the trials, once the training that they were for is done."""
    for trial in folder.glob("trial-*"):
        shutil.rmtree(trial, ignore_errors=True)


def _words(changes: dict[str, float]) -> str:
    return " ".join(f"{name}={value:g}" for name, value in changes.items())
