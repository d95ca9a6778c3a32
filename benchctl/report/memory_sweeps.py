"""Sweeps in a database: which cells differ in only their resolution, or only their frames, and what memory they take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchctl.record import Outcome
from benchctl.report.readings import preference

if TYPE_CHECKING:
    from benchctl.store.stored import CellRow, Readings

_GIB = 2**30
_SHAPE = ("frames", "resolution", "batch_size")
#: what tells the lines of one method apart, where it differs
_FACETS = ("task", "options", "dataset", "precision", "attention", "optimizer", "pretrained", "seed")
_WORDS = {"frames": "{} frames", "batch_size": "batch {}", "resolution": "{0} x {0} pixels"}


@dataclass(frozen=True)
class Point:
    """One cell: its place on the axis, and its peak memory in GiB; None where only the outcome, out of memory, is known."""

    x: int
    gib: float | None
    oom: bool


@dataclass(frozen=True)
class Line:
    """The readings of one source along a sweep."""

    label: str
    #: `measured` or `predicted`
    source: str
    points: tuple[Point, ...]

    @property
    def known(self) -> list[tuple[int, float]]:
        """Place and memory in GiB of the points whose memory is known."""
        return [(point.x, point.gib) for point in self.points if point.gib is not None]


@dataclass(frozen=True)
class Sweep:
    """Cells in which one part of the shape varies and the rest is held."""

    #: `frames` or `resolution`
    axis: str
    #: what is held, in words
    held: str
    lines: tuple[Line, ...]
    caps_gib: tuple[float, ...]
    #: what the predictions among them are worth
    calibrations: tuple[str, ...]
    #: methods whose clips hold other frames than those that are counted, in words
    counted: tuple[str, ...] = ()


def comparable(readings: Sequence[Readings]) -> list[Readings]:
    """Those of the kind and device that a report prefers: memory of another kind or device is another quantity."""
    best = min((r for r in readings if r.values), key=preference, default=None)
    return [r for r in readings if best and (r.kind, r.device) == (best.kind, best.device)]


def sweeps(cells: Sequence[CellRow], memory: Sequence[Readings]) -> list[Sweep]:
    """The longest sweep over the resolution and the longest over the frames, where there are any.

    `memory` is of one kind and device. A method takes part with two cells or more that differ in nothing but the axis. Frames are
    those that papers count: nine that a method reads for eight units are eight.
    """
    chosen = {axis: _longest(cells, memory, axis) for axis in ("resolution", "frames")}
    keys = {_key(cell) for along in chosen.values() for cell in along}
    facets = [i for i in range(1, 1 + len(_FACETS)) if len({key[i] for key in keys}) > 1]
    made = []
    for axis, along in chosen.items():
        if not along:
            continue
        lines: dict[tuple[str, str], list[Point]] = defaultdict(list)
        calibrations = set()
        for cell in sorted(along, key=lambda each: _size(each, axis)):
            label = ", ".join([cell.method, *(_key(cell)[i] for i in facets)])
            points = _points(cell, memory, axis)
            for source, point in points.items():
                lines[label, source].append(point)
            if "predicted" in points:
                calibrations.add(cell.notes.get("prediction_calibration", "of unknown calibration"))
        held = ", ".join(_WORDS[name].format(_size(along[0], name)) for name in _SHAPE if name != axis)
        caps = sorted({cell.memory_cap_bytes / _GIB for cell in along if cell.memory_cap_bytes})
        named = (Line(label, source, tuple(points)) for (label, source), points in sorted(lines.items()))
        made.append(Sweep(axis, held, tuple(named), tuple(caps), tuple(sorted(calibrations)), _counted(along)))
    return made


def _longest(cells: Sequence[CellRow], memory: Sequence[Readings], axis: str) -> list[CellRow]:
    """The cells of the shape that is held while `axis` takes the most values."""
    by_shape: dict[tuple[int, ...], dict[tuple[str, ...], list[CellRow]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        if _points(cell, memory, axis):
            by_shape[tuple(_size(cell, name) for name in _SHAPE if name != axis)][_key(cell)].append(cell)
    best: tuple[int, int, tuple[int, ...], list[CellRow]] = (0, 0, (), [])
    for shape, methods in by_shape.items():
        along = [cell for each in methods.values() if len({_size(cell, axis) for cell in each}) > 1 for cell in each]
        best = max(best, (len({_size(cell, axis) for cell in along}), len(along), shape, along), key=lambda found: found[:3])
    return best[3]


def _size(cell: CellRow, name: str) -> int:
    """A part of the shape, frames as they are counted."""
    size: int = cell.notes.get("counted_frames", cell.frames) if name == "frames" else getattr(cell, name)
    return size


def _counted(along: Sequence[CellRow]) -> tuple[str, ...]:
    """`moose-b reads 9 frames for 8`, one for each method, for its shortest clip."""
    others = [cell for cell in along if _size(cell, "frames") != cell.frames]
    shortest = {cell.method: cell for cell in sorted(others, key=lambda each: -each.frames)}
    return tuple(f"{name} reads {cell.frames} frames for {_size(cell, 'frames')}" for name, cell in sorted(shortest.items()))


def _key(cell: CellRow) -> tuple[str, ...]:
    """What a line is: a method, and whatever else may differ between two cells of one shape."""
    return (cell.method, *(str(getattr(cell, name)) for name in _FACETS))


def _points(cell: CellRow, memory: Sequence[Readings], axis: str) -> dict[str, Point]:
    """The point of `cell` by source; none where there is nothing to draw."""
    x = _size(cell, axis)
    oom = cell.outcome is Outcome.OOM
    points = {
        r.source: Point(x, r.values[cell.result_id] / _GIB, oom)
        for r in memory
        # what was measured up to the moment at which memory ran out is not what the step needs
        if cell.result_id in r.values and not (oom and r.source == "measured")
    }
    return points or ({"measured": Point(x, None, oom)} if oom else {})
