"""The Pareto figure: final accuracy over MACs of a clip, and the trainings that none beats in both."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchctl.errors import Inconclusive
from benchctl.report import figure, labels, scales
from benchctl.report.budgets import comparable, verdicts
from benchctl.report.labels import Box
from benchctl.report.over_seeds import COUNT_COLUMNS, Trained, read
from benchctl.report.table import Absent, Selection
from benchctl.statistics import Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from benchctl.store.store import Store

FIGURE = "final accuracy over MACs of a clip, with intervals over seeds and the Pareto front"

#: inches
_PLOT_WIDTH, _PLOT_HEIGHT = 5.2, 3.2
_LEFT, _RIGHT, _TOP, _BOTTOM, _ROWS = 0.6, 0.2, 0.32, 0.48, 0.1
_CAPTION_CHARACTER, _CAPTION_LINE = 0.047, 0.135
#: a picture in which names would lie over each other is drawn larger
_GROWTH = (1.0, 1.25, 1.6, 2.0)
_POINTS_PER_INCH = 72
_UNMATCHED = " †"


@dataclass(frozen=True)
class Point:
    """A training: what a clip costs it, and what it scored."""

    label: str
    method: str
    macs: float
    score: Sample
    matched: bool
    #: whether no other training of matched budget is as cheap and as good, and better in one
    front: bool = False


@dataclass(frozen=True)
class Panel:
    """Trainings that compare: same data, same budget."""

    title: str
    points: tuple[Point, ...]
    #: names of those whose MACs nobody counted
    uncounted: tuple[str, ...]

    @property
    def front(self) -> list[Point]:
        """The Pareto front, growing; of several that are equal in both, one."""
        on = {(point.macs, point.score.mean): point for point in self.points if point.front}
        return [on[key] for key in sorted(on)]


def draw(store: Store, selection: Selection, file: Path) -> None:
    """Draw the selected trainings into `file`, whose suffix names the format.

    Raises:
        UsageError: a suffix other than .svg, .png and .pdf.
        UnknownName: no such suite or run.
        Inconclusive: no selected training has an accuracy and a count of MACs.
        MissingError: the file cannot be written.
    """
    figure.check(file)
    found = panels(read(store, selection))
    if not found:
        raise Inconclusive(
            "no selected training has both an accuracy and a count of MACs",
            where=str(store.location),
            fix="run a suite with 'task: [profile, train]'",
        )
    with figure.style():
        figure.save(_figure(found), file)


def panels(trained: Trained) -> list[Panel]:
    """What there is to draw: a panel for each data set and budget."""
    said = verdicts(trained.of, trained.uses)
    column = [each.name for each in COUNT_COLUMNS].index("macs")
    made = []
    for (dataset, _), budgets in sorted(comparable(trained.of).items()):
        for places in budgets.values():
            points, uncounted = [], []
            for i in places:
                macs, score = trained.counts(trained.of[i])[column], trained.scores[i]
                matched = not str(said[i]).startswith("unmatched")
                label = trained.labels[i] + _UNMATCHED * (not matched)
                if score is not None and isinstance(macs, Absent | str):
                    uncounted.append(label)
                elif score is not None and not isinstance(macs, str):
                    points.append(Point(label, trained.of[i].first.method, float(macs), score, matched))
            if points:
                title = f"{dataset}, {trained.uses[places[0]].given or 'no budget'}"
                made.append(Panel(title, tuple(with_front(points)), tuple(uncounted)))
    return made


def with_front(points: Sequence[Point]) -> list[Point]:
    """`points`, those marked that none of matched budget beats: none is as cheap and as good, and cheaper or better."""
    matched = [point for point in points if point.matched]

    def beaten(point: Point) -> bool:
        here = (point.macs, -point.score.mean)
        return any(other.macs <= here[0] and -other.score.mean <= here[1] and (other.macs, -other.score.mean) != here for other in matched)

    return [replace(point, front=point.matched and not beaten(point)) for point in points]


def _figure(drawn: Sequence[Panel]) -> Figure:
    for growth in _GROWTH:
        made, shared = _attempt(drawn, growth)
        if not shared:
            break
    return made


def _attempt(drawn: Sequence[Panel], growth: float) -> tuple[Figure, float]:
    """The figure with plots `growth` times as large as usual, and the area that names in it share, in square points."""
    wide, tall = _PLOT_WIDTH * growth, _PLOT_HEIGHT * growth
    width = _LEFT + wide + _RIGHT
    caption = textwrap.wrap(_caption(drawn), int((width - 0.2) / _CAPTION_CHARACTER))
    below = 0.1 + _CAPTION_LINE * len(caption)
    height = below + len(drawn) * (_BOTTOM + tall + _TOP) + _ROWS * (len(drawn) - 1)
    made = figure.new(width, height)
    points = [point for panel in drawn for point in panel.points]
    # one method alone is told apart by its variants
    family = {point.label: point.method for point in points} if len({point.method for point in points}) > 1 else {}
    kinds = sorted({family.get(point.label, point.label) for point in points})
    styles = {point.label: figure.line_style(kinds.index(family.get(point.label, point.label))) for point in points}
    shared = 0.0
    for i, panel in enumerate(drawn):
        bottom = height - _TOP - tall - i * (_BOTTOM + tall + _TOP + _ROWS)
        axes = made.add_axes((_LEFT / width, bottom / height, wide / width, tall / height))
        _panel(axes, panel, styles)
        colours = {point.label: styles[point.label][0] for point in panel.points}
        names = {point.label: (point.macs, 100 * point.score.mean) for point in panel.points}
        shared += labels.around(axes, names, colours, list(_lines(axes, panel)))
    made.text(0.1 / width, 0.06 / height, "\n".join(caption), fontsize=6.5, color=figure.CAPTION, va="bottom", linespacing=1.35)
    return made, shared


def _panel(axes: Axes, panel: Panel, styles: dict[str, tuple[str, str]]) -> None:
    low, high = min(point.macs for point in panel.points) / 1.4, max(point.macs for point in panel.points) * 1.4
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    ticks = scales.log_ticks(low / 1e9, high / 1e9)
    axes.set_xticks([tick * 1e9 for tick in ticks], [scales.written(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(*_limits(panel))
    axes.grid(color=figure.GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=2.5, width=0.6, labelsize=7.5)
    axes.set_xlabel("MACs of one clip, one view (G)")
    axes.set_ylabel("top-1 (%)")
    axes.set_title(panel.title)
    front = panel.front
    if front:
        # what is reached at a cost is what the best that costs no more has
        x, y = [*(point.macs for point in front), high], [*(100 * point.score.mean for point in front), 100 * front[-1].score.mean]
        axes.step(x, y, where="post", color=figure.INK, linewidth=0.9, zorder=1.6)
    for point in panel.points:
        colour, marker = styles[point.label]
        half = point.score.half_width()
        place = (point.macs, 100 * point.score.mean)
        if half is not None:
            axes.errorbar(*place, yerr=100 * half, color=colour, elinewidth=0.7, capsize=1.8, capthick=0.7, zorder=2)
        face = colour if point.front else "white"
        axes.plot(*place, marker=marker, markersize=5, color=colour, markerfacecolor=face, markeredgewidth=1, zorder=3)


def _limits(panel: Panel) -> tuple[float, float]:
    """All intervals, as far as accuracies can be."""
    reach = [(100 * point.score.mean, 100 * (point.score.half_width() or 0.0)) for point in panel.points]
    low, high = min(mean - half for mean, half in reach), max(mean + half for mean, half in reach)
    margin = max(1.5, 0.06 * (high - low))
    return max(low - margin, -2.0), min(high + margin, 102.0)


def _lines(axes: Axes, panel: Panel) -> list[Box]:
    """What names should not lie over: error bars and the front, in points."""
    scale = _POINTS_PER_INCH / axes.figure.dpi

    def at(macs: float, top1: float) -> tuple[float, float]:
        x, y = axes.transData.transform((macs, top1))
        return scale * x, scale * y

    found = []
    for point in panel.points:
        half, mean = point.score.half_width() or 0.0, point.score.mean
        (x, low), (_, high) = at(point.macs, 100 * (mean - half)), at(point.macs, 100 * (mean + half))
        found.append(Box(x - 1.8, low, x + 1.8, high))
    front = panel.front
    for here, there in zip(front, [*front[1:], None]):
        left, level = at(here.macs, 100 * here.score.mean)
        right, above = at(there.macs, 100 * there.score.mean) if there else at(axes.get_xlim()[1], 100 * here.score.mean)
        found += [Box(left, level - 0.6, right, level + 0.6), Box(right - 0.6, level, right + 0.6, above)]
    return found


def _caption(drawn: Sequence[Panel]) -> str:
    points = [point for panel in drawn for point in panel.points]
    said = ["Line, filled: the Pareto front, what no other training of matched budget beats in accuracy and MACs."]
    if any(len(point.score.values) > 1 for point in points):
        alone = any(len(point.score.values) == 1 for point in points)
        said.append(f"Bars: 95 % interval of the mean over seeds, by Student's t{'; one seed has none' if alone else ''}.")
    else:
        said.append("One seed each: there are no intervals.")
    if any(not point.matched for point in points):
        said.append("†: budget not matched, as the accuracy table says; not on the front.")
    uncounted = dict.fromkeys(name for panel in drawn for name in panel.uncounted)
    if uncounted:
        said.append(f"Not drawn, since their MACs were not counted: {'; '.join(uncounted)}.")
    return " ".join(said)
