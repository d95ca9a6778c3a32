"""EMIM: attention to a window of the next frame, whose scores are read as motion (Zhuang et al.).

Source: "A Renaissance of Explicit Motion Information Mining from Transformers for Action Recognition"; sections, tables and equations
below are its own. The host is UniFormer without temporal downsampling (`benchctl.layers.uniformer`): the first stage takes every
frame, and its 3 x 4 x 4 kernel stays.

Reading. Confirmed by every cost in Tables 1, 4, 5 and 8, with what a window asks for in the place of what is executed (the kind
`windowed` of MACs):

- The window's side is 7: "P = 7" in section 3.3 is the side, and displacements reach from -3 to 3.
- Blocks 0, 2, 4, ... of stages 3 and 4 are replaced, the last block of an odd number too.
- Queries of frame t look at keys and values of frame t + 1. The motion MLP f reads the scores of each head, before the softmax and
  with the relative bias, and its output is added to what the head attended, before the projection.

At 224 pixels with 174 classes:

    emim-s, 16 frames 85.3 G   emim-b, 16 frames 198.3 G   emim-b, 32 frames 526.3 G

What the paper leaves open, and what is chosen here:

- The heads of a block share one MLP: what a place in the window means is the same for all of them.
- The last frame, which has no next one, looks at itself: scores then say that nothing moves, and no frame is made up. With an interval
  of several frames, all that have no later one look at the last.
- The last layer of f starts at zero, so that published weights start as attention in the window alone; biases start as Swin's.
- Non-sliding windows (Table 6): the frame is cut as Swin cuts it, filled up with 1e-6 to whole windows, and a query looks at the window
  that it lies in; the bias is then by displacement, as Swin's.
- The traditional integration (Table 10): attention stays as it is in every block; in those that would be replaced, cosine similarities
  of the normalised tokens with the window of the next frame (zero beyond the frame) become C channels through an MLP of the same form,
  added to what is attended.

The published Kinetics-400 weights are those of UniFormer: the paper's own were trained without temporal downsampling and are not
published. The recipe is the paper's (section 4.2): 60 epochs on Something-Something V2 and Diving48, 50 on V1, with sparse
sampling; on Kinetics-400 110, dense, with half the rate. It names no augmentation but the random scale and crop, and no stride of
dense frames: 4 is the host's.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import torch.nn.functional as F
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from benchctl.errors import ShapeError
from benchctl.layers.pretrained import published
from benchctl.layers.uniformer import AttentionPlace, AttentionStage, JointAttention, Mlp, UniFormerClassifier, UniFormerConfig
from benchctl.layers.window import affinity
from benchctl.layers.windowed_attention import WindowedAttention, WindowedShape, later
from benchctl.recipe import Recipe
from benchctl.spec import ModelSpec
from benchctl.vocabulary import ClipShape

MEAN = (0.45, 0.45, 0.45)
STD = (0.225, 0.225, 0.225)

# B batch, T frames, H x W grid, N heads, D channels of a head, C = N x D, S x S window

#: the first of two successive blocks, and the second: E is EMIM, O the original attention
Strategy = Literal["E-O", "O-E", "E-E", "O-O"]


class ExplicitMotion(nn.Module):
    """The EMIM module: what attends in a block that is replaced (equations 3 to 5)."""

    def __init__(self, place: AttentionPlace, config: Config) -> None:
        super().__init__()
        self.heads = place.heads
        self.interval = 0 if config.same_frame else config.interval
        self.qkv = nn.Linear(place.width, 3 * place.width)
        sizes = WindowedShape(
            frames=place.frames,
            grid=place.grid,
            heads=place.heads,
            head_width=config.head_width,
            side=config.window,
            sliding=config.sampling == "sliding",
        )
        self.window = WindowedAttention(sizes)
        self.motion = _motion_mlp(config.window, config.head_width) if config.motion else None
        self.proj = nn.Linear(place.width, place.width)

    def forward(self, x_BTHWC: Tensor) -> Tensor:
        """(B, T, H, W, C) to the same shape."""
        # three times (B, T, N, H, W, D)
        query, key, value = self.qkv(x_BTHWC).unflatten(-1, (3, self.heads, -1)).permute(4, 0, 1, 5, 2, 3, 6)
        attended, scores = self.window(query, later(key, self.interval), later(value, self.interval))
        if self.motion is not None:
            attended = attended + self.motion(scores)
        result: Tensor = self.proj(attended.permute(0, 1, 3, 4, 2, 5).flatten(4))
        return result


class CostVolume(nn.Module):
    """Cosine similarity of every token with those in its window of a later frame."""

    counted_as = "window"

    def __init__(self, place: AttentionPlace, config: Config) -> None:
        super().__init__()
        self.place = place
        self.side = config.window
        self.interval = config.interval

    @property
    def window_macs(self) -> int:
        """Multiply-accumulates that the window asks for, of one clip: one for each token, place in its window and channel."""
        return self.place.frames * self.place.grid**2 * self.side**2 * self.place.width

    def forward(self, x_BTHWC: Tensor) -> Tensor:
        """(B, T, H, W, C) to (B, T, H, W, S x S)."""
        # lengths in fp32 or better
        unit = F.normalize(x_BTHWC if x_BTHWC.element_size() > 2 else x_BTHWC.float(), dim=-1)
        similarity = affinity(unit.flatten(0, 1), later(unit, self.interval).flatten(0, 1), self.side)
        return similarity.flatten(3).unflatten(0, x_BTHWC.shape[:2])


class BesideCostVolume(JointAttention):
    """The original attention, and a cost volume converted to motion features beside it (Table 10)."""

    def __init__(self, place: AttentionPlace, config: Config, spec: ModelSpec) -> None:
        super().__init__(place.width, place.heads, config.attention(spec.attention))
        self.volume = CostVolume(place, config)
        self.motion = _motion_mlp(config.window, place.width)

    def forward(self, x_BTHWC: Tensor) -> Tensor:
        """(B, T, H, W, C) to the same shape."""
        result: Tensor = super().forward(x_BTHWC) + self.motion(self.volume(x_BTHWC))
        return result


def _motion_mlp(side: int, width: int) -> Mlp:
    """The function f of equation 5."""
    return Mlp(side**2, 4 * side**2, width)


class Emim(UniFormerClassifier):
    """UniFormer with explicit motion in some of its blocks."""

    def __init__(self, spec: ModelSpec) -> None:
        config = spec.config
        assert isinstance(config, Config)

        def attention(place: AttentionPlace) -> nn.Module:
            if not config.replaced(place):
                return JointAttention(place.width, place.heads, config.attention(spec.attention))
            return ExplicitMotion(place, config) if config.integration == "affinity" else BesideCostVolume(place, config, spec)

        super().__init__(spec, attention)
        for module in self.modules():
            if isinstance(module, ExplicitMotion | BesideCostVolume) and module.motion is not None:
                nn.init.zeros_(module.motion.fc2.weight)

    def added(self) -> dict[str, str]:
        """What UniFormer does not have: the names of tensors, and what they are."""
        words = {".attn.window.": "relative biases", ".attn.motion.": "motion MLPs"}
        return {name: said for part, said in words.items() for name in self.video.state_dict() if part in name}


class Config(UniFormerConfig):
    """Sizes and choices of one EMIM."""

    temporal_downsampling: bool = False
    #: which of two successive blocks are replaced (Table 8)
    strategy: Strategy = "E-O"
    #: in which stages
    stages: tuple[AttentionStage, ...] = Field((3, 4), min_length=1)
    #: side of the window, odd (Table 5)
    window: Annotated[int, Field(ge=3, le=11, strict=True)] = 7
    #: frames from a query to its keys (Table 11)
    interval: Annotated[int, Field(ge=1, le=3, strict=True)] = 1
    #: whether the window is centred on the query, or one of those that the frame is cut into (Table 6)
    sampling: Literal["sliding", "non-sliding"] = "sliding"
    #: whether scores become motion features, or serve attention alone (Table 7)
    motion: bool = True
    #: whether keys and values are of the query's own frame, as for images (Table 9)
    same_frame: bool = False
    #: motion out of the scores of attention, or out of a cost volume beside it (Table 10)
    integration: Literal["affinity", "cost-volume"] = "affinity"

    def replaced(self, place: AttentionPlace) -> bool:
        """Whether a block has an EMIM module."""
        return place.stage in self.stages and self.strategy.split("-")[place.index % 2] == "E"

    @field_validator("window")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"window {value} has no centre: use {value - 1} or {value + 1}")
        return value

    @field_validator("stages")
    @classmethod
    def _rising(cls, value: tuple[AttentionStage, ...]) -> tuple[AttentionStage, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError(f"stages {', '.join(map(str, value))} must rise and name each once")
        return value

    @model_validator(mode="after")
    def _choices_fit(self) -> Self:
        if self.same_frame and self.interval != 1:
            raise ValueError(f"interval {self.interval} is about a later frame, and 'same_frame: true' looks at none")
        if self.integration == "cost-volume" and (self.sampling != "sliding" or not self.motion or self.same_frame):
            raise ValueError(
                "integration 'cost-volume' is motion out of a sliding window of a later frame: leave sampling, motion, same_frame"
            )
        return self

    def check(self, shape: ClipShape, *, pad: bool) -> None:
        """As for every method; and the window must fit into the grid of each stage that has one."""
        super().check(shape, pad=pad)
        if self.strategy == "O-O":
            return
        for stage in self.stages:
            grid = self.grid(stage, shape.resolution)
            if self.window > grid:
                enough = self.window * (self.padded(shape.resolution) // grid)
                smaller = f"'window: {grid - 1 + grid % 2}' or " if grid >= 3 else ""
                raise ShapeError(
                    f"window {self.window} is larger than the {grid} x {grid} grid of stage {stage} at resolution {shape.resolution}",
                    fix=f"use {smaller}a resolution of {enough} or more",
                )


PRESETS: dict[str, dict[str, Any]] = {
    "emim-s": {"weights": "Sense-X/uniformer_video:uniformer_small_k400_16x4.pth"},
    "emim-b": {"depths": [5, 8, 20, 7], "drop_path": 0.3, "weights": "Sense-X/uniformer_video:uniformer_base_k400_16x4.pth"},
    "emim-tiny": {
        "patch_size": 16,
        "stem_stride": 2,
        "depths": [1, 1, 2, 1],
        "widths": [16, 32, 64, 96],
        "head_width": 32,
        "drop_path": 0.0,
        "window": 3,
    },
}

RECIPE = Recipe(
    optimizer="adamw",
    learning_rate=2e-4,
    weight_decay=0.05,
    warmup_fraction=5 / 60,
    sampling="segment",
    eval_clips=1,
    eval_crops=3,
    epochs=60,
    batch_size=32,
)

RECIPES: dict[str, dict[str, Any]] = {
    "ssv1": {"warmup_fraction": 5 / 50, "epochs": 50},
    "kinetics400": {
        "learning_rate": 1e-4,
        "warmup_fraction": 10 / 110,
        "sampling": "dense",
        "frame_stride": 4,
        "eval_clips": 4,
        "epochs": 110,
    },
}


def build(spec: ModelSpec) -> Emim:
    """The model for `spec`: clips (B, T, 3, H, W), normalised by MEAN and STD, to logits (B, classes).

    Raises:
        ShapeError: the window is larger than a grid.
        WeightsMissing: `spec.pretrained`, and the published weights cannot be had.
    """
    model = Emim(spec)
    if spec.pretrained:
        model.load(published(spec.config), model.added())
    return model
