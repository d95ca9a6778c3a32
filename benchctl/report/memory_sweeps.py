"""Sweeps in a database: which cells differ in only their resolution, or only their frames, and what memory they take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchctl.record import Outcome
from benchctl.report.readings import preference

if TYPE_CHECKING:
    from benchctl.store.stored import CellRow, Reading

_GIB = 2**30
_SHAPE = ("frames", "resolution", "batch_size")
#: what tells the lines of one method apart, where it differs
_FACETS = ("task", "dataset", "precision", "attention", "optimizer", "pretrained", "seed")
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


@dataclass(frozen=True)
class Sweep:
    """Cells in which one part of the shape varies and the rest is held."""

    #: `frames` or `resolution`
    axis: str
    #: what is held, in words
    held: str
    lines: tuple[Line, ...]
    caps_gib: tuple[float, ...]


@dataclass(frozen=True)
class MemoryKind:
    """What is compared: memory of another kind or device is another quantity."""

    kind: str
    device: str


def memory_kind(memory: Mapping[int, Sequence[Reading]]) -> MemoryKind | None:
    """The kind and device of the readings that a report prefers; None where no reading has a value."""
    found = [reading for readings in memory.values() for reading in readings if reading.value is not None]
    best = min(found, key=preference, default=None)
    return MemoryKind(best.kind, best.device) if best else None


def sweep(cells: Sequence[CellRow], memory: Mapping[int, Sequence[Reading]], axis: str, of: MemoryKind | None) -> Sweep | None:
    """The sweep in which `axis` takes the most values while the rest of the shape is held; None where it never takes two."""
    held = [name for name in _SHAPE if name != axis]
    by_shape: dict[tuple[int, ...], list[tuple[CellRow, dict[str, Point]]]] = defaultdict(list)
    for cell in cells:
        points = _points(cell, memory.get(cell.result_id, ()) if cell.result_id is not None else (), axis, of)
        if points:
            by_shape[tuple(getattr(cell, name) for name in held)].append((cell, points))
    ranked = [(len({getattr(cell, axis) for cell, _ in found}), len(found), shape) for shape, found in by_shape.items()]
    steps, _, shape = max(ranked, default=(0, 0, ()))
    if steps < 2:
        return None
    chosen = by_shape[shape]
    facets = [name for name in _FACETS if len({getattr(cell, name) for cell, _ in chosen}) > 1]
    lines: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for cell, points in chosen:
        label = ", ".join([cell.method, *(str(getattr(cell, name)) for name in facets)])
        for source, point in points.items():
            lines[label, source].append(point)
    made = (Line(label, source, tuple(sorted(points, key=lambda p: p.x))) for (label, source), points in sorted(lines.items()))
    caps = sorted({cell.memory_cap_bytes / _GIB for cell, _ in chosen if cell.memory_cap_bytes})
    return Sweep(axis, ", ".join(_WORDS[name].format(value) for name, value in zip(held, shape)), tuple(made), tuple(caps))


def _points(cell: CellRow, readings: Sequence[Reading], axis: str, of: MemoryKind | None) -> dict[str, Point]:
    x: int = getattr(cell, axis)
    oom = cell.outcome is Outcome.OOM
    points = {
        reading.source: Point(x, reading.value / _GIB, oom)
        for reading in readings
        # what was measured up to the moment at which memory ran out is not what the step needs
        if reading.value is not None and MemoryKind(reading.kind, reading.device) == of and not (oom and reading.source == "measured")
    }
    return points or ({"measured": Point(x, None, oom)} if oom else {})
