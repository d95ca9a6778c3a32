"""MovT: a transformer over the tracks of points, which sees no pixel.

Source: "It's a Matter of Time: Three Lessons on Long-Term Motion for Perception" (Davison, Hao and Sevilla-Lara), section 3.1, Tables 1, 2.

Reading. The paper names the parts and not their sizes. These meet its numbers: width 256, 4 blocks, MLP 1536, 8 heads; an MLP of 256 for
velocities and of 64 for the mean position, a 1 x 1 convolution over time, a two-layer head. 4.563 M parameters (printed 4.56) with
Jester's 27 classes, and 0.300 / 0.395 / 0.522 G MACs at 4 / 16 / 32 frames of 60 points (printed 0.30 / 0.39 / 0.52). A velocity is the
step from the frame before, per clip; the first frame has none: 0. With the maximum over time, the order in which a point has its
velocities means nothing: what turns is told from what turns back by several points of it. Invisible points are tokens like others, as in
the paper; that they are invisible is one of their three values. How weights start is not printed: see
`benchctl.layers.point_transformer.initialise`.

A cell's frames are the frames that are tracked; its resolution means nothing, since no pixel is read. For regression the same head gives
a number for each target.

The recipe is the paper's (section 5): 50 epochs. Its plateau schedule, which judges the validation clips while it trains, is left
out: the rate is constant. How many clips a step has is not printed, nor is a weight decay: torch's own for AdamW stands for it.
"""

from __future__ import annotations

from typing import Any

from benchctl.layers.movt import MovT
from benchctl.layers.point_transformer import PointSizes
from benchctl.layers.pretrained import published
from benchctl.recipe import Recipe
from benchctl.spec import ClipTracks, ModelSpec, TrackSourceName
from benchctl.vocabulary import ClipShape

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Config(PointSizes):
    """Sizes of one MovT, and whose tracks it reads."""

    tracks: TrackSourceName = "cotracker3"

    def clip_tracks(self, shape: ClipShape) -> ClipTracks:
        """All frames of the cell."""
        return ClipTracks(estimator=self.tracks, frames=shape.frames, points=self.points)

    def pixels(self, shape: ClipShape) -> None:
        """None are read."""


PRESETS: dict[str, dict[str, Any]] = {
    "movt": {},
    "movt-tiny": {
        "tracks": "lucas-kanade",
        "points": 32,
        "point_width": 96,
        "point_layers": 3,
        "point_heads": 3,
        "point_mlp_width": 192,
    },
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


def build(spec: ModelSpec) -> MovT:
    """The model for `spec`: tracks (B, T, N, 3) to logits (B, classes).

    Raises:
        WeightsMissing: `spec.pretrained`; none are published.
    """
    config = spec.config
    assert isinstance(config, Config)
    if spec.pretrained:
        published(config)
    return MovT(spec, config, config.clip_tracks(spec.shape))
