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
from benchctl.launch import Launch
from benchctl.recipe import COMMON_RECIPE, Recipe
from benchctl.record import CellResult, Outcome
from benchctl.spec import Cell, ClipFlow, ClipTracks, DatasetRef, MethodConfig, MethodRef, Precision, Suite, SweepEntry, Task
from benchctl.suite_file import LoadedSuite
from benchctl.vocabulary import ClipShape
from benchctl.yaml_file import Location

#: a training step with more multiply-accumulates than this is not executed on a CPU unless `--device cpu` asks for it:
#: at some 20 GMAC/s a core it would take minutes, and it would measure the CPU, not the method
CPU_STEP_MACS = 50e9
#: forward and backward of a step, in forward passes
STEP_PASSES = 3

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class DataSource:
    """The data set of a suite: found (`root`), still to be made, or absent (`root` is None)."""

    ref: DatasetRef
    root: Path | None
    #: classes, or targets
    num_classes: int
    fingerprint: str | None
    #: names of the numbers that its clips have instead of classes
    targets: tuple[str, ...] | None = None
    #: whether a mirrored clip keeps its class
    flip_safe: bool = False
    #: neither here nor to be made here: what is known of it is what is published
    absent: bool = False


@dataclass(frozen=True)
class Sources:
    """The data of a suite, and of what its training starts from where that is other data."""

    main: DataSource | None = None
    start: DataSource | None = None

    @property
    def for_start(self) -> DataSource | None:
        """The data of cells that training starts from."""
        return self.start or self.main

    @property
    def absent(self) -> tuple[DataSource, ...]:
        """Those that are planned with and cannot be run with."""
        return tuple(source for source in (self.main, self.start) if source is not None and source.absent)


NO_DATA = Sources()


@dataclass(frozen=True)
class Plan:
    """The cells of a suite, in the order they run."""

    suite: Suite
    cells: tuple[Cell, ...]
    data: Sources = NO_DATA

    def root(self, cell: Cell) -> Path | None:
        """The folder of the cell's data set."""
        source = next((s for s in (self.data.main, self.data.start) if s is not None and s.ref == cell.dataset), None)
        return source.root if source else None

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


class TrackCheck(Protocol):
    """What the plan needs of whoever keeps track files."""

    def __call__(self, tracks: ClipTracks, dataset: DatasetRef, root: Path) -> None:
        """Raise DataMissing where clips of the data set at `root` have no tracks."""


class LeakCheck(Protocol):
    """What the plan needs of whoever knows what clips hold."""

    def __call__(self, dataset: DatasetRef, root: Path, fingerprint: str) -> None:
        """Raise UsageError where a clip of the data set at `root` is known to be in train and in test."""


@dataclass(frozen=True)
class Checks:
    """What is looked for in a data set that is present: beside its clips, where methods read any; and in what is known of them."""

    flow: FlowCheck | None = None
    tracks: TrackCheck | None = None
    leakage: LeakCheck | None = None


NO_CHECKS = Checks()


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


def resolve_data(loaded: LoadedSuite, data_root: Path | None, *, absent: bool = False) -> Sources:
    """The first data set of the suite that is present, else the first that can be made here; the same for what training starts from.

    With `absent`, to plan and not to run, else the first whose number of classes is published.

    Raises:
        SuiteError: a data set that is not registered, or an option it does not know.
        DataMissing: there is none.
    """
    suite = loaded.suite
    found = [_first(loaded, ("dataset",), suite.dataset, data_root)]
    if suite.pretraining:
        found.append(_first(loaded, ("pretraining", "dataset"), suite.pretraining.dataset, data_root))
    for missing in (each for each in found if isinstance(each, _Missing)):
        if not absent or missing.published is None:
            raise missing.error
    return Sources(*(each.published if isinstance(each, _Missing) else each for each in found))


@dataclass(frozen=True)
class _Missing:
    """None of the data sets is here, nor can one be made."""

    error: DataMissing
    #: the first of which is known how many classes it has
    published: DataSource | None


def _first(loaded: LoadedSuite, place: Location, refs: tuple[DatasetRef, ...], data_root: Path | None) -> DataSource | _Missing | None:
    makeable: DataSource | None = None
    published: DataSource | None = None
    missing: list[str] = []
    for index, ref in enumerate(refs):
        location: Location = (*place, index)
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
            return DataSource(resolved, root, clips.outputs, clips.fingerprint, clips.targets or None, clips.flip_safe)
        if hasattr(module, "prepare"):
            # what is made follows from its options alone, which are part of the cell: it needs no fingerprint
            makeable = makeable or DataSource(resolved, None, len(module.class_names(options)), None, flip_safe=module.FLIP_SAFE)
        elif published is None and (classes := _published_classes(module, options)) is not None:
            flip_safe = getattr(options, "flip_safe", module.FLIP_SAFE)
            published = DataSource(resolved, None, classes, None, flip_safe=flip_safe, absent=True)
        missing.append(f"'{ref.name}' at {ref.root or (data_root / ref.name if data_root else '$BENCHCTL_DATA/' + ref.name)}")
    if makeable or not missing:
        return makeable
    what, fix = f"no data set: {', '.join(missing)}", "put it there, or set BENCHCTL_DATA to the folder that holds it"
    return _Missing(DataMissing(what, where=loaded.where(place), fix=fix), published)


def _published_classes(module: ModuleType, options: Any) -> int | None:
    """How many classes the data set has, where its file says so for these options."""
    found: int | None = module.published_classes(options) if hasattr(module, "published_classes") else None
    return found


def paper_recipe(module: ModuleType, preset: str, dataset: str | None) -> Recipe:
    """How the paper of a method's file trains `preset` on `dataset`: its RECIPE, and what RECIPES has for the one, the other and both."""
    recipe: Recipe = module.RECIPE
    differing: dict[str, dict[str, Any]] = getattr(module, "RECIPES", {})
    for key in (dataset, preset, f"{preset}/{dataset}"):
        recipe = recipe.changed(differing.get(key or "", {}))
    return recipe


def expand(loaded: LoadedSuite, data: Sources = NO_DATA, checks: Checks = NO_CHECKS) -> Plan:
    """Every cell of the suite, without repetitions, in the order of the file.

    Args:
        loaded: the suite.
        data: its data sets.
        checks: look for flow, tracks and leakage.

    Raises:
        SuiteError: a method, option, recipe key, shape, backend, weights, flow or tracks that cannot be, with file:line:column.
        DataMissing: clips have no flow or no tracks.
        UsageError: a clip is trained on and tested on.
    """
    if set(loaded.suite.task) != {"profile"} and checks.leakage is not None:
        _check_leakage(data, checks.leakage)
    resolver = _Resolver(loaded, data)
    cells: dict[str, Cell] = {}
    for index, entry in enumerate(loaded.suite.sweep):
        suite = loaded.suite.narrowed(entry)
        resolver = resolver.of(suite)
        for method, shape, precision, attention in _grid(suite, entry):
            location: Location = ("sweep", index, "methods", method[0]) if entry.methods else ("methods", method[0])
            resolved = resolver.method(location, method[1])
            backend = resolver.shape(("sweep", index), resolved, shape, attention)
            resolver.needs(_Asked(location, method[1].name, resolved, shape), data, checks)
            resolver.affords(shape)
            resolver.launches(shape, precision)
            recipe = resolver.fitted(location, method[1].name, resolved.recipe, shape)
            common: dict[str, Any] = {
                "method": method[1].name,
                "config": resolved.config_json,
                "options": resolved.options,
                "shape": shape,
                "precision": precision,
                "attention": backend,
                "pretrained": resolved.pretrained,
                "pad": suite.pad,
                "recipe": recipe,
                "memory_cap_bytes": round(suite.memory_cap_gib * 2**30) if suite.memory_cap_gib else None,
                "gpu": suite.gpu,
            }
            start = resolver.start(method[1], common) if suite.pretraining else None
            for launch in suite.launch or (Launch(),):
                # one plain process is what a cell is without any launch
                for cell in _tasks(suite, common, start, data, None if launch == Launch() else launch):
                    cells.setdefault(cell.id, cell)
    return Plan(loaded.suite, tuple(cells.values()), data)


def _check_leakage(data: Sources, check: LeakCheck) -> None:
    for source in (data.main, data.start):
        if source is not None and source.root is not None and source.fingerprint is not None:
            check(source.ref, source.root, source.fingerprint)


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


def refusal(cell: Cell, predicted: CellResult) -> tuple[Outcome, str] | None:
    """Why `cell`, whose costs are known by `predicted`, is not begun: it is over a limit of its budget, or the budget less than a step."""
    if cell.budget is None:
        return None
    caps = cell.budget.caps
    trainable = predicted.value("trainable_params")
    if caps.trainable_params is not None and trainable is not None and trainable > caps.trainable_params:
        return Outcome.SKIPPED, f"{trainable / 1e6:,.2f} M trainable parameters, the budget allows {caps.trainable_params / 1e6:,.2f} M"
    reserved = predicted.value("peak_memory_bytes", kind="reserved", source="predicted")
    if caps.peak_memory_gib is not None and reserved is not None and reserved > caps.peak_memory_gib * 2**30:
        return Outcome.SKIPPED, f"predicted: needs {reserved / 2**30:,.2f} GiB reserved, the budget allows {caps.peak_memory_gib:g} GiB"
    step_flops = predicted.value("train_step_flops", kind="executed")
    reasons = [budget.too_small(cell.shape, step_flops) for budget in cell.budgets] if step_flops is not None else []
    reason = next((reason for reason in reasons if reason is not None), None)
    return (Outcome.FAILED, f"{reason}; raise 'budget.amount', or lower the batch size") if reason else None


def cost_key(cell: Cell, code: Mapping[str, str]) -> str:
    """Key of all that a prediction of `cell` depends on: cells that differ in seed, data or steps share one."""
    fields = cell.model_dump(
        include={"method", "config", "shape", "precision", "attention", "num_classes", "memory_cap_bytes", "gpu", "launch"}
    )
    recipe = cell.recipe.model_dump(include={"optimizer", "clip_gradient_norm", "momentum", "label_smoothing", "train_only"})
    wanted = cell.measure if cell.task == "profile" else cell.task
    parts = (fields, recipe, wanted, cell.objective, dict(code))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class _Resolved:
    config: MethodConfig
    config_json: dict[str, Any]
    #: fields that the suite changed
    options: dict[str, Any] | None
    pretrained: bool
    #: for steps of any size
    recipe: Recipe
    #: of what training starts from; None: it starts from nothing
    start: Recipe | None


@dataclass(frozen=True)
class _Asked:
    """A method at a shape, and where the suite asks for it."""

    location: Location
    name: str
    method: _Resolved
    shape: ClipShape


class _Resolver:
    """Resolves each method once, not once per cell."""

    def __init__(self, loaded: LoadedSuite, data: Sources) -> None:
        self._loaded = loaded
        self._data = data
        self._methods: dict[str, _Resolved] = {}
        self._checked: dict[tuple[Any, ...], Any] = {}

    def of(self, suite: Suite) -> _Resolver:
        """A resolver for `suite`, which differs from this one's in its tasks; this one, if it does not."""
        return self if suite == self._loaded.suite else _Resolver(replace(self._loaded, suite=suite), self._data)

    def method(self, location: Location, ref: MethodRef) -> _Resolved:
        key = f"{ref.name} {ref.pretrained} {json.dumps(ref.options, sort_keys=True)}"
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
        suite = self._loaded.suite
        pretrained = suite.pretrained if ref.pretrained is None else ref.pretrained
        if pretrained and config.weights is None:
            place: Location = ("pretrained",) if ref.pretrained is None else (*location, "pretrained")
            raise self._loaded.error(place, f"no weights are published for '{ref.name}'", "leave it out, or set 'pretrained: false'")
        resolved, preset = config.model_dump(mode="json"), module.Config(**module.PRESETS[ref.name]).model_dump(mode="json")
        # an option given as the preset has it changes nothing: the cell is the preset's own
        options = {name: resolved[name] for name in sorted(ref.options) if resolved[name] != preset[name]}
        recipe = self._recipe(module, ref.name, self._data.main, suite.recipe.changes)
        start = self._recipe(module, ref.name, self._data.for_start, self._starting()) if suite.pretraining else None
        return _Resolved(config, resolved, options or None, pretrained, recipe, start)

    def _recipe(self, module: ModuleType, preset: str, data: DataSource | None, changes: Mapping[str, Any]) -> Recipe:
        base = COMMON_RECIPE
        if self._loaded.suite.recipe.base == "paper":
            base = paper_recipe(module, preset, data.ref.name if data else None)
        try:
            recipe = base.changed(changes)
        except ValidationError as invalid:
            problem = invalid.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise self._loaded.error(("recipe",), f"{preset}: {problem}") from None
        return recipe if recipe.flip != "if-safe" else recipe.model_copy(update={"flip": data is not None and data.flip_safe})

    def _starting(self) -> dict[str, Any]:
        """What differs from the method's recipe where training starts from a cell of its own."""
        suite = self._loaded.suite
        assert suite.pretraining is not None, "asked for where there is one"
        # what papers augment classification with: a mixed, erased or recoloured clip is not one to rebuild
        plain = {"mixup": 0.0, "cutmix": 0.0, "random_erasing": 0.0, "rand_augment": None, "color_jitter": 0.0}
        unlearnt = plain if suite.pretraining.objective == "reconstruction" else {}
        return {**unlearnt, **suite.recipe.changes, "train_only": "all", **suite.pretraining.recipe.model_dump(exclude_unset=True)}

    def start(self, ref: MethodRef, common: dict[str, Any]) -> dict[str, Any]:
        """The fields of the cell that training starts from, but for its seed and its data; `common` are those of the training."""
        suite = self._loaded.suite
        asked = suite.pretraining
        assert asked is not None, "asked for where there is one"
        method = self.method(("pretraining",), ref.model_copy(update={"options": {**ref.options, **asked.options}}))
        if asked.options:
            common = {**common, "config": method.config_json, "options": method.options}
        assert method.start is not None, "resolved where there is a start"
        recipe = self.fitted(("pretraining",), ref.name, method.start, common["shape"])
        task: Task = "pretrain" if asked.objective == "reconstruction" else "train"
        return {**common, "recipe": recipe, "task": task, "budget": asked.budget}

    def fitted(self, location: Location, name: str, recipe: Recipe, shape: ClipShape) -> Recipe:
        """`recipe` for steps of `shape`; raises where it does not know how, or where no such step can be made."""
        suite = self._loaded.suite
        if "train" in suite.task and (misfit := recipe.misfit(shape.batch_size)) is not None:
            raise self._loaded.error(location, f"{name}: {misfit[0]}", f"{misfit[1]}, or change the recipe")
        try:
            return recipe.at(shape.batch_size, scaled=suite.recipe.scale_learning_rate)
        except UsageError as error:
            raise self._loaded.error(("recipe", "scale_learning_rate"), f"{name}: {error.what}", error.fix) from None

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

    def affords(self, shape: ClipShape) -> None:
        """Raise where a budget is less than one step at `shape`, as far as that is known without counting a step's operations."""
        suite = self._loaded.suite
        budgets = {("budget",): suite.budget, ("pretraining", "budget"): suite.pretraining.budget if suite.pretraining else None}
        for place, budget in budgets.items():
            if "train" in suite.task and budget is not None and (reason := budget.too_small(shape, None)) is not None:
                raise self._loaded.error((*place, "amount"), reason, "raise it, or lower 'batch_size'")
        if suite.search is not None and suite.budget is not None:
            if self._data.main is not None and self._data.main.targets:
                raise self._loaded.error(("search",), "trials are judged by top-1 accuracy, and these clips have numbers", "leave it out")
            trial = suite.budget.part(suite.search.share_of_one)
            if (reason := trial.too_small(shape, None)) is not None:
                raise self._loaded.error(("search",), f"a trial's {reason}", "try fewer recipes, or raise the budget")

    def launches(self, shape: ClipShape, precision: Precision) -> None:
        """Raise where the processes that the suite asks for cannot share steps of `shape`."""
        for index, launch in enumerate(self._loaded.suite.launch):
            self._launches(("launch", index), launch, shape, precision)

    def _launches(self, place: Location, launch: Launch, shape: ClipShape, precision: Precision) -> None:
        suite = self._loaded.suite
        if "train" not in suite.task:
            raise self._loaded.error(place, "several processes train, and this suite does not", "leave it out, or add train to 'task'")
        if (misfit := launch.misfit(shape.batch_size, precision)) is not None:
            raise self._loaded.error(place, *misfit)
        micro: Location = (*place, "micro_batch")
        if launch.micro_batch == "auto" and suite.memory_cap_gib is None:
            what = "'micro_batch: auto' takes the most that fits, and nothing says into what"
            raise self._loaded.error(micro, what, "set 'memory_cap_gib' to the memory of your GPU")

    def needs(self, asked: _Asked, data: Sources, checks: Checks) -> None:
        """Raise where the method lacks weights or its own pre-training, or clips the flow or the tracks that it reads with them."""
        config = asked.method.config
        tracks = config.clip_tracks(asked.shape)
        key = ("needs", id(asked.method), tracks)
        if key in self._checked:
            return
        suite = self._loaded.suite
        try:
            for task in suite.task:
                config.check_weights(task, pretrained=asked.method.pretrained)
        except WeightsMissing as error:
            what = f"{asked.name}: {error.where}: {error.what}" if error.where else error.what
            raise self._loaded.error(asked.location, what, error.fix) from None
        if suite.pretraining and suite.pretraining.objective == "reconstruction":
            self._pretrains(asked)
        if set(suite.task) != {"profile"}:
            for source in (data.main, data.start):
                if source is not None:
                    self._read_with(asked, tracks, source, checks)
        self._checked[key] = True

    def _pretrains(self, asked: _Asked) -> None:
        if asked.method.config.pretrains():
            return
        modules = {name: lookup.load("method", name) for name in lookup.entries("method")}
        those = [name for name, module in modules.items() if module.Config(**module.PRESETS[name]).pretrains()]
        fix = f"methods that do: {', '.join(those)}; or 'objective: classes'"
        raise self._loaded.error(asked.location, f"'{asked.name}' has no pre-training by reconstruction", fix)

    def _read_with(self, asked: _Asked, tracks: ClipTracks | None, data: DataSource, checks: Checks) -> None:
        """Raise where clips of `data` lack what the method reads with them."""
        flow, recipe = asked.method.config.clip_flow(), asked.method.recipe
        try:
            if flow is not None:
                self._flow(asked, flow, data)
                if flow.estimator != "exact" and data.root is not None and checks.flow is not None:
                    checks.flow(flow, recipe.frame_stride, data.ref, data.root)
            if tracks is not None:
                self._carries(asked, "exact_tracks", "tracks", tracks.estimator, data)
                if tracks.estimator != "exact" and data.root is not None and checks.tracks is not None:
                    checks.tracks(tracks, data.ref, data.root)
        except DataMissing as error:
            raise DataMissing(f"{asked.name}: {error.what}", where=self._loaded.where(asked.location), fix=error.fix) from None

    def _carries(self, asked: _Asked, attribute: str, option: str, estimator: str, data: DataSource) -> None:
        """Raise where exact truth is asked of a data set that carries none."""
        if estimator != "exact" or hasattr(lookup.load("dataset", data.ref.name), attribute):
            return
        those = [n for n in lookup.entries("dataset") if hasattr(lookup.load("dataset", n), attribute)]
        what = f"{asked.name}: the data set '{data.ref.name}' carries no {attribute.replace('_', ' ')}"
        fix = f"name a data set that does ({', '.join(those)}), or another '{option}' in the method's options"
        raise self._loaded.error(asked.location, what, fix)

    def _flow(self, asked: _Asked, flow: ClipFlow, data: DataSource) -> None:
        """Raise where no clip of the data set can have the flow."""
        self._carries(asked, "exact_flow", "flow", flow.estimator, data)
        recipe = asked.method.recipe
        if flow.estimator != "exact" and recipe.sampling != "dense":
            where: Location = ("recipe", "sampling") if "sampling" in self._loaded.suite.recipe.model_fields_set else asked.location
            what = f"{asked.name}: precomputed flow fits dense sampling only, not '{recipe.sampling}'"
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


def _tasks(suite: Suite, common: dict[str, Any], starting: dict[str, Any] | None, data: Sources, launch: Launch | None) -> Iterator[Cell]:
    """The cells of one method at one shape, each behind those that it needs; `starting` is what it starts from."""
    for seed, share in itertools.product(suite.seeds, suite.train_fraction):
        given = {**common, "seed": seed}
        start = Cell(seed=seed, **starting, **_about(suite, data.for_start), launch=launch) if starting else None
        if start is not None:
            yield start
        trained: Cell | None = None
        for task in sorted(suite.task, key=_TASK_ORDER.index):
            if task == "profile":
                if (seed, share) != (suite.seeds[0], suite.train_fraction[0]):
                    # what a step costs does not depend on them
                    continue
                classes = data.main.num_classes if data.main else suite.num_classes
                yield Cell(task=task, **given, num_classes=classes, measure=tuple(sorted(suite.measure)))
                continue
            learning: dict[str, Any] = {"train_fraction": share if share < 1 else None} | _about(suite, data.main)
            if task == "train":
                started = f"cell:{start.id}" if start else None
                trained = Cell(task=task, **given, **learning, budget=suite.budget, search=suite.search, start=started, launch=launch)
                yield trained
                continue
            checkpoint = f"cell:{trained.id}" if trained else f"file:{suite.checkpoint}" if suite.checkpoint else None
            yield Cell(task=task, **given, **learning, checkpoint=checkpoint)


#: a checkpoint is written before it is evaluated
_TASK_ORDER: tuple[Task, ...] = ("profile", "train", "evaluate")


def _about(suite: Suite, source: DataSource | None) -> dict[str, Any]:
    """What a cell says about its data."""
    if source is None:
        return {"num_classes": suite.num_classes}
    found = {"dataset": source.ref, "data_fingerprint": source.fingerprint, "num_classes": source.num_classes}
    return {**found, "targets": source.targets}


def _option_error(loaded: LoadedSuite, location: Location, name: str, invalid: ValidationError, known: list[str]) -> BenchctlError:
    problem = invalid.errors(include_url=False)[0]
    inner: Location = problem["loc"]
    if problem["type"] == "extra_forbidden":
        return loaded.error((*location, *inner), f"'{name}' has no such option", f"known options: {', '.join(sorted(known))}")
    return loaded.error((*location, *inner), f"{name}: {problem['msg'].removeprefix('Value error, ')}")
