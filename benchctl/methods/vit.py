"""ViT-B/16 of images, averaged over the frames of a clip (Dosovitskiy et al. 2021). One frame: the single-frame floor.

Reading. The classifier is linear, so averaging class tokens over the frames is averaging their logits; the order of frames means nothing.
85.80 M parameters without a classifier and 17.6 G MACs a frame at 224.

The recipe is ours, since no paper prints one for it: what whole transformers get here. So it has no epochs of its own; the rate is
for 128 clips a step.
"""

from __future__ import annotations

from typing import Any

from benchctl.layers.image_encoder import EncoderConfig, EncoderName
from benchctl.layers.video_classifier import VideoClassifier
from benchctl.layers.video_transformer import FineTuned
from benchctl.recipe import Recipe
from benchctl.spec import ModelSpec

MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)


class Config(EncoderConfig):
    """Sizes of one transformer."""

    encoder: EncoderName = "imagenet-b16"


PRESETS: dict[str, dict[str, Any]] = {
    "vit-b": {},
    "vit-tiny": {"encoder_width": 96, "encoder_layers": 4, "encoder_heads": 3},
}

RECIPE = Recipe(
    optimizer="adamw",
    learning_rate=5e-5,
    weight_decay=0.05,
    warmup_fraction=0.1,
    sampling="segment",
    eval_clips=1,
    eval_crops=1,
    batch_size=128,
)


def build(spec: ModelSpec) -> VideoClassifier[FineTuned]:
    """The model for `spec`: clips (B, T, 3, H, W), normalised by MEAN and STD, to logits (B, classes).

    Raises:
        WeightsMissing: `spec.pretrained`, and the published weights cannot be had.
    """
    config = spec.config
    assert isinstance(config, Config)
    return VideoClassifier(spec, FineTuned(config, spec, temporal_conv=False), config.encoder_width, rest="classifier")
