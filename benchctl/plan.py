"""A suite made concrete: its cells, whether each is new, done or stale, and what can be measured about it here."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

from pydantic import ValidationError

from benchctl import lookup
from benchctl.errors import BenchctlError, DataMissing, UnknownName, UsageError, WeightsMissing
from benchctl.record import Outcome
from benchctl.spec import Budget, Cell, ClipFlow, ClipShape, DatasetRef, MethodConfig, MethodRef, Recipe, Suite, SweepEntry, Task
from benchctl.suite_file import LoadedSuite
from benchctl.yaml_file import Location

#: a training step with more multiply-accumulates than this is not executed on a CPU unless `--device cpu` asks for it:
#: at some 20 GMAC/s a core it would take minutes, and it would measure the CPU, not the method
CPU_STEP_MACS = 50e9
#: forward and backward of a step, in forward passes
STEP_PASSES = 3

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class DataSource:
    """The data set of a suite, found (`root`) or still to be made (`root` is None)."""

    ref: DatasetRef
    root: Path | None
    num_classes: int
    fingerprint: str | None


@dataclass(frozen=True)
class Plan:
    """The cells of a suite, in the order they run."""

    suite: Suite
    cells: tuple[Cell, ...]
    data: DataSource | None = None

    def only(self, globs: tuple[str, ...]) -> Plan:
        """The cells whose label or id matches one of `globs`; all of them when there are none.

        Raises:
            UsageError: nothing matches.
        """
        if not globs:
            return self
        chosen = tuple(c for c in self.cells if any(fnmatchcase(c.label, g) or fnmatchcase(c.id, g) or g == c.method for g in globs))
        if not chosen:
            raise UsageError("no cell matches", where=" ".join(f"--only {g}" for g in globs), fix=f"cells look like {self.cells[0].label}")
        return replace(self, cells=chosen)


class FlowCheck(Protocol):
    """What the plan needs of whoever keeps flow files."""

    def __call__(self, flow: ClipFlow, stride: int, dataset: DatasetRef, root: Path) -> None:
        """Raise DataMissing where clips of the data set at `root` have no flow to the frame `stride` later."""


class Known(Protocol):
    """What the plan needs of a stored result."""

    @property
    def outcome(self) -> Outcome:
        """How it ended."""

    @property
    def code(self) -> Mapping[str, str]:
        """Digests of the code that produced it, by room."""

    @property
    def device(self) -> str:
        """Where it was executed; `none` when it was only predicted."""


@dataclass(frozen=True)
class State:
    """`new`, `done`, or `stale` with the reason."""

    word: Literal["new", "done", "stale"]
    reason: str = ""


@dataclass(frozen=True)
class Execution:
    """Where a cell is executed here, or why it is not."""

    device: Literal["cpu", "cuda"] | None
    reason: str = ""


def resolve_data(loaded: LoadedSuite, data_root: Path | None) -> DataSource | None:
    """The first data set of the suite that is present, else the first that can be made here.

    Raises:
        SuiteError: a data set that is not registered, or an option it does not know.
        DataMissing: none is present and none can be made.
    """
    makeable: DataSource | None = None
    missing: list[str] = []
    for index, ref in enumerate(loaded.suite.dataset):
        location: Location = ("dataset", index)
        try:
            module = lookup.load("dataset", ref.name)
            options = module.Options.model_validate(ref.options)
        except UnknownName as error:
            raise loaded.error(location, error.what, error.fix) from None
        except ValidationError as invalid:
            raise _option_error(loaded, (*location, "options"), ref.name, invalid, list(module.Options.model_fields)) from None
        resolved = DatasetRef(name=ref.name, options=options.model_dump(mode="json"))
        root = module.locate(ref, data_root)
        if root is not None:
            clips = module.load(root, options)
            return DataSource(resolved, root, len(clips.classes), clips.fingerprint)
        if hasattr(module, "prepare"):
            # what is made follows from its options alone, which are part of the cell: it needs no fingerprint
            makeable = makeable or DataSource(resolved, None, len(module.class_names(options)), None)
        missing.append(f"'{ref.name}' at {ref.root or (data_root / ref.name if data_root else '$BENCHCTL_DATA/' + ref.name)}")
    if makeable or not missing:
        return makeable
    raise DataMissing(
        f"no data set: {', '.join(missing)}",
        where=loaded.where(("dataset",)),
        fix="put it there, or set BENCHCTL_DATA to the folder that holds it",
    )


def expand(loaded: LoadedSuite, data: DataSource | None = None, flow_check: FlowCheck | None = None) -> Plan:
    """Every cell of the suite, without repetitions, in the order of the file.

    Args:
        loaded: the suite.
        data: its data set.
        flow_check: looks for flow files, where methods read any and the data set is present.

    Raises:
        SuiteError: a method, option, recipe key, shape, backend, weights or flow that cannot be, with file:line:column.
        DataMissing: clips have no flow.
    """
    suite = loaded.suite
    resolver = _Resolver(loaded)
    cells: dict[str, Cell] = {}
    for index, entry in enumerate(suite.sweep):
        for method, shape, precision, attention in _grid(suite, entry):
            location: Location = ("sweep", index, "methods", method[0]) if entry.methods else ("methods", method[0])
            resolved = resolver.method(location, method[1])
            backend = resolver.shape(("sweep", index), resolved, shape, attention)
            resolver.needs(location, method[1].name, resolved, data, flow_check)
            common: dict[str, Any] = {
                "method": method[1].name,
                "config": resolved.config_json,
                "options": resolved.options,
                "shape": shape,
                "precision": precision,
                "attention": backend,
                "pretrained": suite.pretrained,
                "pad": suite.pad,
                "num_classes": data.num_classes if data else suite.num_classes,
                "recipe": resolved.recipe,
                "memory_cap_bytes": round(suite.memory_cap_gib * 2**30) if suite.memory_cap_gib else None,
            }
            for cell in _tasks(suite, common, data):
                cells[cell.id] = cell
    return Plan(suite, tuple(cells.values()), data)


def state(cell: Cell, known: Known | None, code: Mapping[str, str], where: Execution) -> State:
    """Whether `cell` must run.

    Args:
        cell: what is asked for.
        known: its newest stored result, if any.
        code: digests of today's code, by room.
        where: where it would be executed here.
    """
    if known is None:
        return State("new")
    if not known.outcome.final:
        return State("new", f"ended as {known.outcome.value} before")
    changed = sorted(room for room, digest in known.code.items() if code.get(room) != digest)
    if changed:
        return State("stale", f"{', '.join(changed)} changed since it ran")
    if where.device and known.device != where.device and cell.task == "profile":
        before = "predicted only" if known.device == "none" else f"measured on {known.device}"
        return State("stale", f"can be measured on {where.device} here, was {before}")
    return State("done")


def execution(cell: Cell, device: Device, cuda: bool, macs: float | None) -> Execution:
    """Where `cell` is executed on this machine.

    Args:
        cell: the cell.
        device: what the user asked for.
        cuda: whether a GPU can be used.
        macs: multiply-accumulates of one clip's forward pass; None when they could not be counted.
    """
    if cell.task == "profile" and not {"memory", "latency"} & set(cell.measure):
        return Execution(None, "nothing to execute: counts only")
    if device != "auto":
        return Execution(device)
    if cuda:
        return Execution("cuda")
    if cell.task != "profile":
        return Execution("cpu")
    if macs is None:
        return Execution(None, "no GPU, and its size is unknown")
    if macs * cell.shape.batch_size * STEP_PASSES > CPU_STEP_MACS:
        # one reason for all such cells: a report says it once
        limit = f"{CPU_STEP_MACS / 1e9:.0f} GMACs"
        return Execution(None, f"no GPU, and steps of over {limit} are not executed on a CPU (--device cpu insists)")
    return Execution("cpu")


def cost_key(cell: Cell, code: Mapping[str, str]) -> str:
    """Key of all that a prediction of `cell` depends on: cells that differ in seed, data or steps share one."""
    fields = cell.model_dump(include={"method", "config", "shape", "precision", "attention", "num_classes", "memory_cap_bytes"})
    recipe = cell.recipe.model_dump(include={"optimizer", "clip_gradient_norm", "momentum", "label_smoothing"})
    wanted = cell.measure if cell.task == "profile" else cell.task == "train"
    parts = (fields, recipe, wanted, dict(code))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class _Resolved:
    config: MethodConfig
    config_json: dict[str, Any]
    #: fields that the suite changed
    options: dict[str, Any] | None
    recipe: Recipe


class _Resolver:
    """Resolves each method once, not once per cell."""

    def __init__(self, loaded: LoadedSuite) -> None:
        self._loaded = loaded
        self._methods: dict[str, _Resolved] = {}
        self._checked: dict[tuple[Any, ...], Any] = {}

    def method(self, location: Location, ref: MethodRef) -> _Resolved:
        key = f"{ref.name} {json.dumps(ref.options, sort_keys=True)}"
        if key not in self._methods:
            self._methods[key] = self._resolve(location, ref)
        return self._methods[key]

    def _resolve(self, location: Location, ref: MethodRef) -> _Resolved:
        try:
            module: ModuleType = lookup.load("method", ref.name)
        except UnknownName as error:
            raise self._loaded.error(location, error.what, error.fix) from None
        try:
            config: MethodConfig = module.Config.model_validate({**module.PRESETS[ref.name], **ref.options})
        except ValidationError as invalid:
            raise _option_error(self._loaded, (*location, "options"), ref.name, invalid, list(module.Config.model_fields)) from None
        if self._loaded.suite.pretrained and config.weights is None:
            raise self._loaded.error(
                ("pretrained",), f"no weights are published for '{ref.name}'", "leave it out, or set 'pretrained: false'"
            )
        changes = self._loaded.suite.recipe.model_dump(exclude_unset=True)
        recipe = Recipe.model_validate({**module.RECIPE.model_dump(), **changes})
        resolved, preset = config.model_dump(mode="json"), module.Config(**module.PRESETS[ref.name]).model_dump(mode="json")
        # an option given as the preset has it changes nothing: the cell is the preset's own
        options = {name: resolved[name] for name in sorted(ref.options) if resolved[name] != preset[name]}
        return _Resolved(config, resolved, options or None, recipe)

    def shape(self, location: Location, method: _Resolved, shape: ClipShape, attention: Any) -> Any:
        """The attention backend; raises where the method cannot take the shape or the backend."""
        key = (id(method), shape, attention)
        if key not in self._checked:
            try:
                method.config.check(shape, pad=self._loaded.suite.pad)
                self._checked[key] = method.config.attention(attention)
            except BenchctlError as error:
                raise self._loaded.error(
                    location, f"{type(method.config).__module__.rpartition('.')[2]}: {error.what}", error.fix
                ) from None
        return self._checked[key]

    def needs(self, location: Location, name: str, method: _Resolved, data: DataSource | None, flow_check: FlowCheck | None) -> None:
        """Raise where the method lacks weights, or clips the flow that it reads with them."""
        key = ("needs", id(method))
        if key in self._checked:
            return
        suite = self._loaded.suite
        try:
            for task in suite.task:
                method.config.check_weights(task, pretrained=suite.pretrained)
        except WeightsMissing as error:
            raise self._loaded.error(location, f"{name}: {error.where}: {error.what}" if error.where else error.what, error.fix) from None
        flow = method.config.clip_flow()
        if flow is not None and data is not None and set(suite.task) != {"profile"}:
            self._flow(location, name, flow, method.recipe, data)
            if flow.estimator != "exact" and data.root is not None and flow_check is not None:
                try:
                    flow_check(flow, method.recipe.frame_stride, data.ref, data.root)
                except DataMissing as error:
                    raise DataMissing(f"{name}: {error.what}", where=self._loaded.where(location), fix=error.fix) from None
        self._checked[key] = True

    def _flow(self, location: Location, name: str, flow: ClipFlow, recipe: Recipe, data: DataSource) -> None:
        """Raise where no clip of the data set can have the flow."""
        if flow.estimator == "exact":
            if not hasattr(lookup.load("dataset", data.ref.name), "exact_flow"):
                those = [n for n in lookup.entries("dataset") if hasattr(lookup.load("dataset", n), "exact_flow")]
                fix = f"name a data set that does ({', '.join(those)}), or another 'flow' in the method's options"
                raise self._loaded.error(location, f"{name}: the data set '{data.ref.name}' carries no exact flow", fix)
        elif recipe.sampling != "dense":
            where: Location = ("recipe", "sampling") if "sampling" in self._loaded.suite.recipe.model_fields_set else location
            what = f"{name}: precomputed flow fits dense sampling only, not '{recipe.sampling}'"
            raise self._loaded.error(where, what, f"set 'recipe: {{sampling: dense, frame_stride: {recipe.frame_stride}}}'")


def _grid(suite: Suite, entry: SweepEntry) -> Iterator[tuple[tuple[int, MethodRef], ClipShape, Any, Any]]:
    shapes = [
        ClipShape(frames=f, resolution=r, batch_size=b) for f, r, b in itertools.product(entry.frames, entry.resolution, entry.batch_size)
    ]
    methods = [(index, ref) for index, given in enumerate(entry.methods or suite.methods) for ref in _matching(given)]
    return itertools.product(methods, shapes, entry.precision or suite.precision, entry.attention or suite.attention)


def _matching(ref: MethodRef) -> list[MethodRef]:
    """The presets that `ref` names: itself, or all that a pattern such as `*-tiny` matches."""
    if not set("*?[") & set(ref.name):
        return [ref]
    names = [name for name in lookup.entries("method") if fnmatchcase(name, ref.name)]
    # a pattern that matches nothing is reported as the unknown name it is
    return [ref.model_copy(update={"name": name}) for name in names] or [ref]


def _tasks(suite: Suite, common: dict[str, Any], data: DataSource | None) -> Iterator[Cell]:
    for seed in suite.seeds:
        trained: Cell | None = None
        for task in sorted(suite.task, key=_TASK_ORDER.index):
            learning = _learning(suite, task, data, trained)
            cell = Cell(task=task, seed=seed, **common, **learning)
            trained = cell if task == "train" else trained
            yield cell


#: a checkpoint is written before it is evaluated
_TASK_ORDER: tuple[Task, ...] = ("profile", "train", "evaluate")


def _learning(suite: Suite, task: Task, data: DataSource | None, trained: Cell | None) -> dict[str, Any]:
    """The fields of a cell that only some tasks have."""
    if task == "profile":
        return {"measure": tuple(sorted(suite.measure))}
    fields: dict[str, Any] = {"dataset": data.ref, "data_fingerprint": data.fingerprint} if data else {}
    if task == "train":
        budget: Budget | None = suite.budget
        return {**fields, "budget": budget}
    if trained is not None:
        return {**fields, "checkpoint": f"cell:{trained.id}"}
    return {**fields, "checkpoint": f"file:{suite.checkpoint}"} if suite.checkpoint else fields


def _option_error(loaded: LoadedSuite, location: Location, name: str, invalid: ValidationError, known: list[str]) -> BenchctlError:
    problem = invalid.errors(include_url=False)[0]
    inner: Location = problem["loc"]
    if problem["type"] == "extra_forbidden":
        return loaded.error((*location, *inner), f"'{name}' has no such option", f"known options: {', '.join(sorted(known))}")
    return loaded.error((*location, *inner), f"{name}: {problem['msg'].removeprefix('Value error, ')}")
