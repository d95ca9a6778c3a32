"""The vocabulary of suites: frozen classes for what a user asks for, and what a plan makes of it.

`benchctl.suite_file` reads these from YAML; `benchctl.plan` makes cells of them. Every class is closed (unknown keys are errors)
and frozen (a cell's id is a hash of its content).
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    model_validator,
)

from benchctl.budget import Budget
from benchctl.errors import ShapeError, UsageError
from benchctl.gpu_models import DEFAULT_GPU, GpuName
from benchctl.launch import Launch
from benchctl.recipe import Recipe, RecipeBase, RecipeChanges, SuiteRecipe, recipe_by_name
from benchctl.vocabulary import ClipShape, Count, Decay, NotNegative, Part, Seed, Share, Vocabulary, as_tuple, one_or_more

#: part of every cell id: a new way of resolving cells makes new ids instead of silently meaning something else
CELL_IDENTITY_VERSION = 1

#: `pretrain` learns without labels; what it leaves, `train` starts from
Task = Literal["profile", "pretrain", "train", "evaluate"]
#: what a suite asks for; `pretraining` adds the rest
SuiteTask = Literal["profile", "train", "evaluate"]
#: what a model learns: to rebuild what is hidden from it, the class of a clip, or numbers about it
Objective = Literal["reconstruction", "classes", "values"]
Precision = Literal["fp32", "fp16", "bf16"]
#: `eager`: explicit softmax(QK)V. `sdpa`: torch's fused call, kernel chosen by torch's rules. `math`, `efficient`, `flash`: that
#: call with the kernel fixed. `auto`: what the method's library does by default; a resolved cell never says `auto`. `none`: it has none.
Attention = Literal["auto", "none", "eager", "sdpa", "math", "efficient", "flash"]
#: one number for each of red, green and blue
Rgb = tuple[float, float, float]
Measure = Literal["memory", "flops", "params", "latency"]
#: RAFT (Teed and Deng 2020), as torchvision has it; DIS (Kroeger et al. 2016) and Farneback (2003), as OpenCV has them
FlowEstimatorName = Literal["raft-large", "raft-small", "dis", "farneback"]
#: CoTracker3 (Karaev et al. 2024), as its authors' package has it; pyramidal Lucas-Kanade (Bouguet 2001), as OpenCV has it
TrackEstimatorName = Literal["cotracker3", "lucas-kanade"]
#: who gives tracks; `exact`: the data set carries them
TrackSourceName = Literal["cotracker3", "lucas-kanade", "exact"]
#: what a video holds: colour, or the distance of each pixel
Modality = Literal["rgb", "depth"]


class DatasetRef(Vocabulary):
    """A data set by the name of its file in `benchctl/data`, with that file's options."""

    name: str
    #: folder of the data set; default: `name` under $BENCHCTL_DATA
    root: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class MethodRef(Vocabulary):
    """A method preset by name, with changed options of its `Config`."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    #: default: the suite's
    pretrained: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class ClipFlow(Vocabulary):
    """Optical flow that comes with a clip, as two more channels: x and y in pixels to the next frame, 0 in the last one."""

    #: who estimated it beforehand; `exact`: the data set carries it
    estimator: FlowEstimatorName | Literal["exact"]
    #: the estimator's weights, as `benchctl.layers.flow` names them
    weights: str | None = None


class ClipTracks(Vocabulary):
    """Point tracks that come with a clip: `frames` x `points` x (x, y, visible)."""

    estimator: TrackSourceName
    frames: Count
    points: Count


class MethodConfig(Vocabulary):
    """Base of every method's `Config`: the numbers of one preset."""

    #: attention backends the method can run with; the first is what `auto` means; `none` alone: it has no attention
    ATTENTION: ClassVar[tuple[Attention, ...]] = ("eager",)

    patch_size: PositiveInt = 16
    #: frames that one temporal token spans
    tubelet_size: PositiveInt = 1
    #: checkpoint name on its hub, for `pretrained: true`; null: none is published
    weights: str | None = None

    def attention(self, asked: Attention) -> Attention:
        """The backend a cell resolves to.

        Raises:
            UsageError: the method cannot run with `asked`.
        """
        offered = self.backends()
        if asked == "auto":
            return offered[0]
        if asked not in offered:
            raise UsageError(f"attention '{asked}' is not available", fix=f"choose from {', '.join(offered)}")
        return asked

    def backends(self) -> tuple[Attention, ...]:
        """Attention backends that it can run with, where they depend on the options; the first is what `auto` means."""
        return self.ATTENTION

    def statistics(self) -> tuple[Rgb, Rgb] | None:
        """Mean and standard deviation that clips are normalised by, where they depend on the options; None: the file's MEAN and STD."""
        return None

    def clip_flow(self) -> ClipFlow | None:
        """Optical flow that the method reads with each clip; None: it is given RGB alone."""
        return None

    def clip_tracks(self, shape: ClipShape) -> ClipTracks | None:  # noqa: ARG002
        """Point tracks that the method reads with each clip of `shape`; None: none."""
        return None

    def clip_modality(self) -> Modality:
        """What the videos that the method reads hold."""
        return "rgb"

    def pretrains(self) -> bool:
        """Whether it can learn by reconstruction, without labels: its file then has `build_pretraining`."""
        return False

    def pixels(self, shape: ClipShape) -> ClipShape | None:
        """Frames, and their size, that are read of each video for a clip of `shape`; None: no pixels are read.

        Some methods read more and smaller frames than they work on, and some read tracks alone.
        """
        return shape

    @property
    def frame_channels(self) -> int:
        """Channels of a frame: three of RGB or one of depth, and two of flow where it comes with the clip."""
        return (3 if self.clip_modality() == "rgb" else 1) + (0 if self.clip_flow() is None else 2)

    def input_shapes(self, shape: ClipShape) -> tuple[tuple[int, ...], ...]:
        """The shapes, without the batch, of the tensors that the model is given for a clip of `shape`: pixels, then tracks."""
        found: list[tuple[int, ...]] = []
        if (read := self.pixels(shape)) is not None:
            found.append((read.frames, self.frame_channels, read.resolution, read.resolution))
        if (tracks := self.clip_tracks(shape)) is not None:
            found.append((tracks.frames, tracks.points, 3))
        return tuple(found)

    def counted_frames(self, frames: int) -> int:
        """What papers call the frames of a clip that holds `frames`: some methods read others beside those they count."""
        return frames

    def brings(self) -> tuple[str, ...]:
        """Names of the published weights that `pretrained: true` loads, as `benchctl.pretrained_on` knows them."""
        return () if self.weights is None else (self.weights,)

    def check_weights(self, task: Task, *, pretrained: bool) -> None:
        """Raise WeightsMissing where a cell of `task` needs weights that cannot be had. Called when the suite is planned."""

    def padded(self, resolution: int) -> int:
        """`resolution` rounded up to whole patches."""
        return -(-resolution // self.patch_size) * self.patch_size

    def check(self, shape: ClipShape, *, pad: bool) -> None:
        """Raise ShapeError when the method cannot take `shape`.

        A resolution that the patch does not divide is accepted with `pad`: frames are then zero-padded at the right and the
        bottom to whole patches.
        """
        if shape.frames % self.tubelet_size:
            below, above = shape.frames // self.tubelet_size * self.tubelet_size, -(-shape.frames // self.tubelet_size) * self.tubelet_size
            near = f"{below} or {above}" if below else f"{above}"
            raise ShapeError(f"{shape.frames} frames are not a multiple of the tubelet size {self.tubelet_size}", fix=f"use {near} frames")
        if shape.resolution % self.patch_size and not pad:
            above = self.padded(shape.resolution)
            raise ShapeError(
                f"resolution {shape.resolution} is not a multiple of the patch size {self.patch_size}",
                fix=f"use {above}, or 'pad: true' to pad to it",
            )


@dataclass(frozen=True)
class ModelSpec:
    """What a method's `build` is given."""

    config: MethodConfig
    shape: ClipShape
    num_classes: int
    attention: Attention
    pretrained: bool = False

    @property
    def padded_resolution(self) -> int:
        """Side in pixels that the model works at: whole patches."""
        return self.config.padded(self.shape.resolution)


class Search(Vocabulary):
    """Recipes that are tried before a training, inside its budget: every combination of the lists, and the best one is trained with."""

    learning_rate: Annotated[tuple[PositiveFloat, ...], one_or_more(PositiveFloat)] | None = None
    weight_decay: Annotated[tuple[NotNegative, ...], one_or_more(NotNegative)] | None = None
    warmup_fraction: Annotated[tuple[Decay, ...], one_or_more(Decay)] | None = None
    label_smoothing: Annotated[tuple[Decay, ...], one_or_more(Decay)] | None = None
    #: of the budget, for all trials together
    share: Part = 0.3
    #: of the training clips, class by class, which judge the trials and are not trained on in them
    held_out: Part = 0.2

    @model_validator(mode="after")
    def _two_or_more(self) -> Self:
        if len(self.combinations) < 2:
            raise ValueError("nothing is searched: give a list of two values or more, for example 'learning_rate: [3.0e-4, 1.0e-3]'")
        return self

    @property
    def combinations(self) -> list[dict[str, float]]:
        """Keys of a recipe with the values that are tried together; the last key changes fastest."""
        lists = {name: getattr(self, name) for name in ("learning_rate", "weight_decay", "warmup_fraction", "label_smoothing")}
        tried = {name: values for name, values in lists.items() if values}
        return [dict(zip(tried, values)) for values in itertools.product(*tried.values())]

    @property
    def share_of_one(self) -> float:
        """Of the budget, for one trial."""
        return self.share / len(self.combinations)


class Pretraining(Vocabulary):
    """What training starts from: a cell of its own, for each of those that train."""

    #: `reconstruction`: without labels, as the method itself does it; `classes`: as any training, on a data set of its own
    objective: Literal["reconstruction", "classes"]
    budget: Budget
    #: default: the suite's. With `classes` it is another one: the head is left behind
    dataset: Annotated[tuple[DatasetRef, ...], one_or_more(DatasetRef | str)] = ()
    #: options of the method that differ from those of the cell that starts from it
    options: dict[str, Any] = Field(default_factory=dict)
    #: keys that differ from the recipe that the suite gives the method
    recipe: SerializeAsAny[RecipeChanges] = Field(default_factory=RecipeChanges)


class SweepEntry(Vocabulary):
    """One grid of the sweep: every combination of its lists. The suite is the union of its grids."""

    frames: Annotated[tuple[Count, ...], one_or_more(Count)] = Field(min_length=1)
    resolution: Annotated[tuple[Count, ...], one_or_more(Count)] = Field(min_length=1)
    batch_size: Annotated[tuple[Count, ...], one_or_more(Count)] = Field((1,), min_length=1)
    precision: Annotated[tuple[Precision, ...], one_or_more(Precision)] | None = None
    attention: Annotated[tuple[Attention, ...], one_or_more(Attention)] | None = None
    #: only these methods take part; default: the suite's
    methods: Annotated[tuple[MethodRef, ...], one_or_more(MethodRef | str)] | None = None
    #: only these of the suite's tasks; default: all of them
    task: Annotated[tuple[SuiteTask, ...], one_or_more(SuiteTask)] | None = Field(None, min_length=1)
    #: what its profile cells record; default: as the suite says
    measure: Annotated[tuple[Measure, ...], one_or_more(Measure)] | None = Field(None, min_length=1)


class Suite(Vocabulary):
    """A suite file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="name in reports")]
    description: str = ""
    task: Annotated[tuple[SuiteTask, ...], one_or_more(SuiteTask)] = Field(description="profile, train, evaluate, or a list of them")
    methods: Annotated[tuple[MethodRef, ...], one_or_more(MethodRef | str)] = Field(min_length=1, description="method presets")
    sweep: tuple[SweepEntry, ...] = Field(min_length=1, description="grids of input shapes; the suite is their union")
    precision: Annotated[tuple[Precision, ...], one_or_more(Precision)] = Field(
        ("fp32",), description="weights are fp32; fp16 and bf16 are autocast"
    )
    attention: Annotated[tuple[Attention, ...], one_or_more(Attention)] = Field(("auto",), description="attention backend")
    pretrained: bool = Field(False, description="load published weights; otherwise they are random, and the result says so")
    pad: bool = Field(False, description="zero-pad frames to whole patches where the patch does not divide the resolution")
    num_classes: PositiveInt = Field(400, description="width of the classifier, for profile; train and evaluate take it from the data")
    memory_cap_gib: PositiveFloat | None = Field(None, description="a step that needs more than this ends as oom")
    gpu: GpuName | None = Field(None, description=f"the GPU that memory is predicted for; default: {DEFAULT_GPU}")
    measure: tuple[Measure, ...] = Field(("memory", "flops", "params"), description="what a profile cell records")
    recipe: Annotated[SerializeAsAny[SuiteRecipe], BeforeValidator(recipe_by_name, json_schema_input_type=RecipeBase | SuiteRecipe)] = (
        Field(default_factory=SuiteRecipe, description="paper, common, or keys that differ from one of them (base)")
    )
    dataset: Annotated[tuple[DatasetRef, ...], one_or_more(DatasetRef | str)] = Field(
        (), description="data set, or a list of which the first one present is used"
    )
    seeds: Annotated[tuple[Seed, ...], one_or_more(Seed)] = Field(
        (0,),
        min_length=1,
        description="one cell per seed, one of all for profile; a suite that trains has seeds 0, 1 and 2 where it names none",
    )
    budget: Budget | None = Field(None, description="what every method is given equally, for train")
    search: Search | None = Field(None, description="recipes that every training tries first, inside its budget")
    train_fraction: Annotated[tuple[Share, ...], one_or_more(Share)] = Field(
        (1.0,), min_length=1, description="share of the training clips that is used, class by class; one cell per share"
    )
    pretraining: Pretraining | None = Field(None, description="what every training starts from: cells of their own, run before it")
    checkpoint: str | None = Field(None, description="file to evaluate; default: what the same suite's train cell wrote")
    launch: Annotated[tuple[Launch, ...], one_or_more(Launch)] = Field(
        (), description="several processes for each training, and their engine; a list makes one cell for each; default: one process"
    )
    timeout_s: PositiveFloat = Field(3600.0, description="time limit of one cell in seconds")

    def narrowed(self, entry: SweepEntry) -> Suite:
        """The suite as one entry of its sweep has it: with the tasks and measures that the entry names."""
        if entry.task is None and entry.measure is None:
            return self
        changes: dict[str, Any] = {"task": entry.task or self.task, "measure": entry.measure or self.measure}
        if "train" not in changes["task"]:
            changes |= {"pretraining": None, "search": None, "launch": ()}
        return self.model_copy(update=changes)

    @model_validator(mode="before")
    @classmethod
    def _three_seeds(cls, value: Any) -> Any:
        """One training is no evidence: three, as MOOSE's paper has them."""
        if isinstance(value, dict) and "seeds" not in value and "train" in as_tuple(value.get("task")):
            return {**value, "seeds": (0, 1, 2)}
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        trains = "train" in self.task or "evaluate" in self.task
        if other := next((task for entry in self.sweep for task in entry.task or () if task not in self.task), None):
            raise ValueError(f"an entry of 'sweep' has the task {other}, which 'task' lacks: add it there")
        if self.search and "train" not in self.task:
            raise ValueError("'search' is what a training does first: add train to 'task'")
        if self.pretraining and "train" not in self.task:
            raise ValueError("'pretraining' is what training starts from: add train to 'task'")
        if trains and not self.dataset:
            raise ValueError("a suite that trains or evaluates needs 'dataset'")
        if "train" in self.task and self.budget is None:
            raise ValueError("a suite that trains needs 'budget', for example {match_on: train_gflops, amount: 2.0e+5}")
        if "evaluate" in self.task and "train" not in self.task and not (self.checkpoint or self.pretrained):
            raise ValueError("a suite that only evaluates needs 'checkpoint' or 'pretrained: true'")
        return self


def options_text(options: Mapping[str, Any]) -> str:
    """Changed options as a person reads them: `{"orders": [1, 2], "window": [[3, 9, 9], [5, 9, 9]]}` is `orders=1,2 window=3x9x9,5x9x9`."""
    return " ".join(f"{name}={_value_text(value, ',')}" for name, value in sorted(options.items()))


def _value_text(value: Any, between: str) -> str:
    if isinstance(value, list | tuple):
        return between.join(_value_text(item, "x") for item in value) or "none"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


class Cell(Vocabulary):
    """One resolved unit of work: nothing in it is left to a default somewhere else."""

    task: Task
    method: str
    #: the method's whole Config, as JSON
    config: dict[str, Any]
    #: those of its fields that the suite changed; null: none
    options: dict[str, Any] | None = None
    shape: ClipShape
    precision: Precision
    attention: Attention
    pretrained: bool
    pad: bool
    num_classes: PositiveInt
    seed: int
    recipe: Recipe
    measure: tuple[Measure, ...] = ()
    memory_cap_bytes: PositiveInt | None = None
    #: the GPU that memory is predicted for; null: `DEFAULT_GPU`
    gpu: GpuName | None = None
    dataset: DatasetRef | None = None
    #: content of the data set: hash of its file list and labels
    data_fingerprint: str | None = None
    budget: Budget | None = None
    #: for train: recipes that are tried first, inside the budget; null: none
    search: Search | None = None
    #: for evaluate: `cell:ID` of the train cell, or `file:PATH`
    checkpoint: str | None = None
    #: for train: `cell:ID` whose weights it starts from; null: from those that the method is built with
    start: str | None = None
    #: share of the training clips that is used; null: all
    train_fraction: Share | None = None
    #: numbers that are learned instead of classes, by name; null: classes are
    targets: tuple[str, ...] | None = None
    #: for train and pretrain: the processes that share it; null: one
    launch: Launch | None = None

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, without what was derived from the fields before they changed."""
        copied = super().model_copy(update=update, deep=deep)
        for derived in ("canonical", "id", "label"):
            copied.__dict__.pop(derived, None)
        return copied

    @cached_property
    def canonical(self) -> str:
        """The JSON that the id is a hash of: sorted keys, absent values left out."""
        content = {"identity": CELL_IDENTITY_VERSION, **self.model_dump(mode="json", exclude_none=True)}
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @cached_property
    def id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of `canonical`."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()[:16]

    @property
    def kin(self) -> str:
        """What cells have in common that train the same, whatever the number of processes and their engine."""
        return self.model_copy(update={"launch": None}).id

    @property
    def changes(self) -> dict[str, Any]:
        """What a table must say to tell this cell from the preset's own: changed options, and how it learns where that is not as usual."""
        learning = {
            "train_fraction": self.train_fraction,
            "train_only": None if self.recipe.train_only == "all" else self.recipe.train_only,
            "start": self.start and self.start.removeprefix("cell:")[:8],
            "launch": self.launch and str(self.launch),
        }
        return {**(self.options or {}), **{name: value for name, value in learning.items() if value is not None}}

    @property
    def variant(self) -> str:
        """The method, with what was changed: `moss-s(orders=1)`."""
        return f"{self.method}({options_text(self.changes)})" if self.changes else self.method

    @cached_property
    def label(self) -> str:
        """What a person calls this cell; `--only` matches it."""
        return f"{self.variant}/{self.task}/{self.shape}/{self.precision}/{self.attention}/seed{self.seed}"

    @property
    def objective(self) -> Objective:
        """What is learned."""
        return "reconstruction" if self.task == "pretrain" else "values" if self.targets else "classes"

    @property
    def budgets(self) -> Iterator[Budget]:
        """What must be enough for a step each: the budget, and the part of it that one trial has."""
        if self.budget is not None:
            yield self.budget
            if self.search is not None:
                yield self.budget.part(self.search.share_of_one)

    def steps(self, step_flops: float | None = None) -> int | None:
        """Training steps that the budget comes to at this shape, as `Budget.steps` says."""
        return self.budget.steps(self.shape, step_flops) if self.budget else None
