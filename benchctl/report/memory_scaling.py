"""The memory-scaling figure: peak memory over resolution and over frames, one line per method, against the cap."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchctl.errors import Inconclusive
from benchctl.report import figure
from benchctl.report.memory_sweeps import Line, MemoryKind, Sweep, memory_kind, sweep
from benchctl.report.table import Selection, selected

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from benchctl.store.store import Store
    from benchctl.store.stored import CellRow

FIGURE = "peak memory over resolution and over frames, with the cap and what is out of memory"

_PANEL_INCHES = 3.75
_HEIGHT_INCHES = 3.3
_CAPTION_CHARACTERS = 62
_AXIS_TITLES = {"resolution": "resolution (pixels)", "frames": "frames"}
#: height of a line label, in parts of the axis
_LABEL_HEIGHT = 0.052


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
        memory = snapshot.readings("peak_memory_bytes")
    of = memory_kind(memory)
    sweeps = [found for axis in ("resolution", "frames") if (found := sweep(cells, memory, axis, of))]
    if not sweeps:
        raise Inconclusive(
            "no two cells with memory differ in only their resolution or only their frames",
            where=str(store.location),
            fix="run a suite that sweeps them: benchctl run memory_scaling",
        )
    with figure.style():
        figure.save(_figure(sweeps, of, _caption(sweeps, cells)), file)


def _figure(sweeps: Sequence[Sweep], of: MemoryKind | None, caption: str) -> Figure:
    made = figure.new(_PANEL_INCHES * len(sweeps), _HEIGHT_INCHES)
    labels = sorted({line.label for each in sweeps for line in each.lines})
    styles = {label: figure.STYLES[i % len(figure.STYLES)] for i, label in enumerate(labels)}
    lines = caption.splitlines()
    bottom = (0.52 + 0.145 * len(lines)) / _HEIGHT_INCHES
    grid = made.add_gridspec(1, len(sweeps), left=0.5 / (_PANEL_INCHES * len(sweeps)), right=0.87, top=0.9, bottom=bottom, wspace=0.5)
    top = max(_highest(each) for each in sweeps)
    for i, each in enumerate(sweeps):
        axes = made.add_subplot(grid[0, i])
        _panel(axes, each, styles, top)
        if i == 0:
            kind = f", {of.kind} on {of.device}" if of else ""
            axes.set_ylabel(f"peak memory (GiB{kind})")
    made.text(0.01, 0.02, caption, fontsize=6.5, color=figure.FAINT, va="bottom", linespacing=1.4)
    return made


def _panel(axes: Axes, drawn: Sweep, styles: Mapping[str, tuple[str, str]], top: float) -> None:
    xs = sorted({point.x for line in drawn.lines for point in line.points})
    lowest = min((p.gib for line in drawn.lines for p in line.points if p.gib), default=min(drawn.caps_gib, default=1.0) / 2)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xlim(xs[0] / 1.09, xs[-1] * 1.09)
    axes.set_ylim(lowest / 1.5, top * 1.5)
    axes.set_xticks(xs, [str(x) for x in xs])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()
    axes.grid(axis="y", color=figure.GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=2.5, width=0.6)
    axes.set_xlabel(_AXIS_TITLES[drawn.axis])
    axes.set_title(drawn.held)
    for cap in drawn.caps_gib:
        axes.axhline(cap, color=figure.INK, linewidth=0.9, linestyle=(0, (1, 1.5)), zorder=1.5)
        axes.annotate(f"cap {cap:g} GiB", (0, cap), (3, 2), xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=6.5)
    for line in drawn.lines:
        _line(axes, line, styles[line.label], min(drawn.caps_gib, default=top))
    _labels(axes, drawn, styles)


def _line(axes: Axes, line: Line, style: tuple[str, str], edge: float) -> None:
    """Measured: solid and filled; predicted: dashed and hollow; out of memory: a cross, at the edge where no size is known."""
    colour, marker = style
    predicted = line.source == "predicted"
    known = [(p.x, p.gib) for p in line.points if p.gib is not None]
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
    """The name of each line beside its last point, pushed apart where two would touch."""
    ends: dict[str, float] = {}
    for line in drawn.lines:
        known = [(p.x, p.gib) for p in line.points if p.gib is not None]
        if known and line.label not in ends:
            ends[line.label] = float(axes.transAxes.inverted().transform(axes.transData.transform(max(known)))[1])
    placed = -1.0
    for label, height in sorted(ends.items(), key=lambda item: item[1]):
        placed = max(height, placed + _LABEL_HEIGHT)
        axes.text(1.03, placed, label, transform=axes.transAxes, fontsize=7.5, color=styles[label][0], va="center")


def _highest(drawn: Sweep) -> float:
    known = [p.gib for line in drawn.lines for p in line.points if p.gib is not None]
    return max((*known, *drawn.caps_gib), default=1.0)


def _caption(sweeps: Sequence[Sweep], cells: Sequence[CellRow]) -> str:
    lines = [line for each in sweeps for line in each.lines]
    sources = {line.source for line in lines if any(p.gib is not None for p in line.points)}
    said = []
    if "measured" in sources:
        said.append("Solid, filled: measured.")
    if "predicted" in sources:
        calibration = {cell.notes.get("prediction_calibration", "of unknown calibration") for cell in cells if cell.result_id is not None}
        said.append(f"Dashed, hollow: predicted, {'; '.join(sorted(calibration))}.")
    if any(point.oom for line in lines for point in line.points):
        said.append("Crosses: out of memory, at the memory that the step would need; on the cap where that is not known.")
    return "\n".join(textwrap.wrap(" ".join(said), _CAPTION_CHARACTERS * len(sweeps)))
