"""Trainings in a database: cells that differ in nothing but their seed are one training, repeated. A row, a line, a point is of one."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from benchctl.record import Outcome
from benchctl.report.table import CELL_COLUMNS, NOT_RECORDED, NOT_RUN, PRESET, Absent, Column, Value
from benchctl.store.stored import CellRow

#: what every table of trainings says about one, before its numbers
TRAINING_COLUMNS = (
    *(column for column in CELL_COLUMNS if column.name != "seed"),
    Column("start", "starts from", text="varying"),
    # what tells rows apart that are otherwise alike
    Column("differs_in", "differs in", text="present"),
    # clips in time x crops in space, whose scores are averaged
    Column("views", "views", text="varying"),
)
#: what a row of a training is of
ENDING_COLUMNS = (
    Column("outcome", "outcome", text="varying"),
    Column("reason", "reason", text="never"),
    Column("seconds", "time of a cell", "seconds", show="s", text="never"),
    # ids, parted by spaces
    Column("run", "runs", text="never"),
    Column("cell", "cells", text="never"),
)
#: where the numbers of one seed say nothing of a spread
ONE_SEED = Absent("one seed")
#: made once: `json.dumps` would make one for each cell
_SORTED = json.JSONEncoder(sort_keys=True)
_SAME = ("recipe", "config", "options")


@dataclass(frozen=True)
class Training:
    """Cells that differ in their seed, in the order of these."""

    cells: tuple[CellRow, ...]
    #: the first cell as it was resolved, without its seed; `start` is the cell that it starts from, as resolved
    content: Mapping[str, Any]
    #: what tells it from others that look the same in a table; empty: nothing does, or none does
    differs_in: str = ""

    @property
    def first(self) -> CellRow:
        """One of its cells, for all that they have in common."""
        return self.cells[0]

    @property
    def sees_one_frame(self) -> bool:
        """Whether a single frame is read of each clip. Some methods read more frames than they work on: the TIME layer arranges them."""
        return all(cell.notes.get("frames_read", cell.frames) == 1 for cell in self.cells)

    @cached_property
    def done(self) -> tuple[CellRow, ...]:
        """The cells that ended well: those whose numbers count."""
        return tuple(cell for cell in self.cells if cell.outcome is Outcome.OK)

    @cached_property
    def options(self) -> str:
        """Changed options, without the cell that it starts from: each seed has another one."""
        if self.content.get("start") is None:
            return self.first.options
        return " ".join(part for part in self.first.options.split(" ") if not part.startswith("start="))

    @cached_property
    def variant(self) -> str:
        """The method with its changed options."""
        return f"{self.first.method}({self.options})" if self.options else self.first.method

    @cached_property
    def data(self) -> tuple[str, str]:
        """What it is taught and judged by: only trainings that have it in common compare. The second part tells contents apart."""
        about = [self.content.get(name) for name in ("dataset", "data_fingerprint", "num_classes", "targets")]
        return (self.first.dataset or "no data", json.dumps(about, sort_keys=True))

    @property
    def views(self) -> str:
        """`2x3`: clips in time x crops in space."""
        recipe = self.content["recipe"]
        return f"{recipe.get('eval_clips', 1)}x{recipe.get('eval_crops', 1)}"

    @property
    def ending(self) -> str:
        """`ok` where every seed ended so, else how many of them ended how: `2 ok, 1 diverged`."""
        counts = Counter(cell.outcome.value if cell.outcome else str(NOT_RUN) for cell in self.cells)
        if len(counts) == 1:
            return next(iter(counts))
        first = Outcome.OK.value
        return ", ".join(
            f"{count} {word}" for word, count in sorted(counts.items(), key=lambda item: (item[0] != first, -item[1], item[0]))
        )

    @property
    def missing(self) -> Absent:
        """The word for a number that none of its cells has."""
        if self.done:
            return NOT_RECORDED
        words = Counter(cell.outcome.value for cell in self.cells if cell.outcome)
        return Absent(words.most_common(1)[0][0]) if words else NOT_RUN


def trainings(cells: Sequence[CellRow], contents: Mapping[str, str]) -> list[Training]:
    """What was trained, of `cells`, as the first of its cells comes; `contents` is the canonical JSON of cells by id."""
    groups: dict[str, list[CellRow]] = defaultdict(list)
    resolved: dict[str, dict[str, Any]] = {}
    for cell in cells:
        if cell.task == "train":
            content = _content(cell.cell_id, contents)
            key = _SORTED.encode(content)
            groups[key].append(cell)
            resolved.setdefault(key, content)
    made = [Training(tuple(sorted(each, key=lambda cell: (cell.seed, cell.cell_id))), resolved[key]) for key, each in groups.items()]
    alike: dict[tuple[Value, ...], list[Training]] = defaultdict(list)
    for training in made:
        alike[(*training_values(training), json.dumps(training.content.get("budget")))].append(training)
    told = {id(training): words for each in alike.values() if len(each) > 1 for training, words in zip(each, _differences(each))}
    return [Training(each.cells, each.content, told.get(id(each), "")) for each in made]


def training_values(training: Training) -> tuple[Value, ...]:
    """The values of `TRAINING_COLUMNS`."""
    cell = training.first
    return (
        cell.task,
        cell.method,
        training.options or PRESET,
        cell.dataset or NOT_RECORDED,
        cell.batch_size,
        cell.frames,
        cell.resolution,
        cell.precision,
        cell.attention,
        cell.optimizer,
        _start(training),
        training.differs_in or NOT_RECORDED,
        training.views,
    )


def ending_values(training: Training) -> tuple[Value, ...]:
    """The values of `ENDING_COLUMNS`."""
    tried = [cell for cell in training.cells if cell.outcome is not None]
    reasons = dict.fromkeys(cell.reason for cell in tried if cell.reason)
    seconds = [cell.seconds for cell in tried if cell.seconds is not None]
    runs = dict.fromkeys(cell.run_id for cell in tried if cell.run_id)
    return (
        training.ending if tried else NOT_RUN,
        "; ".join(reasons) or NOT_RECORDED,
        sum(seconds) / len(seconds) if seconds else NOT_RUN,
        " ".join(runs) or NOT_RUN,
        " ".join(cell.cell_id for cell in training.cells),
    )


def names(of: Sequence[Training]) -> list[str]:
    """A short name for each: its method, and what else it takes to tell it from the others of that method."""
    facets = [(each.options or "preset", *map(str, training_values(each)[4:11]), each.views, each.differs_in) for each in of]
    words = ("{}", "batch {}", "{} frames", "{} pixels", "{}", "{}", "{}", "from {}", "{} views", "{}")
    by_method: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for training, facet in zip(of, facets):
        by_method[training.first.method].append(facet)
    made = []
    for training, facet in zip(of, facets):
        varying = [len(set(values)) > 1 for values in zip(*by_method[training.first.method])]
        said = [_counted(word, value) for word, value, varies in zip(words, facet, varying) if varies and value]
        made.append(", ".join([training.first.method, *said]))
    return made


def _counted(word: str, value: str) -> str:
    return word.format(value).removesuffix("s") if (word, value) == ("{} frames", "1") else word.format(value)


def _content(cell_id: str, contents: Mapping[str, str]) -> dict[str, Any]:
    """A cell as it was resolved, without its seed, and in place of the cell that it starts from, that one likewise."""
    content: dict[str, Any] = json.loads(contents[cell_id])
    content.pop("seed", None)
    start = str(content.get("start", "")).removeprefix("cell:")
    if start in contents:
        content["start"] = _content(start, contents)
    return content


def _start(training: Training) -> Value:
    """What it starts from, in words."""
    start = training.content.get("start")
    if start is None:
        return Absent("its own weights")
    if not isinstance(start, dict):
        return str(start)
    return f"{start['task']} on {(start.get('dataset') or {}).get('name', 'no data')}"


def _differences(alike: Sequence[Training]) -> list[str]:
    """For each of `alike`, the values of the keys in which they differ."""
    flat = [dict(_flat(training.content)) for training in alike]
    keys = sorted({key for each in flat for key in each if len({other.get(key) for other in flat}) > 1})
    return [" ".join(f"{key}={each.get(key, 'none')}" for key in keys) for each in flat]


def _flat(content: Mapping[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        # an option is in `config` and in `options`, and is one thing
        path = before if key in _SAME else (*before, key)
        if isinstance(value, dict):
            yield from _flat(value, path)
        else:
            yield ".".join(path), value if isinstance(value, str) else json.dumps(value)
