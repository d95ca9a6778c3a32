"""The cascade as a picture: what is answered, how often rightly, and what it costs (MovT, Figure 13)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchctl.metrics.cascade import Step
from benchctl.visualize import png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INCHES = (9.0, 4.0)


def save(steps: Sequence[Step], first: str, host: str, file: Path) -> None:
    """Left: accuracy over coverage. Right: accuracy over mean operations.

    Raises:
        MissingError: the file cannot be written.
    """
    png.write(lambda: _draw(steps, first, host), file)


def _draw(steps: Sequence[Step], first: str, host: str) -> Figure:
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=_INCHES, layout="constrained")
    figure.suptitle(f"first: {first}\nhost: {host}", fontsize=9, x=0.01, ha="left", parse_math=False)
    left, right = figure.subplots(1, 2)
    answered = [(100 * step.coverage, 100 * step.answered_accuracy) for step in steps if step.answered_accuracy is not None]
    left.plot(*zip(*answered), label="of the clips that the first answers")
    left.plot([100 * step.coverage for step in steps], [100 * step.accuracy for step in steps], label="of all clips")
    left.set(xlabel="clips that the first answers (%)", ylabel="top-1 (%)", xlim=(0, 100))
    left.legend(frameon=False, loc="best")
    right.plot([step.macs / 1e9 for step in steps], [100 * step.accuracy for step in steps], color="C1")
    for step, name in ((steps[0], "the host answers all"), (steps[-1], "the first answers all")):
        place = (step.macs / 1e9, 100 * step.accuracy)
        right.plot(*place, "o", color="C1")
        right.annotate(name, place, textcoords="offset points", xytext=(0, 7), ha="center", color=png.FAINT)
    right.set(xlabel="mean MACs of a clip (G)", ylabel="top-1 of all clips (%)")
    right.margins(x=0.3, y=0.25)
    for axes in (left, right):
        axes.grid(alpha=0.25)
    return figure
