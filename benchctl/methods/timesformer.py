"""TimeSformer: divided space-time attention (Bertasius et al. 2021, arXiv 2102.05095), as `transformers` has it.

Reading. `transformers` and the authors' code give the same logits for mapped weights. Attention is written out in the library's
layers, so there is no other backend than eager. The layers read the frame count and the image size from the configuration, not
from the clip: both are set from the shape. Base size, 8 x 224, 400 classes: 121.566 M parameters, 196.05 G MACs, attention counted.
Published position and time embeddings are resized by nearest neighbour, as the authors do.

The recipe is the authors' released configuration for Kinetics-400: 15 epochs, a tenth of the rate from the 11th on and a hundredth
from the 14th, Nesterov's momentum, the rate being for 8 clips a step; for Something-Something all of it is the same but for the
sampling.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from benchctl.layers.clip_input import ClipInput
from benchctl.layers.pretrained import RANDOM, State, load_pretrained, published
from benchctl.recipe import Recipe
from benchctl.spec import Attention, MethodConfig, ModelSpec

MEAN = (0.45, 0.45, 0.45)
STD = (0.225, 0.225, 0.225)


class TimeSformer(nn.Module):
    """The library's model, fed clips of one shape."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        from transformers import TimesformerConfig, TimesformerForVideoClassification

        config = spec.config
        assert isinstance(config, Config)
        self.input = ClipInput(spec)
        self.video = TimesformerForVideoClassification(
            TimesformerConfig(
                image_size=spec.padded_resolution,
                patch_size=config.patch_size,
                num_frames=spec.shape.frames,
                hidden_size=config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=config.mlp_width,
                num_labels=spec.num_classes,
            )
        )
        self.weights = RANDOM

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """(B, T, 3, H, W) to logits (B, classes)."""
        logits: Tensor = self.video(self.input(clip_BTCHW)).logits
        return logits

    def load(self, hub_id: str) -> None:
        """Load published weights; raises WeightsMissing as `load_pretrained`."""
        self.weights = load_pretrained(self.video, hub_id, convert=self._convert, head="classifier")

    def _convert(self, state: State) -> State:
        embeddings = self.video.timesformer.embeddings
        grid = round(embeddings.num_patches**0.5)
        frames = embeddings.time_embeddings.shape[1]
        space, time = "timesformer.embeddings.position_embeddings", "timesformer.embeddings.time_embeddings"
        resized = dict(state)
        if space in state:
            resized[space] = resize_position_embedding(state[space], grid)
        if time in state:
            resized[time] = F.interpolate(state[time].transpose(1, 2), size=frames, mode="nearest").transpose(1, 2)
        return resized


def resize_position_embedding(embedding_1PC: Tensor, grid: int) -> Tensor:
    """(1, 1 + side^2, C), class token first, to (1, 1 + grid^2, C) by nearest neighbour; anything else comes back as it is."""
    token, patches = embedding_1PC[:, :1], embedding_1PC[:, 1:]
    side = math.isqrt(patches.shape[1])
    if side in (0, grid) or side * side != patches.shape[1]:
        return embedding_1PC
    square = patches.transpose(1, 2).unflatten(2, (side, side))
    resized = F.interpolate(square, size=(grid, grid), mode="nearest").flatten(2).transpose(1, 2)
    return torch.cat([token, resized], dim=1)


class Config(MethodConfig):
    """Sizes of one TimeSformer."""

    ATTENTION: ClassVar[tuple[Attention, ...]] = ("eager",)

    width: PositiveInt = 768
    layers: PositiveInt = 12
    heads: PositiveInt = 12
    mlp_width: PositiveInt = 3072

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        return self


PRESETS: dict[str, dict[str, Any]] = {
    "timesformer-b": {"weights": "facebook/timesformer-base-finetuned-k400"},
    "timesformer-tiny": {"width": 96, "layers": 4, "heads": 3, "mlp_width": 384},
}

RECIPE = Recipe(
    optimizer="nesterov",
    learning_rate=5e-3,
    weight_decay=1e-4,
    momentum=0.9,
    warmup_fraction=0.0,
    schedule="steps",
    drop_at=(11 / 15, 14 / 15),
    sampling="dense",
    frame_stride=32,
    flip="if-safe",
    eval_clips=1,
    eval_crops=3,
    epochs=15,
    batch_size=8,
)

RECIPES: dict[str, dict[str, Any]] = {
    "ssv2": {"sampling": "uniform"},
}


def build(spec: ModelSpec) -> TimeSformer:
    """The model for `spec`: clips (B, T, 3, H, W), normalised by MEAN and STD, to logits (B, classes).

    Raises:
        ShapeError: the frames cannot be split as the config asks.
        UsageError: an attention backend other than eager.
        WeightsMissing: `spec.pretrained`, and the published weights cannot be had.
    """
    spec.config.attention(spec.attention)
    model = TimeSformer(spec)
    if spec.pretrained:
        model.load(published(spec.config))
    return model
