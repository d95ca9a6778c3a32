"""Full fine-tuning of CLIP's image transformer with temporal convolutions: the baseline of MOSS's Table 10d.

Reading. The table's ViT-B costs 140.7 G and trains 86.4 M, and learns Something-Something to 51.9 %, which no average over single
frames does; the text says that temporal convolution blocks are added, after ATM (Wu et al. 2023). So: a depth-wise convolution over
three frames, as a residual that starts at zero, before each block (`benchctl.layers.video_transformer.FineTuned`). At 8 x 224 with
174 classes this is 85.97 M and 140.7 G; the published 86.4 M holds CLIP's projection to text, 0.39 M, which is not read here.
`temporal_conv: false` is the average over single frames: the floor under everything that claims to see motion.

The recipe is MOSS's for B/16, with the smaller learning rate that whole transformers need; the table prints none for this row, so
it has no epochs of its own.
"""

from __future__ import annotations

from typing import Any

from benchctl.layers.image_encoder import EncoderConfig
from benchctl.layers.video_classifier import VideoClassifier
from benchctl.layers.video_transformer import FineTuned
from benchctl.recipe import Recipe
from benchctl.spec import ModelSpec

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class Config(EncoderConfig):
    """Sizes of one transformer."""

    #: a depth-wise convolution over three frames before each block
    temporal_conv: bool = True


PRESETS: dict[str, dict[str, Any]] = {
    "vit-finetune-b": {"encoder": "clip-b16"},
    "vit-finetune-l": {"encoder": "clip-l14"},
    "vit-finetune-tiny": {"encoder_width": 96, "encoder_layers": 4, "encoder_heads": 3},
}

RECIPE = Recipe(
    optimizer="adamw",
    learning_rate=5e-5,
    weight_decay=0.15,
    warmup_fraction=4 / 30,
    label_smoothing=0.1,
    sampling="segment",
    flip="if-safe",
    crop_scale=0.08,
    rand_augment="rand-m7-n4-mstd0.5-inc1",
    repeated_augmentation=2,
    eval_clips=2,
    eval_crops=3,
    batch_size=256,
)

RECIPES: dict[str, dict[str, Any]] = {
    "ssv1": {"warmup_fraction": 4 / 40},
    "kinetics400": {"sampling": "dense", "frame_stride": 8, "rand_augment": None, "eval_clips": 4},
    "diving48": {"rand_augment": None, "repeated_augmentation": 1, "batch_size": 128},
}


def build(spec: ModelSpec) -> VideoClassifier[FineTuned]:
    """The model for `spec`: clips (B, T, 3, H, W), normalised by MEAN and STD, to logits (B, classes).

    Raises:
        WeightsMissing: `spec.pretrained`, and the published weights cannot be had.
    """
    config = spec.config
    assert isinstance(config, Config)
    video = FineTuned(config, spec, temporal_conv=config.temporal_conv)
    return VideoClassifier(spec, video, config.encoder_width, rest="classifier")
