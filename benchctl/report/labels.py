"""Names in figures, placed so that none lies over another: in a column beside lines, or around points."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchctl.report import figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = 7.5
_SMALL = 6.5
_POINTS_PER_INCH = 72
#: points between a mark and its name: the nearest first, with a leader from the third on
_DISTANCES = (4.0, 7.0, 12.0, 18.0, 26.0, 36.0, 48.0)
_LEADER_FROM = 9.0
_DIRECTIONS = 16
_SWEEPS = 12
#: what it costs that a name may be read as another mark's, and that a leader crosses something: square points or points
_MISREAD, _CROSSED = 45.0, 120.0
#: points at which a leader is looked at
_STEPS = 12
#: half the side, in points, of what a mark covers
_MARK = 3.2


@dataclass(frozen=True)
class Box:
    """An upright rectangle, in points."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """Area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return width * height if width > 0 and height > 0 else 0.0

    def nearest(self, point: tuple[float, float]) -> tuple[float, float]:
        """The point of it that is nearest to `point`."""
        return (min(max(point[0], self.left), self.right), min(max(point[1], self.bottom), self.top))

    def holds(self, point: tuple[float, float]) -> bool:
        """Whether `point` is in it."""
        return self.nearest(point) == point

    def outside(self, other: Box) -> float:
        """How far it reaches out of `other`."""
        beyond = (other.left - self.left, self.right - other.right, other.bottom - self.bottom, self.top - other.top)
        return sum(max(0.0, each) for each in beyond)


def beside(axes: Axes, ends: Mapping[str, tuple[float, float]], styles: Mapping[str, tuple[str, str]], height: float) -> None:
    """The name of each line right of the axes, level with its end, with its marker, and with a leader where it had to move.

    Args:
        axes: where lines are drawn; its limits are final.
        ends: the last point of each line, by name, in the data's units.
        styles: colour and marker by name.
        height: of a name, as a part of that of the axes.
    """
    to_axes = axes.transData + axes.transAxes.inverted()
    placed = sorted(((label, tuple(to_axes.transform(end))) for label, end in ends.items()), key=lambda item: item[1][1])
    levels = within(apart([end[1] for _, end in placed], height), height)
    for (label, end), level in zip(placed, levels):
        colour, marker = styles[label]
        place: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False}
        if end[0] > 0.9 and abs(level - end[1]) > height / 3:
            axes.plot((end[0] + 0.015, 1.025), (end[1], level), color=colour, linewidth=0.4, **place)
        axes.plot(1.045, level, color=colour, marker=marker, markersize=3.5, linestyle="none", **place)
        axes.text(1.075, level, label, fontsize=_SIZE, color=colour, va="center", **place)


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending `heights` moved as little as possible (least squares) so that neighbours are `gap` apart."""
    # less the gaps, places need only ascend: pool neighbours that do not, at their mean
    pools: list[tuple[float, int]] = []
    for i, height in enumerate(heights):
        pools.append((height - i * gap, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (low, n), (high, m) = pools.pop(-2), pools.pop()
            pools.append(((low * n + high * m) / (n + m), n + m))
    means = [mean for mean, count in pools for _ in range(count)]
    return [mean + i * gap for i, mean in enumerate(means)]


def within(levels: Sequence[float], gap: float) -> list[float]:
    """Ascending `levels`, at least `gap` apart, pushed back from beyond 0 and 1; as they are where there is no room for all."""
    last = len(levels) - 1
    if last * gap > 1:
        return list(levels)
    kept = [max(level, i * gap) for i, level in enumerate(levels)]
    return [min(level, 1 - (last - i) * gap) for i, level in enumerate(kept)]


def around(axes: Axes, names: Mapping[str, tuple[float, float]], colours: Mapping[str, str], kept_free: Sequence[Box]) -> float:
    """Write each name near its point, clear of other names, marks and `kept_free` (in points) where there is room, with a leader if far.

    Returns the area, in square points, that names still share with each other or with marks.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    drawn = axes.get_figure()
    assert drawn is not None, "axes stand in a figure"
    renderer = FigureCanvasAgg(drawn).get_renderer()
    scale = _POINTS_PER_INCH / drawn.dpi
    marks = {name: tuple(scale * each for each in axes.transData.transform(point)) for name, point in names.items()}
    texts = {name: axes.text(0, 0, name, fontsize=_SMALL, color=colours[name], va="center") for name in names}
    extents = {name: text.get_window_extent(renderer) for name, text in texts.items()}
    sizes = {name: (scale * extent.width, scale * extent.height) for name, extent in extents.items()}
    edge = axes.get_window_extent(renderer)
    room = Box(scale * edge.x0 + 1, scale * edge.y0 + 1, scale * edge.x1 - 1, scale * edge.y1 - 1)
    placed = arrange(marks, sizes, room, kept_free)
    for name, box in placed.items():
        text, mark = texts[name], marks[name]
        text.set_transform(drawn.dpi_scale_trans)
        text.set_position((box.left / _POINTS_PER_INCH, (box.bottom + box.top) / 2 / _POINTS_PER_INCH))
        near = box.nearest(mark)
        if math.dist(near, mark) > _LEADER_FROM:
            line = [[each / _POINTS_PER_INCH for each in along] for along in zip(mark, near)]
            axes.plot(*line, transform=drawn.dpi_scale_trans, color=figure.FAINT, linewidth=0.4, zorder=1.8)
    return _shared(placed, marks)


def arrange(
    marks: Mapping[str, tuple[float, float]], sizes: Mapping[str, tuple[float, float]], room: Box, kept_free: Sequence[Box]
) -> dict[str, Box]:
    """A place for each name: the one of some hundred around its mark that covers least and is nearest, given all the others.

    Args:
        marks: what is named, by name; in points, as everything here.
        sizes: width and height of the names.
        room: what names should not leave.
        kept_free: what they should not cover.
    """
    covered = {name: Box(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for name, (x, y) in marks.items()}
    choices = {name: list(_candidates(marks[name], sizes[name])) for name in marks}
    fixed = {}
    for name, each in choices.items():
        others = [covered[other] for other in marks if other != name]
        fixed[name] = [
            _cost(box, distance, room, kept_free) + 40 * box.overlap(covered[name]) + _over_marks(marks[name], box, others)
            for distance, box in each
        ]
    chosen = {name: min(range(len(costs)), key=costs.__getitem__) for name, costs in fixed.items()}
    for _ in range(_SWEEPS):
        moved = False
        for name in marks:
            placed = {other: choices[other][at][1] for other, at in chosen.items() if other != name}
            names = list(placed.values())
            best, lowest = 0, math.inf
            for i, (cost, (_, box)) in enumerate(zip(fixed[name], choices[name])):
                if cost < lowest:
                    cost += 40 * sum(map(box.overlap, names))
                if cost < lowest:
                    cost += _crossed(marks[name], box, names) + sum(_crossed(marks[other], its, [box]) for other, its in placed.items())
                if cost < lowest:
                    best, lowest = i, cost
            moved = moved or best != chosen[name]
            chosen[name] = best
        if not moved:
            break
    return {name: choices[name][at][1] for name, at in chosen.items()}


def _candidates(mark: tuple[float, float], size: tuple[float, float]) -> Iterator[tuple[float, Box]]:
    """Distances and boxes around `mark`, the best of two that are equally free first: to the right, above, ..."""
    width, height = size
    for distance in _DISTANCES:
        for turn in range(_DIRECTIONS):
            angle = 2 * math.pi * turn / _DIRECTIONS
            across, up = math.cos(angle), math.sin(angle)
            # the box's nearest side or corner is `distance` from the mark's edge
            x = mark[0] + (distance + _MARK) * across + (across - 1) / 2 * width
            y = mark[1] + (distance + _MARK) * up + (up - 1) / 2 * height
            yield distance, Box(x, y, x + width, y + height)


def _cost(box: Box, distance: float, room: Box, kept_free: Sequence[Box]) -> float:
    return 200 * box.outside(room) + 4 * sum(map(box.overlap, kept_free)) + distance


def _over_marks(mark: tuple[float, float], box: Box, others: Sequence[Box]) -> float:
    """What it costs that a name, or the leader to it, lies over marks of others."""
    own = math.dist(box.nearest(mark), mark)
    cost = 40 * sum(map(box.overlap, others))
    for other in others:
        middle = ((other.left + other.right) / 2, (other.bottom + other.top) / 2)
        # a name that is nearer to another mark reads as that one's
        cost += _MISREAD * (math.dist(box.nearest(middle), middle) < own + 1)
        wider = Box(other.left - _MARK, other.bottom - _MARK, other.right + _MARK, other.top + _MARK)
        # no leader leaves the surroundings of a mark that it starts in without touching them
        cost += _crossed(mark, box, [other if wider.holds(mark) else wider])
    return cost


def _crossed(mark: tuple[float, float], box: Box, others: Sequence[Box]) -> float:
    """What it costs that the leader from `mark` to its name crosses `others`."""
    near = box.nearest(mark)
    if math.dist(near, mark) <= _LEADER_FROM:
        return 0.0
    along = [(mark[0] + (near[0] - mark[0]) * i / _STEPS, mark[1] + (near[1] - mark[1]) * i / _STEPS) for i in range(1, _STEPS)]
    return _CROSSED * sum(any(other.holds(point) for point in along) for other in others)


def _shared(placed: Mapping[str, Box], marks: Mapping[str, tuple[float, float]]) -> float:
    boxes = list(placed.values())
    covered = [Box(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in marks.values()]
    names = sum(a.overlap(b) for i, a in enumerate(boxes) for b in boxes[:i])
    return names + sum(box.overlap(mark) for box in boxes for mark in covered)
