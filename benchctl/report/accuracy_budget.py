"""The accuracy-budget figure: accuracy over the share of the budget that was used, one line per training, against what is free."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchctl.errors import Inconclusive
from benchctl.report import figure, labels, scales
from benchctl.report.accuracy import floor_of
from benchctl.report.budgets import Given, comparable, verdicts
from benchctl.report.over_seeds import Trained, merged, over, read
from benchctl.report.table import Selection
from benchctl.statistics import Sample, sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from benchctl.store.store import Store

FIGURE = "accuracy over the budget used, one line per training, with intervals over seeds, chance and the single-frame floor"

#: inches
_PLOT_WIDTH, _PLOT_HEIGHT = 3.1, 2.3
_LEFT, _BETWEEN, _TOP, _BOTTOM, _ROWS = 0.6, 0.3, 0.32, 0.48, 0.1
_LABEL_CHARACTER, _LABEL_LINE, _CAPTION_CHARACTER, _CAPTION_LINE = 0.064, 0.135, 0.047, 0.135
#: more lines than this have no bands: they would hide each other
_MOST_BANDS = 7
_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")
_UNMATCHED = " †"


@dataclass(frozen=True)
class Point:
    """A training at one share of its budget."""

    #: what was used by then, in the unit of what is matched
    used: float
    #: operations of training by then; None: not recorded
    flops: float | None
    score: Sample


@dataclass(frozen=True)
class Curve:
    """A training, from its first judgement to its last."""

    label: str
    points: tuple[Point, ...]
    #: what is said of it where its budget is not matched; empty: it is
    unmatched: str


@dataclass(frozen=True)
class Panel:
    """Trainings that compare: same data, same budget."""

    dataset: str
    given: Given
    curves: tuple[Curve, ...]
    classes: int
    #: name and accuracy of the best training that sees one frame
    floor: tuple[str, float] | None

    @property
    def flops(self) -> bool:
        """Whether the operations of training say more than what is matched."""
        counted = any(point.flops for curve in self.curves for point in curve.points)
        return self.given.match_on != "train_gflops" and counted


def draw(store: Store, selection: Selection, file: Path) -> None:
    """Draw the selected trainings into `file`, whose suffix names the format.

    Raises:
        UsageError: a suffix other than .svg, .png and .pdf.
        UnknownName: no such suite or run.
        Inconclusive: no selected training has an accuracy and a budget.
        MissingError: the file cannot be written.
    """
    figure.check(file)
    found = panels(read(store, selection, ("top1", "train_flops")))
    if not found:
        raise Inconclusive(
            "no selected cell trained to an accuracy within a budget", where=str(store.location), fix="run a suite that trains"
        )
    with figure.style():
        figure.save(_figure(found), file)


def panels(trained: Trained) -> list[Panel]:
    """What there is to draw: a panel for each data set and budget."""
    said, floors = verdicts(trained.of, trained.uses), floor_of(trained)
    accuracy = _by_share(trained, "top1")
    flops = _by_share(trained, "train_flops")
    made = []
    for (dataset, _), budgets in sorted(comparable(trained.of).items()):
        for places in budgets.values():
            given = trained.uses[places[0]].given
            if given is None:
                continue
            floor = next((floors[i] for i in places if i in floors), None)
            curves = []
            for i in places:
                points = _points(trained, i, accuracy, flops)
                # what is drawn as the floor needs no line of its own
                if points and i != floor:
                    off = str(said[i]).startswith("unmatched")
                    curves.append(Curve(trained.labels[i] + _UNMATCHED * off, points, str(said[i]) if off else ""))
            base = None if floor is None else trained.scores[floor]
            if curves:
                named = None if floor is None or base is None else (trained.labels[floor], base.mean)
                made.append(Panel(dataset, given, tuple(curves), int(trained.of[places[0]].content["num_classes"]), named))
    return made


def _by_share(trained: Trained, metric: str) -> dict[float, dict[int, float]]:
    """Values by the share of the budget at which they were taken, then by result."""
    kinds = sorted({each.kind for each in trained.readings[metric]})
    return {float(found[1]) / 100: merged(trained.readings[metric], kind)[0] for kind in kinds if (found := _SHARE.fullmatch(kind))}


def _points(
    trained: Trained, place: int, accuracy: Mapping[float, Mapping[int, float]], flops: Mapping[float, Mapping[int, float]]
) -> tuple[Point, ...]:
    """The points of a training; where a seed was not judged, there is none: a mean over other seeds would be another line."""
    training, use, final = trained.of[place], trained.uses[place], trained.scores[place]
    if use.given is None or final is None:
        return ()
    points = []
    for share, values in sorted(accuracy.items()):
        scores = over(training, values)
        if len(scores) == len(final.values):
            counted = over(training, flops.get(share, {}))
            points.append(Point(share * use.given.amount, sample(counted).mean if counted else None, sample(scores)))
    if use.known and len(use.known) == len(use.shares):
        counted = trained.values(training, "train_flops")
        points.append(Point(sample(use.known).mean * use.given.amount, sample(counted).mean if counted else None, final))
    return tuple(points)


def _figure(drawn: Sequence[Panel]) -> Figure:
    columns = 1 + any(panel.flops for panel in drawn)
    longest = max(len(curve.label) for panel in drawn for curve in panel.curves)
    room = 0.3 + _LABEL_CHARACTER * longest
    width = max(_LEFT + columns * _PLOT_WIDTH + (columns - 1) * _BETWEEN + room, 5.2)
    heights = [max(_PLOT_HEIGHT, _LABEL_LINE * len(panel.curves)) for panel in drawn]
    caption = textwrap.wrap(_caption(drawn), int((width - 0.2) / _CAPTION_CHARACTER))
    below = 0.1 + _CAPTION_LINE * len(caption)
    height = below + sum(_BOTTOM + each + _TOP for each in heights) + _ROWS * (len(drawn) - 1)
    made = figure.new(width, height)
    top = height
    for panel, tall in zip(drawn, heights):
        bottom = top - _TOP - tall
        styles = {curve.label: figure.line_style(i) for i, curve in enumerate(sorted(panel.curves, key=lambda each: each.label))}
        limits = _limits(panel)
        for column in range(1 + panel.flops):
            left = _LEFT + column * (_PLOT_WIDTH + _BETWEEN)
            axes = made.add_axes((left / width, bottom / height, _PLOT_WIDTH / width, tall / height))
            _panel(axes, panel, styles, limits, flops=bool(column))
            if column == panel.flops:
                ends = {curve.label: _last(curve, flops=bool(column)) for curve in panel.curves}
                known = {label: end for label, end in ends.items() if end is not None}
                labels.beside(axes, known, styles, _LABEL_LINE / tall)
        top = bottom - _BOTTOM - _ROWS
    made.text(0.1 / width, 0.06 / height, "\n".join(caption), fontsize=6.5, color=figure.CAPTION, va="bottom", linespacing=1.35)
    return made


def _last(curve: Curve, *, flops: bool) -> tuple[float, float] | None:
    places = _places(curve, flops=flops)
    return (places[-1][0], places[-1][1]) if places else None


def _places(curve: Curve, *, flops: bool) -> list[tuple[float, float, float]]:
    """Place on the axis, mean in percent, and half the interval in percent, 0 where one seed says nothing of it."""
    along = [(point.flops if flops else point.used, point.score) for point in curve.points]
    return [(x, 100 * score.mean, 100 * (score.half_width() or 0.0)) for x, score in along if x is not None]


def _panel(axes: Axes, panel: Panel, styles: Mapping[str, tuple[str, str]], limits: tuple[float, float], *, flops: bool) -> None:
    axes.set_ylim(*limits)
    axes.grid(axis="y", color=figure.GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=2.5, width=0.6, labelsize=7.5)
    _across(axes, panel, flops=flops)
    if flops:
        axes.tick_params(labelleft=False)
    else:
        axes.set_ylabel("top-1 (%)")
        axes.set_title(f"{panel.dataset}, {panel.given}")
    _references(axes, panel, limits, named=not flops)
    for curve in panel.curves:
        colour, marker = styles[curve.label]
        places = _places(curve, flops=flops)
        if not places:
            continue
        x, y, half = zip(*places)
        if _banded(panel) and any(half):
            lower, upper = [mean - each for mean, each in zip(y, half)], [mean + each for mean, each in zip(y, half)]
            axes.fill_between(x, lower, upper, color=colour, alpha=0.13, linewidth=0)
        axes.plot(x, y, color=colour, marker=marker, markersize=3.8, linewidth=1.2, clip_on=False)


def _across(axes: Axes, panel: Panel, *, flops: bool) -> None:
    """The axis of what was used."""
    every = [place[0] for curve in panel.curves for place in _places(curve, flops=flops)]
    if flops:
        scale = scales.of_flops(max(every))
        low, high = min(every) / 1.25, max(every) * 1.25
        axes.set_xscale("log")
        ticks = scales.log_ticks(low / scale.size, high / scale.size)
        axes.set_xlim(low, high)
    else:
        amount = panel.given.amount
        scale = scales.of_budget(panel.given.match_on, amount)
        ticks = [share * amount / scale.size for share in (0, 0.25, 0.5, 0.75, 1)]
        axes.set_xlim(0, max(amount, *every) * 1.03)
    axes.set_xticks([tick * scale.size for tick in ticks], [scales.written(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(scale.title)


def _references(axes: Axes, panel: Panel, limits: tuple[float, float], *, named: bool) -> None:
    """Chance and the floor, named left of where the first points are."""
    lines: list[tuple[float, str, Any]] = [(100 / panel.classes, "chance ", (0, (1, 1.5)))]
    if panel.floor:
        lines.append((100 * panel.floor[1], "single frame\n", (0, (5, 2))))
    lines.sort(key=lambda line: line[0])
    tall = limits[1] - limits[0]
    for i, (height, name, dashes) in enumerate(lines):
        axes.axhline(height, color=figure.INK, linewidth=0.8, linestyle=dashes, zorder=1.5)
        if named:
            # the lower of two that are close has its name below
            under = len(lines) > 1 and i == 0 and lines[1][0] - height < 0.1 * tall
            axes.annotate(
                f"{name}{height:.1f} %",
                (0, height),
                (3, -2.5 if under else 2.5),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="top" if under else "bottom",
                fontsize=6.5,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.8},
                zorder=2.5,
            )


def _limits(panel: Panel) -> tuple[float, float]:
    """From below the lowest line to above the highest; intervals may reach out of that."""
    known = [place[1] for curve in panel.curves for place in _places(curve, flops=False)] + [100 / panel.classes]
    known += [100 * panel.floor[1]] if panel.floor else []
    margin = max(2.0, 0.08 * (max(known) - min(known)))
    return max(min(known) - margin, -2.0), min(max(known) + margin, 102.0)


def _banded(panel: Panel) -> bool:
    return len(panel.curves) <= _MOST_BANDS


def _caption(drawn: Sequence[Panel]) -> str:
    several = any(len(point.score.values) > 1 for panel in drawn for curve in panel.curves for point in curve.points)
    alone = any(len(point.score.values) == 1 for panel in drawn for curve in panel.curves for point in curve.points)
    said = ["Lines: means over seeds."] if several else ["Lines: one seed."]
    if several and any(map(_banded, drawn)):
        said.append(f"Bands: 95 % interval of the mean, by Student's t{'; one seed has none' if alone else ''}.")
    if several and not all(map(_banded, drawn)):
        said.append(f"No bands where there are more than {_MOST_BANDS} lines: the accuracy table has the intervals.")
    classes = sorted({panel.classes for panel in drawn})
    said.append(f"Dotted: chance, one of {' or '.join(map(str, classes))} classes.")
    floors = dict.fromkeys(panel.floor[0] for panel in drawn if panel.floor)
    if floors:
        said.append(f"Dashed: the best training that sees one frame ({'; '.join(floors)}).")
    off = [f"{curve.label.removesuffix(_UNMATCHED)} ({curve.unmatched})" for panel in drawn for curve in panel.curves if curve.unmatched]
    if off:
        said.append(f"†: budget not matched: {', '.join(off)}.".replace("(unmatched: ", "("))
    return " ".join(said)
