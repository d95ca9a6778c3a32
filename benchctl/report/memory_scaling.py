"""The memory-scaling figure: peak memory over resolution and over frames, one line per method, against the cap."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchctl.errors import Inconclusive
from benchctl.report import figure, labels
from benchctl.report.memory_sweeps import Line, Sweep, comparable, sweeps
from benchctl.report.table import Selection, selected

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from benchctl.store.store import Store

FIGURE = "peak memory over resolution and over frames, with the cap and what is out of memory"

#: inches: the plotting area of a panel, and what stands around it
_PLOT_WIDTH, _PLOT_HEIGHT = 2.5, 2.3
_LEFT, _BETWEEN, _TOP, _BOTTOM = 0.6, 0.35, 0.3, 0.48
_LABEL_CHARACTER, _CAPTION_CHARACTER, _CAPTION_LINE = 0.064, 0.047, 0.135
_AXIS_TITLES = {"resolution": "resolution (pixels)", "frames": "frames"}
#: how many of each unit there are in a GiB
_UNITS = {"GiB": 1, "MiB": 1024}
_MOST_TICKS = 12
#: height of a line label, in parts of the axis
_LABEL_HEIGHT = 0.06


def draw(store: Store, selection: Selection, file: Path) -> None:
    """Draw the selected cells into `file`, whose suffix names the format.

    Raises:
        UsageError: a suffix other than .svg, .png and .pdf.
        UnknownName: no such suite or run.
        Inconclusive: no two cells with memory differ in only their resolution or only their frames.
        MissingError: the file cannot be written.
    """
    figure.check(file)
    with selected(store, selection) as (snapshot, cells):
        memory = comparable(snapshot.readings("peak_memory_bytes"))
    found = sweeps(cells, memory)
    if not found:
        raise Inconclusive(
            "no two cells with memory differ in only their resolution or only their frames",
            where=str(store.location),
            fix="run a suite that sweeps them: benchctl run memory_scaling",
        )
    with figure.style():
        quantity = f"{memory[0].kind} on {memory[0].device}" if memory else ""
        figure.save(_figure(found, quantity, _caption(found)), file)


def _figure(drawn: Sequence[Sweep], quantity: str, caption: str) -> Figure:
    names = sorted({line.label for each in drawn for line in each.lines})
    styles = {label: figure.line_style(i) for i, label in enumerate(names)}
    room = 0.25 + _LABEL_CHARACTER * max(map(len, names))
    width = _LEFT + len(drawn) * (_PLOT_WIDTH + room) + (len(drawn) - 1) * _BETWEEN
    caption_lines = textwrap.wrap(caption, int((width - 0.2) / _CAPTION_CHARACTER))
    below = _BOTTOM + 0.1 + _CAPTION_LINE * len(caption_lines)
    height = below + _PLOT_HEIGHT + _TOP
    made = figure.new(width, height)
    limits = _limits(drawn)
    for i, each in enumerate(drawn):
        left = _LEFT + i * (_PLOT_WIDTH + room + _BETWEEN)
        axes = made.add_axes((left / width, below / height, _PLOT_WIDTH / width, _PLOT_HEIGHT / height))
        _panel(axes, each, styles, limits)
        if i == 0:
            axes.set_ylabel(f"peak memory ({', '.join(filter(None, (_unit(limits), quantity)))})")
    made.text(0.1 / width, 0.06 / height, "\n".join(caption_lines), fontsize=6.5, color=figure.CAPTION, va="bottom", linespacing=1.35)
    return made


def _panel(axes: Axes, drawn: Sweep, styles: Mapping[str, tuple[str, str]], limits: tuple[float, float]) -> None:
    xs = sorted({point.x for line in drawn.lines for point in line.points})
    _spread(axes, xs)
    axes.set_xticks(xs, [str(x) for x in xs])
    axes.set_yscale("log", base=2)
    axes.set_yticks(*_ticks(limits))
    axes.set_ylim(*limits)
    axes.minorticks_off()
    axes.grid(axis="y", color=figure.GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=2.5, width=0.6, labelsize=7.5)
    axes.set_xlabel(_AXIS_TITLES[drawn.axis])
    axes.set_title(drawn.held)
    if drawn.caps_gib:
        axes.axhspan(max(drawn.caps_gib), limits[1], color=figure.BEYOND, zorder=0)
    for cap in drawn.caps_gib:
        _cap(axes, drawn, cap)
    for line in drawn.lines:
        _line(axes, line, styles[line.label], min(drawn.caps_gib, default=limits[1]))
    _labels(axes, drawn, styles)


def _ticks(limits: tuple[float, float]) -> tuple[list[float], list[str]]:
    """Powers of two of a GiB inside the limits, and how they are written."""
    low, high = (math.log2(limit) for limit in limits)
    powers = range(math.ceil(low), math.floor(high) + 1)
    step = 1 + len(powers) // _MOST_TICKS
    ticks = [2.0**power for power in powers if power % step == 0]
    return ticks, [f"{tick * _UNITS[_unit(limits)]:.4g}" for tick in ticks]


def _unit(limits: tuple[float, float]) -> str:
    return "GiB" if limits[1] > 1 else "MiB"


def _spread(axes: Axes, xs: Sequence[int]) -> None:
    """A linear or a logarithmic axis, whichever keeps the closest ticks further apart."""

    def closest(places: Sequence[float]) -> float:
        return min(b - a for a, b in itertools.pairwise(places)) / (places[-1] - places[0])

    logs = [math.log2(x) for x in xs]
    if closest(logs) >= closest(xs):
        axes.set_xscale("log", base=2)
        margin = 2 ** (0.03 * (logs[-1] - logs[0]))
        axes.set_xlim(xs[0] / margin, xs[-1] * margin)
    else:
        margin = 0.03 * (xs[-1] - xs[0])
        axes.set_xlim(xs[0] - margin, xs[-1] + margin)


def _cap(axes: Axes, drawn: Sweep, cap: float) -> None:
    """The cap, named at the end that fewer lines come near."""
    axes.axhline(cap, color=figure.INK, linewidth=0.9, linestyle=(0, (1, 1.5)), zorder=1.5)
    ends = [[abs(math.log2(line.known[i][1] / cap)) for line in drawn.lines if line.known] for i in (0, -1)]
    right = min(ends[1], default=0) > min(ends[0], default=0)
    place, offset, side = (1, -3, "right") if right else (0, 3, "left")
    axes.annotate(
        f"cap {cap:g} GiB",
        (place, cap),
        (offset, 2.5),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha=side,
        fontsize=6.5,
        bbox={"facecolor": figure.BEYOND, "edgecolor": "none", "pad": 0.6},
        zorder=2.5,
    )


def _line(axes: Axes, line: Line, style: tuple[str, str], edge: float) -> None:
    """Measured: solid and filled; predicted: dashed and hollow; out of memory: a cross, at the edge where no size is known."""
    colour, marker = style
    predicted = line.source == "predicted"
    known = line.known
    fits = [(p.x, p.gib) for p in line.points if p.gib is not None and not p.oom]
    missing = [(p.x, edge if p.gib is None else p.gib) for p in line.points if p.oom]
    if known:
        axes.plot(*zip(*known), color=colour, linewidth=1.3, linestyle=(0, (4, 2)) if predicted else "-")
    shape: dict[str, Any] = {"color": colour, "linestyle": "none", "clip_on": False, "zorder": 3}
    if fits:
        axes.plot(*zip(*fits), marker=marker, markersize=4.5, markerfacecolor="white" if predicted else colour, **shape)
    if missing:
        axes.plot(*zip(*missing), marker="x", markersize=5, markeredgewidth=1.4, **shape)


def _labels(axes: Axes, drawn: Sweep, styles: Mapping[str, tuple[str, str]]) -> None:
    """The name of each line beside its last point."""
    last: dict[str, tuple[int, float]] = {}
    for line in drawn.lines:
        if line.known:
            last[line.label] = max(last.get(line.label, (0, 0.0)), line.known[-1])
    labels.beside(axes, last, styles, _LABEL_HEIGHT)


def _limits(drawn: Sequence[Sweep]) -> tuple[float, float]:
    """The memory axis, the same in every panel."""
    known = [gib for each in drawn for line in each.lines for _, gib in line.known]
    known += [cap for each in drawn for cap in each.caps_gib]
    return min(known, default=1.0) / 1.5, max(known, default=1.0) * 1.5


def _caption(drawn: Sequence[Sweep]) -> str:
    lines = [line for each in drawn for line in each.lines]
    missing = [point for line in lines for point in line.points if point.oom]
    said = []
    if any(line.source == "measured" and line.known for line in lines):
        said.append("Solid, filled: measured.")
    calibrations = sorted({text for each in drawn for text in each.calibrations})
    if calibrations:
        said.append(f"Dashed, hollow: predicted, {'; '.join(calibrations)}.")
    said += [f"{counted}." for counted in sorted({text for each in drawn for text in each.counted})]
    if any(point.gib is not None for point in missing):
        said.append("Crosses: out of memory, at what the step would need.")
    if any(point.gib is None for point in missing):
        said.append("Crosses on the cap: out of memory; what the step would need is not known.")
    return " ".join(said)
