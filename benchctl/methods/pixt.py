"""PixT: MovT with pixels in the place of points, everything else the same.

Source: "It's a Matter of Time: Three Lessons on Long-Term Motion for Perception" (Davison, Hao and Sevilla-Lara), section 3.2, Table 2.

Reading. The input has the size of MovT's: as many pixels as it has points, of frames that are scaled down, each with its three colours
in every frame. A pixel's colours over time go the way of a point's velocities; in the place of the mean position stands a learned vector
for each pixel, which is added. 4.43 M parameters (printed 4.41) and 0.513 G MACs at 32 frames (printed 0.51).

Frames are read at the smallest side whose square holds the pixels. Where it holds more, evenly spread ones are taken; fewer pixels are
the paper's down-sampling (Figure 7). The paper crops frames to a box that a detector puts around whoever acts; here they are whole.

A cell's resolution means nothing. The recipe is MovT's, as in the paper (section 5).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from benchctl.layers.clip_input import check_input
from benchctl.layers.point_transformer import OverTime, PointSizes, PointTransformer, initialise, point_head
from benchctl.layers.pretrained import RANDOM, published
from benchctl.recipe import Recipe
from benchctl.spec import ModelSpec
from benchctl.vocabulary import ClipShape

# B batch, T frames, N pixels, C width

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class PixT(nn.Module):
    """Small frames to logits."""

    def __init__(self, spec: ModelSpec, config: Config) -> None:
        super().__init__()
        self.expected = config.input_shapes(spec.shape)[0]
        self.register_buffer("taken", spread(config.side**2, config.points), persistent=False)
        self.colours = OverTime(config.point_width)
        self.position = nn.Parameter(torch.empty(config.points, config.point_width))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.transformer = PointTransformer(config, config.attention(spec.attention))
        self.head = point_head(config.point_width, spec.num_classes)
        initialise(self)
        self.weights = RANDOM

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """(B, T, 3, side, side) to logits (B, classes)."""
        check_input(clip_BTCHW, self.expected, "clip")
        values_BTN3 = clip_BTCHW.flatten(3).index_select(3, self.get_buffer("taken")).transpose(2, 3)
        tokens = self.transformer(self.colours(values_BTN3) + self.position)
        logits: Tensor = self.head(tokens.mean(1))
        return logits


def spread(there: int, wanted: int) -> Tensor:
    """`wanted` of the numbers from 0 to `there` - 1, evenly spread: int64 (wanted,)."""
    return (torch.arange(wanted) * 2 + 1) * there // (2 * wanted)


class Config(PointSizes):
    """Sizes of one PixT."""

    @property
    def side(self) -> int:
        """Of the frames that are read, in pixels."""
        return math.isqrt(self.points - 1) + 1

    def pixels(self, shape: ClipShape) -> ClipShape:
        """All frames of the cell, small."""
        return shape.model_copy(update={"resolution": self.side})


PRESETS: dict[str, dict[str, Any]] = {
    "pixt": {},
    "pixt-tiny": {"points": 32, "point_width": 96, "point_layers": 3, "point_heads": 3, "point_mlp_width": 192},
}

RECIPE = Recipe(
    optimizer="adamw",
    learning_rate=1e-4,
    weight_decay=0.01,
    warmup_fraction=0.0,
    schedule="constant",
    clip_gradient_norm=1.0,
    sampling="segment",
    epochs=50,
)


def build(spec: ModelSpec) -> PixT:
    """The model for `spec`: frames (B, T, 3, side, side), normalised by MEAN and STD, to logits (B, classes).

    Raises:
        WeightsMissing: `spec.pretrained`; none are published.
    """
    config = spec.config
    assert isinstance(config, Config)
    if spec.pretrained:
        published(config)
    return PixT(spec, config)
