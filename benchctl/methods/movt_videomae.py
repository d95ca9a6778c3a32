"""MovT and VideoMAE together: few frames as pixels, many as point tracks.

Source: "It's a Matter of Time: Three Lessons on Long-Term Motion for Perception" (Davison, Hao and Sevilla-Lara), section 3.2, Lesson 3,
Table 1 and Figure 12.

Reading. A cell's frames and resolution are VideoMAE's; `track_frames` are tracked over the same clip. Late fusion, the paper's choice, is
the mean of both logits, 0.5 and 0.5; both are trained together, by the loss of that mean. It costs what both cost.

Figure 12's alternatives put cross-attention at the ends of both branches: a block in which points attend the tokens of the video, and
one in which those attend points; each branch then judges by itself, and the logits are averaged. `cross` trains everything. Trained from
scratch it is the first alternative; started from a late fusion (`pretraining: {objective: classes, options: {fusion: late}}`) it is the
third; `cross-frozen`, started so, is the second: the branches stay as they are, and the blocks and the heads learn.

One frame makes tubelets of one (`tubelet_size: 1`), as the paper has it. The recipe is the paper's for its fusions (section 5): 40
epochs of Something-Something at 1e-3, 30 of Jester at 5e-3, no warm-up. It prints no optimizer, weight decay, schedule,
augmentation or clips a step for them: those are VideoMAE's, without what tracks cannot follow.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from benchctl.layers.movt import MovT
from benchctl.layers.point_transformer import Block, PointSizes
from benchctl.layers.pretrained import RANDOM, published
from benchctl.layers.videomae import VideoMAE, VideoMAESizes
from benchctl.recipe import Recipe
from benchctl.spec import ClipTracks, ModelSpec, TrackSourceName
from benchctl.vocabulary import ClipShape

# B batch, N points, K tokens of the video, C and D their widths

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

Fusion = Literal["late", "cross", "cross-frozen"]


class MovTVideoMAE(nn.Module):
    """Frames and tracks to logits."""

    def __init__(self, spec: ModelSpec, config: Config) -> None:
        super().__init__()
        self.video = VideoMAE(spec, config)
        self.points = MovT(spec, config, config.clip_tracks(spec.shape))
        self.cross = nn.ModuleDict()
        #: parts that a late fusion, which this may start from, does not have
        self.added_to_start = ("cross.",)
        if config.fusion != "late":
            backend = config.attention(spec.attention)
            self.cross["points"] = Block(config.point_width, config.point_heads, config.point_mlp_width, backend, other=config.width)
            self.cross["video"] = Block(config.width, config.heads, config.mlp_width, backend, other=config.point_width)
        if config.fusion == "cross-frozen":
            for frozen in (self.video.video.videomae, self.points.tokens, self.points.transformer):
                frozen.requires_grad_(False)
        self.weights = RANDOM

    def forward(self, clip_BTCHW: Tensor, tracks_BTN3: Tensor) -> Tensor:
        """(B, T, 3, H, W) and (B, T', N, 3) to logits (B, classes)."""
        points, video = self.points.features(tracks_BTN3), self.video.features(clip_BTCHW)
        if self.cross:
            points, video = self.cross["points"](points, video), self.cross["video"](video, points)
        return 0.5 * self.points.judge(points) + 0.5 * self.video.judge(video)


class Config(VideoMAESizes, PointSizes):
    """Sizes of both, and how they are joined."""

    patch_size: PositiveInt = 16
    fusion: Fusion = "late"
    tracks: TrackSourceName = "cotracker3"
    track_frames: int = Field(32, ge=2)

    def clip_tracks(self, shape: ClipShape) -> ClipTracks:  # noqa: ARG002
        """As many frames as are asked for, whatever VideoMAE sees."""
        return ClipTracks(estimator=self.tracks, frames=self.track_frames, points=self.points)

    def pretrains(self) -> bool:
        """Its VideoMAE would, alone; together they do not."""
        return False


PRESETS: dict[str, dict[str, Any]] = {
    "movt-videomae-s": {"width": 384, "layers": 9, "heads": 6, "mlp_width": 1536},
    "movt-videomae-tiny": {
        "width": 96,
        "layers": 4,
        "heads": 3,
        "mlp_width": 384,
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
    learning_rate=1e-3,
    weight_decay=0.05,
    warmup_fraction=0.0,
    sampling="segment",
    epochs=40,
)

RECIPES: dict[str, dict[str, Any]] = {
    "jester": {"learning_rate": 5e-3, "epochs": 30},
}


def build(spec: ModelSpec) -> MovTVideoMAE:
    """The model for `spec`: frames (B, T, 3, H, W), normalised by MEAN and STD, and tracks (B, T', N, 3), to logits (B, classes).

    Raises:
        ShapeError: the frames are not whole tubelets.
        WeightsMissing: `spec.pretrained`; none are published.
    """
    config = spec.config
    assert isinstance(config, Config)
    if spec.pretrained:
        published(config)
    return MovTVideoMAE(spec, config)
