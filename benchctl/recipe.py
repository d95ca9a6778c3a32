"""How a method is trained and evaluated: recipes, and what a suite says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, create_model, model_validator

from benchctl.errors import UsageError
from benchctl.vocabulary import Decay, Share, Vocabulary

#: `nesterov`: SGD with Nesterov's momentum
OptimizerName = Literal["sgd", "nesterov", "adamw"]


class Recipe(Vocabulary):
    """How a method is trained and evaluated. A method file carries its own; a suite overrides single keys."""

    optimizer: OptimizerName = "adamw"
    learning_rate: PositiveFloat = 1e-3
    weight_decay: float = Field(0.05, ge=0)
    #: SGD only
    momentum: float = Field(0.9, ge=0, lt=1)
    #: AdamW only: decay of its two averages; null: 0.9 and 0.999
    betas: tuple[Decay, Decay] | None = None
    #: share of the steps over which the learning rate rises linearly from 0
    warmup_fraction: float = Field(0.1, ge=0, lt=1)
    #: `steps`: the learning rate stays, and is a tenth of what it was from each of `drop_at` on
    schedule: Literal["cosine", "constant", "steps"] = "cosine"
    #: shares of the training, warm-up included, for the schedule `steps`
    drop_at: tuple[Share, ...] | None = None
    #: norm to which gradients are clipped; null: not clipped
    clip_gradient_norm: PositiveFloat | None = None
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    sampling: Literal["segment", "uniform", "dense"] = "segment"
    #: frames between two sampled frames, for dense sampling
    frame_stride: PositiveInt = 8
    #: horizontal flips in training, wrong wherever left and right are different classes: `true` is refused there, `if-safe` flips
    #: elsewhere and not there. A resolved cell never says `if-safe`
    flip: bool | Literal["if-safe"] = False
    #: random resized crops in training: smallest share of the picture's area that is kept; null: a random crop without resizing
    crop_scale: float | None = Field(None, gt=0, le=1)
    #: timm's words for RandAugment, for example `rand-m7-n4-mstd0.5-inc1`, drawn once for all frames of a clip; null: none
    rand_augment: str | None = None
    #: largest change of brightness, contrast and saturation, as a share; 0: none
    color_jitter: float = Field(0.0, ge=0, le=1)
    #: probability that a box of a clip, the same in all frames, is filled with noise
    random_erasing: float = Field(0.0, ge=0, le=1)
    #: alpha of the Beta distribution that mixes clips and labels (Zhang et al. 2018); 0: none
    mixup: float = Field(0.0, ge=0)
    #: alpha of the Beta distribution of the boxes that are exchanged (Yun et al. 2019); 0: none
    cutmix: float = Field(0.0, ge=0)
    #: times that a clip is in a batch, each time augmented anew (Hoffer et al. 2020)
    repeated_augmentation: PositiveInt = 1
    #: evaluation views: `eval_clips` in time x `eval_crops` in space (1: centre, 3: along the longer side)
    eval_clips: PositiveInt = 1
    eval_crops: Literal[1, 3] = 1
    #: data-loader processes; 0 decodes in the worker itself
    loader_workers: int = Field(0, ge=0)
    #: `head`: only the classifier learns, the rest stays as it started (a linear probe)
    train_only: Literal["all", "head"] = "all"
    #: epochs that the paper trains for, and clips of its step, repetitions included, that the learning rate is for; null: not known.
    #: Both say what is published. Cells have neither: how long they train is their budget, and how large a step is their shape
    epochs: PositiveFloat | None = None
    batch_size: PositiveInt | None = None

    @model_validator(mode="after")
    def _drops(self) -> Self:
        if (self.schedule == "steps") != bool(self.drop_at):
            raise ValueError("schedule 'steps' and 'drop_at' need each other, for example {schedule: steps, drop_at: [0.5, 0.75]}")
        return self

    def at(self, batch_size: int, *, scaled: bool) -> Recipe:
        """As a cell with steps of `batch_size` clips has it: without what only says what is published.

        `scaled`: with the learning rate for that step, linearly (Goyal et al. 2017), from the step that it is published for.

        Raises:
            UsageError: for `scaled`, where it is not known which step that is.
        """
        rate = self.learning_rate
        if scaled:
            if self.batch_size is None:
                raise UsageError("the batch size that its learning rate is for is not known", fix="give 'batch_size' in the recipe")
            rate *= batch_size / self.batch_size
        return self.model_copy(update={"learning_rate": rate, "epochs": None, "batch_size": None})

    def changed(self, changes: Mapping[str, Any]) -> Recipe:
        """With `changes`. Another schedule leaves behind what belongs to the one that it replaces."""
        left = {"drop_at": None} if changes.get("schedule", self.schedule) != "steps" else {}
        return Recipe.model_validate({**self.model_dump(), **left, **changes})

    def misfit(self, batch_size: int) -> tuple[str, str] | None:
        """Why steps of `batch_size` clips cannot be made by this recipe, and what helps; None: they can."""
        times = self.repeated_augmentation
        if batch_size % times:
            return f"each clip is {times} times in a batch, and a batch has {batch_size} clips", f"use a multiple of {times}"
        mixing = " and ".join(f"'{name}'" for name in ("mixup", "cutmix") if getattr(self, name))
        if mixing and batch_size % 2:
            return f"{mixing} pairs clips, and a batch has {batch_size}", "set an even batch size"
        return None


def _changes(model: type[Vocabulary]) -> type[Vocabulary]:
    """A class with the fields of `model`, each of which may be left out."""
    fields: dict[str, Any] = {
        name: (Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation, None)
        for name, field in model.model_fields.items()
    }
    return create_model(f"{model.__name__}Changes", __base__=Vocabulary, **fields)


if TYPE_CHECKING:

    class RecipeChanges(Vocabulary):
        """`Recipe`, each key of which may be left out."""
else:
    RecipeChanges = _changes(Recipe)


#: `paper`: each method as its paper trains it; `common`: all alike, by `COMMON_RECIPE`
RecipeBase = Literal["paper", "common"]
#: what all methods are trained with where a suite asks for `recipe: common`: what networks of any kind learn with, and nothing that
#: suits one of them
COMMON_RECIPE = Recipe(
    optimizer="adamw",
    learning_rate=1e-3,
    weight_decay=0.05,
    warmup_fraction=0.1,
    schedule="cosine",
    clip_gradient_norm=1.0,
    sampling="segment",
)


def recipe_by_name(value: Any) -> Any:
    """`common` is short for `{base: common}`."""
    return {"base": value} if isinstance(value, str) else value


class SuiteRecipe(RecipeChanges):
    """A recipe to start from, and keys that differ from it."""

    base: RecipeBase = "paper"
    #: learning rates are for the recipes' own `batch_size`: scale each linearly to that of the cell (Goyal et al. 2017)
    scale_learning_rate: bool = False

    @property
    def changes(self) -> dict[str, Any]:
        """The keys that differ."""
        return self.model_dump(exclude_unset=True, exclude={"base", "scale_learning_rate"})
