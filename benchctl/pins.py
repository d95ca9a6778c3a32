"""Pins: recorded results that later ones are compared with, in a YAML file made to be reviewed as a diff.

    version: 1
    suite: ci
    rules: {memory_share: 0.02}            # where they differ from the usual ones
    environments:
      1f0c93ab: {cpu: ..., packages: {torch: 2.15.0}, ...}
    cells:
    - cell: 4ac5be0112f3a9d7
      is: {task: profile, method: moss-tiny, batch_size: 1, frames: 8, ...}
      environment: 1f0c93ab
      device: none
      outcome: ok
      values:
        macs all: 123456
        peak_memory_bytes allocated predicted cuda: 4567
    history:
    - {date: 2026-11-27, run: ..., reason: ..., changes: [...]}

One class for both sides: what a run came to has the form of pins too, so the gate compares like with like.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, PositiveInt, model_validator

from benchctl import lookup, yaml_file
from benchctl.errors import UsageError, unknown
from benchctl.record import UNITS, Environment, Measurement, Outcome, Source, correctness
from benchctl.spec import Task
from benchctl.vocabulary import Count, NotNegative, Part, Vocabulary
from benchctl.yaml_file import FileKind, YamlFile

VERSION: Literal[1] = 1

_SOURCES: tuple[Source, ...] = ("measured", "predicted")
_DEVICES = ("cuda", "cpu")
#: what can be pinned: counts, memory, and how good a model is
COUNTS = (
    "params",
    "trainable_params",
    "macs",
    "flops",
    "uncounted_operators",
    "ranks",
    "steps",
    "samples",
    "frames_seen",
    "planned_steps",
    "train_step_flops",
    "train_flops",
    "clips",
    "unreadable_clips",
)
MEMORY = "peak_memory_bytes"
SCORES = ("top1", "top5", "pearson_r")
TIMES = ("latency_seconds", "train_seconds", "throughput_clips_per_second")


class ValueKey(NamedTuple):
    """What a pinned number is of. Written `metric kind source device`, without what is empty or `measured`."""

    metric: str
    kind: str = ""
    source: Source = "measured"
    device: str = ""

    def __str__(self) -> str:
        return " ".join(word for word in (self.metric, self.kind, self.source if self.source != "measured" else "", self.device) if word)

    @classmethod
    def parse(cls, text: str) -> ValueKey:
        """The key that `text` stands for.

        Raises:
            ValueError: no such metric, or words that mean nothing.
        """
        metric, *words = text.split()
        if metric not in UNITS:
            raise ValueError(f"no metric is called '{metric}'")
        device = words.pop() if words and words[-1] in _DEVICES else ""
        source: Source = "measured"
        if words and words[-1] in _SOURCES:
            source = "predicted" if words.pop() == "predicted" else "measured"
        return cls(metric, " ".join(words), source, device)


class Rules(Vocabulary):
    """How far a result may lie from its pin."""

    #: measured allocated memory may grow by the larger of a share and a number of bytes
    memory_share: NotNegative = 0.01
    memory_bytes: NotNegative = 8 * 2**20
    #: reserved memory, that of the device and rss only warn, above this share
    warn_share: NotNegative = 0.05
    #: of the exponents that memory grows with, over frames and over resolution
    exponent: NotNegative = 0.05
    #: by which the accuracy of one checkpoint may fall, as a share of the clips
    checkpoint_margin: NotNegative = 0.005
    #: by which the mean accuracy over trainings may fall
    training_margin: NotNegative = 0.01
    #: by which a median time may grow
    time_share: NotNegative = 0.02
    #: of confidence intervals; for all statistical tests of a file together: where nothing changed, one of them says that something
    #: regressed in less than (1 - level) / 2 of all checks
    level: Part = 0.98
    #: trainings that a mean needs
    seeds: PositiveInt = 3


class RuleChanges(Vocabulary):
    """Rules that differ from the usual ones."""

    memory_share: NotNegative | None = None
    memory_bytes: NotNegative | None = None
    warn_share: NotNegative | None = None
    exponent: NotNegative | None = None
    checkpoint_margin: NotNegative | None = None
    training_margin: NotNegative | None = None
    time_share: NotNegative | None = None
    level: Part | None = None
    #: one training is no evidence, and two are none either
    seeds: int | None = Field(None, ge=3)


def changed_rules(*changes: RuleChanges) -> Rules:
    """The usual rules with `changes`, the last one first."""
    merged: dict[str, Any] = {}
    for each in changes:
        merged |= each.model_dump(exclude_none=True)
    return Rules(**merged)


def varied(method: str, options: str, start: str = "") -> str:
    """A method with its changed options in the order in which `Cell.variant` has them."""
    words = [*options.split(), *([f"start={start}"] if start else [])]
    return f"{method}({' '.join(sorted(words))})" if words else method


class CellWords(Vocabulary):
    """What a cell is, in the words that tables have for it. Its id says the rest."""

    task: Task
    method: str
    #: changed options, as tables have them
    options: str = ""
    #: beginning of the id of the cell whose weights it starts from: another one for each seed
    start: str = ""
    batch_size: Count
    frames: Count
    resolution: Count
    precision: str
    attention: str
    optimizer: str
    pretrained: bool = False
    seed: int
    dataset: str | None = None

    @property
    def variant(self) -> str:
        """The method, with what was changed."""
        return varied(self.method, self.options, self.start)

    @property
    def shape(self) -> str:
        """Batch, frames and resolution."""
        return f"{self.batch_size}x{self.frames}x{self.resolution}"

    @property
    def label(self) -> str:
        """As `Cell.label`; `--only` matches it."""
        return f"{self.variant}/{self.task}/{self.shape}/{self.precision}/{self.attention}/seed{self.seed}"


class RightClips(Vocabulary):
    """Which clips a model was right about, as `record.packed` has it."""

    clips: Count
    ids_sha256: str
    bits: str

    @property
    def right(self) -> tuple[bool, ...]:
        """Clip by clip."""
        return correctness(self.model_dump())


class Pin(Vocabulary):
    """What one cell came to."""

    cell: str
    #: `is` in files
    words: CellWords = Field(alias="is")
    #: digest of one of `Pins.environments`
    environment: str
    #: that the cell was executed on
    device: str
    outcome: Outcome
    reason: str | None = None
    #: content of the data set; null: no data, or generated by its options
    data: str | None = None
    #: of the weights that were judged
    weights_sha256: str | None = None
    #: the cell of the same suite that trained them; null: they were there before
    judges: str | None = None
    values: dict[str, float | int] = Field(default_factory=dict)
    #: repeated times, in the order in which they were taken
    times: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    correct: RightClips | None = None
    rules: RuleChanges = RuleChanges()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for text in (*self.values, *self.times):
            ValueKey.parse(text)
        return self

    @property
    def trained(self) -> bool:
        """Whether its scores are those of a training, which comes out otherwise with every seed."""
        return self.words.task == "train" or self.judges is not None

    @property
    def numbers(self) -> dict[ValueKey, float | int]:
        """The values by what they are of."""
        return {ValueKey.parse(text): value for text, value in self.values.items()}

    def number(self, key: ValueKey) -> float | int | None:
        """The value of `key`; where that names no device, of the one that the cell was executed on."""
        numbers = self.numbers
        return numbers.get(key, numbers.get(key._replace(device=self.device)) if not key.device else None)


class Change(Vocabulary):
    """One time that pins were set, and what they were before."""

    date: datetime.date
    run: str
    reason: str = Field(min_length=1)
    git_commit: str | None = None
    #: `LABEL: what: before -> after`
    changes: tuple[str, ...]


class Pins(Vocabulary):
    """A file of pins, or what a run came to in the same form."""

    version: Literal[1] = VERSION
    suite: str
    rules: RuleChanges = RuleChanges()
    environments: dict[str, Environment] = Field(default_factory=dict)
    cells: tuple[Pin, ...] = Field(min_length=1)
    history: tuple[Change, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        ids = [pin.cell for pin in self.cells]
        if double := next((cell for cell in ids if ids.count(cell) > 1), None):
            raise ValueError(f"cell {double} is pinned twice")
        if lost := next((pin for pin in self.cells if pin.environment not in self.environments), None):
            raise ValueError(f"cell {lost.cell}: environment '{lost.environment}' is not among 'environments'")
        return self


FILE = FileKind(UsageError, "a file of pins", needs="version, suite, environments and cells", begin="version: 1")


def load(path: Path) -> Pins:
    """The pins in the file `path`, whose methods this version knows.

    Raises:
        UsageError: not a file of pins, torn, of a newer version, or about a method that is not here; with file:line:column.
    """
    file = yaml_file.read(path, FILE)
    version = file.values.get("version")
    if isinstance(version, int) and version > VERSION:
        what = f"pins of version {version}, and this benchctl reads up to {VERSION}"
        raise file.error(("version",), what, "use a newer benchctl, or pin again with this one")
    _renamed(file)
    pins = file.validated(Pins)
    known = lookup.entries("method")
    for index, pin in enumerate(pins.cells):
        if pin.words.method not in known:
            raise unknown("method", pin.words.method, known, where=file.where(("cells", index, "is", "method")))
    return pins


def shipped() -> dict[str, Path]:
    """The pins that come with benchctl, by suite."""
    return yaml_file.shipped("baselines/pins")


def _renamed(file: YamlFile) -> None:
    """Dates, which YAML reads as such, back into words: they are checked with everything else."""
    for change in file.values.get("history") or ():
        if isinstance(change, dict) and isinstance(change.get("date"), datetime.date):
            change["date"] = change["date"].isoformat()


@dataclass(frozen=True)
class Pieces:
    """What the results database has about one cell, out of which a pin is made."""

    cell: str
    words: CellWords
    device: str
    outcome: Outcome
    reason: str | None
    environment: Environment
    measurements: Sequence[Measurement]
    notes: Mapping[str, Any]
    data: str | None
    judges: str | None


def of_results(suite: str, results: Iterable[Pieces]) -> Pins:
    """What `results` came to, in the form of pins, in the order of the file."""
    environments: dict[str, Environment] = {}
    cells = []
    for each in results:
        digest = _digest(each.environment)
        environments[digest] = each.environment
        cells.append(_pin(each, digest))
    return Pins(suite=suite, environments=dict(sorted(environments.items())), cells=tuple(sorted(cells, key=_order)))


def _pin(pieces: Pieces, environment: str) -> Pin:
    values: dict[str, float | int] = {}
    times: dict[str, list[float]] = {}
    for m in sorted(pieces.measurements, key=lambda m: (m.metric, m.kind, m.source, m.device, m.rep)):
        if m.value is None or m.source not in _SOURCES:
            continue
        key = str(ValueKey(m.metric, m.kind, m.source, m.device))
        if m.metric in TIMES:
            times.setdefault(key, []).append(float(m.value))
        elif m.metric in COUNTS or m.metric == MEMORY or (m.metric in SCORES and not m.kind):
            values[key] = max(values.get(key, m.value), m.value)
    correct = pieces.notes.get("correct")
    return Pin.model_validate(
        {
            "cell": pieces.cell,
            "is": pieces.words,
            "environment": environment,
            "device": pieces.device,
            "outcome": pieces.outcome,
            "reason": pieces.reason,
            "data": pieces.data,
            "weights_sha256": pieces.notes.get("weights_sha256"),
            "judges": pieces.judges,
            "values": values,
            "times": {key: tuple(each) for key, each in times.items()},
            "correct": correct and {name: correct[name] for name in ("clips", "ids_sha256", "bits")},
        }
    )


class Accepted(NamedTuple):
    """Pins after a run was accepted."""

    pins: Pins
    #: `LABEL: what: before -> after`
    changes: tuple[str, ...]
    #: pinned before, and not planned by the run
    others: tuple[Pin, ...]


def accept(before: Pins | None, results: Pins, *, run: str, reason: str, date: datetime.date, keep: bool) -> Accepted:
    """`before` with `results` in place of what it says of their cells, and the reason in its history.

    Args:
        before: the file as it is; None: there is none.
        results: every cell of `run`.
        run: its id.
        reason: why the pins move, for whoever reads the diff.
        date: of today.
        keep: whether pins of cells that the run did not plan stay; else they go.
    """
    old = {pin.cell: pin for pin in before.cells} if before else {}
    new = {pin.cell: pin.model_copy(update={"rules": old[pin.cell].rules}) if pin.cell in old else pin for pin in results.cells}
    others = tuple(pin for pin in old.values() if pin.cell not in new)
    kept = {pin.cell: pin for pin in others} if keep else {}
    changes = [*_changes(old, new), *(() if keep else (f"{pin.words.label}: removed" for pin in others))]
    after = sorted((kept | new).values(), key=_order)
    environments = (before.environments if before else {}) | results.environments
    used = {pin.environment for pin in after}
    commit = next(iter(results.environments.values())).git_commit
    # of a new file, its own cells would only be listed twice
    told = changes if before else [f"{len(new)} cells: new"]
    entry = Change(date=date, run=run, reason=reason, git_commit=commit, changes=tuple(told))
    pins = Pins(
        suite=results.suite,
        rules=before.rules if before else RuleChanges(),
        environments={digest: environments[digest] for digest in sorted(used)},
        cells=tuple(after),
        history=((*before.history, entry) if before else (entry,)),
    )
    return Accepted(pins, tuple(changes), others)


def _changes(old: Mapping[str, Pin], new: Mapping[str, Pin]) -> Iterator[str]:
    for cell, pin in new.items():
        was = old.get(cell)
        if was is None:
            yield f"{pin.words.label}: new"
            continue
        if was.outcome is not pin.outcome:
            yield f"{pin.words.label}: outcome: {was.outcome} -> {pin.outcome}"
        for key in sorted(was.values.keys() | pin.values.keys()):
            first, second = (values.get(key) for values in (was.values, pin.values))
            if first != second:
                yield f"{pin.words.label}: {key}: {_shown(first)} -> {_shown(second)}"
        if was.correct != pin.correct and was.values.get("top1") == pin.values.get("top1"):
            yield f"{pin.words.label}: other clips are right"


def _shown(value: float | int | None) -> str:
    return "none" if value is None else f"{value}"


def written(pins: Pins) -> str:
    """The file's text: one line for each value, in one order, so that a diff shows what moved."""
    lines = [f"version: {pins.version}", f"suite: {yaml_file.flow(pins.suite)}"]
    if changes := pins.rules.model_dump(exclude_none=True):
        lines.append(f"rules: {yaml_file.flow(changes)}")
    lines.append("environments:")
    for digest, environment in pins.environments.items():
        lines.append(f"  {yaml_file.flow(digest)}: {yaml_file.flow(_plain_environment(environment))}")
    lines.append("cells:")
    for pin in pins.cells:
        lines += _pin_lines(pin)
    if pins.history:
        lines.append("history:")
    for change in pins.history:
        head = change.model_dump(mode="json", exclude_none=True, exclude={"changes"})
        lines += ["- " + "\n  ".join(f"{name}: {yaml_file.flow(value)}" for name, value in head.items()), "  changes:"]
        lines += [f"  - {yaml_file.flow(each)}" for each in change.changes]
        if not change.changes:
            lines[-1] = "  changes: []"
    return "\n".join(lines) + "\n"


def _pin_lines(pin: Pin) -> Iterator[str]:
    yield f"- cell: {yaml_file.flow(pin.cell)}"
    yield f"  is: {yaml_file.flow(pin.words.model_dump(mode='json', exclude_defaults=True))}"
    yield f"  environment: {yaml_file.flow(pin.environment)}"
    for name in ("device", "outcome", "reason", "data", "weights_sha256", "judges"):
        value = getattr(pin, name)
        if value is not None:
            yield f"  {name}: {yaml_file.flow(str(value))}"
    if pin.values:
        yield "  values:"
        yield from (f"    {key}: {yaml_file.flow(value)}" for key, value in pin.values.items())
    if pin.times:
        yield "  times:"
        yield from (f"    {key}: {yaml_file.flow(list(value))}" for key, value in pin.times.items())
    if pin.correct:
        yield f"  correct: {yaml_file.flow(pin.correct.model_dump())}"
    if changes := pin.rules.model_dump(exclude_none=True):
        yield f"  rules: {yaml_file.flow(changes)}"


def _plain_environment(environment: Environment) -> dict[str, Any]:
    return environment.model_dump(mode="json", exclude_none=True, exclude_defaults=True)


def _digest(environment: Environment) -> str:
    return environment.digest[:8]


def _order(pin: Pin) -> tuple[object, ...]:
    w = pin.words
    shape = (w.batch_size, w.frames, w.resolution)
    return (w.task, w.method, w.options, *shape, w.precision, w.attention, w.dataset or "", w.seed, pin.cell)
