"""AIM: adapters for space, time and both inside a frozen CLIP (Yang et al. 2023, arXiv 2302.03024).

Reading: `benchctl.layers.video_transformer.Aim`, with adapters of a quarter of the width and, as the authors' configurations for
Something-Something have it, two adapters around the attention over time. This gives, at 8 x 224 with the 174 classes of
Something-Something, 14.34 M trainable parameters and 207.9 G MACs for B/16 (published: 14.3 M and 207.9 G).

The recipe is the authors', by data set: AdamW, 3e-4 for 64 clips a step, 50 epochs of which 2.5 warm up, on Kinetics-400 30.
RandAugment, random erasing and smoothed labels are for Something-Something alone. Stochastic depth (0.2) is left out. RandAugment
is written in timm's words, whose magnitudes vary (`mstd0.5`); theirs name 4 operations of magnitude 7.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveFloat
from torch import nn

from benchctl.layers.image_encoder import EncoderConfig
from benchctl.layers.video_classifier import VideoClassifier
from benchctl.layers.video_transformer import Aim
from benchctl.recipe import Recipe
from benchctl.spec import ModelSpec

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class Config(EncoderConfig):
    """Sizes of one AIM."""

    #: channels of an adapter, as a share of the encoder's width
    adapter_ratio: float = Field(0.25, gt=0)
    #: of the adapter beside the MLP
    adapter_scale: PositiveFloat = 0.5
    #: an adapter before the attention over time as well as after it
    adapt_time_twice: bool = True
    #: before the classifier
    dropout: float = Field(0.5, ge=0, lt=1)


PRESETS: dict[str, dict[str, Any]] = {
    "aim-b": {"encoder": "clip-b16"},
    "aim-l": {"encoder": "clip-l14"},
    "aim-tiny": {"encoder_width": 96, "encoder_layers": 4, "encoder_heads": 3, "dropout": 0.0},
}

RECIPE = Recipe(
    optimizer="adamw",
    learning_rate=3e-4,
    weight_decay=0.05,
    warmup_fraction=2.5 / 50,
    label_smoothing=0.1,
    sampling="segment",
    crop_scale=0.08,
    rand_augment="rand-m7-n4-mstd0.5-inc1",
    random_erasing=0.25,
    eval_clips=1,
    eval_crops=3,
    epochs=50,
    batch_size=64,
)

RECIPES: dict[str, dict[str, Any]] = {
    "diving48": {"label_smoothing": 0.0, "flip": "if-safe", "rand_augment": None, "random_erasing": 0.0},
    "kinetics400": {
        "warmup_fraction": 2.5 / 30,
        "label_smoothing": 0.0,
        "sampling": "dense",
        "frame_stride": 16,
        "flip": "if-safe",
        "rand_augment": None,
        "random_erasing": 0.0,
        "eval_clips": 3,
        "eval_crops": 1,
        "epochs": 30,
    },
}


def build(spec: ModelSpec) -> VideoClassifier[Aim]:
    """The model for `spec`: clips (B, T, 3, H, W), normalised by MEAN and STD, to logits (B, classes).

    Raises:
        WeightsMissing: `spec.pretrained`, and the published weights cannot be had.
    """
    config = spec.config
    assert isinstance(config, Config)
    video = Aim(
        config,
        spec,
        bottleneck=max(1, round(config.encoder_width * config.adapter_ratio)),
        scale=config.adapter_scale,
        adapt_time_twice=config.adapt_time_twice,
    )
    model = VideoClassifier(spec, video, config.encoder_width, rest="adapters and classifier", dropout=config.dropout)
    nn.init.normal_(model.classifier.weight, std=0.02)
    nn.init.zeros_(model.classifier.bias)
    return model
