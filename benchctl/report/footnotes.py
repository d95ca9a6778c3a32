"""What a reader must know beside the numbers, said once under the table: random weights, padding, what was not counted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchctl.record import Outcome

if TYPE_CHECKING:
    from benchctl.store.stored import CellRow, Readings

#: a note of a result whose value is a line of text -> how its footnote begins
_TEXTS = {
    "weights": "Weights",
    "padding": "Padding",
    "flow": "Optical flow",
    "counted_frames": "Frames that papers count",
    "frames_read": "Frames that are read of each clip",
    "pretraining": "Pre-training that the weights bring along",
    "searched": "Recipe searched, inside the budget",
    "not_measured": "Not measured here",
    "prediction_failed": "Memory could not be predicted",
}
_NAMED = 3


def footnotes(cells: Sequence[CellRow], shown: Sequence[Sequence[Readings]]) -> tuple[str, ...]:
    """One line per fact, with the cells that it is about.

    Args:
        cells: the cells that the table shows.
        shown: the memory readings that it shows of each: a line says where a prediction is not calibrated, or a value is missing.
    """
    facts: dict[str, list[CellRow]] = {}
    noted: dict[int, list[str]] = {}
    # every cell has a list of its own, and most are nearly the same: said once, as all of them together
    uncounted = sorted({name for cell in cells for name in cell.notes.get("uncounted_operators", ())})
    for cell, readings in zip(cells, shown):
        # cells with equal notes share them
        if id(cell.notes) not in noted:
            noted[id(cell.notes)] = list(_notes(cell.notes, uncounted))
        for line in (*_readings(cell, readings), *noted[id(cell.notes)], *_ending(cell)):
            facts.setdefault(line, []).append(cell)
    return tuple(f"{line} ({_extent(about, len(cells))})." for line, about in facts.items())


def reasons(cells: Sequence[CellRow], title: str, found: Mapping[int, str]) -> Iterator[str]:
    """A line for each reason, by result id, why a number called `title` is not there."""
    about: dict[str, list[CellRow]] = {}
    for cell in cells:
        if cell.result_id is not None and cell.result_id in found:
            about.setdefault(found[cell.result_id], []).append(cell)
    for reason, those in about.items():
        yield f"{title} is unavailable: {reason} ({_extent(those, len(cells))})."


def _readings(cell: CellRow, readings: Sequence[Readings]) -> Iterator[str]:
    number = cell.result_id
    if any(r.source == "predicted" and number in r.values for r in readings):
        yield f"Predicted memory is {cell.notes.get('prediction_calibration', 'of unknown calibration: the result does not say')}"
    for r in readings:
        if number is not None and number in r.reasons:
            yield f"Peak memory ({r.source}, {r.kind}, {r.device}) is unavailable: {r.reasons[number]}"


def _notes(notes: Mapping[str, Any], uncounted: Sequence[str]) -> Iterator[str]:
    for key, title in _TEXTS.items():
        if notes.get(key):
            yield f"{title}: {_text(notes[key])}"
    if notes.get("uncounted_operators"):
        yield f"MACs and FLOPs leave out operators that could not be counted: {', '.join(uncounted)}"
    for key, word in (("unreadable_clips", "Unreadable"), ("missing_clips", "Missing")):
        if notes.get(key):
            yield f"{word} clips ({len(notes[key])}), left out: {_listed([_text(clip) for clip in notes[key]], 'clips')}"


def _ending(cell: CellRow) -> Iterator[str]:
    if cell.outcome not in (None, Outcome.OK, Outcome.OOM):
        yield f"{cell.outcome.value.capitalize()}: {cell.reason}"


def _extent(about: list[CellRow], total: int) -> str:
    if len(about) == total:
        return "all cells" if total > 1 else "the cell"
    methods = list(dict.fromkeys(cell.method for cell in about))
    return f"{len(about)} of {total} cells: {_listed(methods, 'methods')}"


def _listed(names: list[str], kind: str) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more {kind}" if more > 0 else "")


def _text(value: Any) -> str:
    return value.rstrip(".") if isinstance(value, str) else json.dumps(value, sort_keys=True)
