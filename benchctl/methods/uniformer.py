"""UniFormer: a convolutional and a transforming half (Li et al. 2022, arXiv 2201.04676), as the authors' code for videos has it.

Reading. The blocks are `benchctl.layers.uniformer`; names and shapes are those of the authors' checkpoints, which load as they are.
`temporal_downsampling: false` keeps the 3 x 4 x 4 kernel of the first stage and takes every frame: the baseline of EMIM. At 224
pixels with 174 classes, attention counted:

    uniformer-s, 16 frames 41.8 G   uniformer-s, 16 frames, every frame 109.6 G   uniformer-b, 32 frames 259 G

The paper's figures are the same: 42 G, and 259 G for one view of B. The 2-D checkpoints of ImageNet are not loaded.

The recipe is the authors' for Kinetics-400, from ImageNet: 110 epochs of which 10 warm up; their code's steps are of 32 videos,
each of them twice, so the learning rate is for 64 clips. For Something-Something, which starts from Kinetics-400, it is their
code's for B: 50 epochs, 80 clips. Left out: the end of the cosine at 1e-6. Stochastic depth belongs to the sizes.
"""

from __future__ import annotations

from typing import Any

from benchctl.layers.pretrained import published
from benchctl.layers.uniformer import AttentionPlace, JointAttention, UniFormerClassifier, UniFormerConfig
from benchctl.recipe import Recipe
from benchctl.spec import ModelSpec

MEAN = (0.45, 0.45, 0.45)
STD = (0.225, 0.225, 0.225)


class Config(UniFormerConfig):
    """Sizes of one UniFormer."""


PRESETS: dict[str, dict[str, Any]] = {
    "uniformer-s": {"weights": "Sense-X/uniformer_video:uniformer_small_k400_16x4.pth"},
    "uniformer-b": {"depths": [5, 8, 20, 7], "drop_path": 0.3, "weights": "Sense-X/uniformer_video:uniformer_base_k400_16x4.pth"},
    "uniformer-tiny": {
        "patch_size": 16,
        "stem_stride": 2,
        "depths": [1, 1, 2, 1],
        "widths": [16, 32, 64, 96],
        "head_width": 32,
        "drop_path": 0.0,
    },
}

RECIPE = Recipe(
    optimizer="adamw",
    learning_rate=1e-4,
    weight_decay=0.05,
    warmup_fraction=10 / 110,
    label_smoothing=0.1,
    sampling="dense",
    frame_stride=4,
    flip="if-safe",
    crop_scale=0.08,
    rand_augment="rand-m7-n4-mstd0.5-inc1",
    random_erasing=0.25,
    mixup=0.8,
    cutmix=1.0,
    repeated_augmentation=2,
    eval_clips=4,
    eval_crops=1,
    epochs=110,
    batch_size=64,
)

RECIPES: dict[str, dict[str, Any]] = {
    "ssv2": {
        "learning_rate": 2.5e-4,
        "warmup_fraction": 5 / 50,
        "sampling": "uniform",
        "eval_clips": 1,
        "eval_crops": 3,
        "epochs": 50,
        "batch_size": 80,
    },
}


def build(spec: ModelSpec) -> UniFormerClassifier:
    """The model for `spec`: clips (B, T, 3, H, W), normalised by MEAN and STD, to logits (B, classes).

    Raises:
        WeightsMissing: `spec.pretrained`, and the published weights cannot be had.
    """
    backend = spec.config.attention(spec.attention)

    def attention(place: AttentionPlace) -> JointAttention:
        return JointAttention(place.width, place.heads, backend)

    model = UniFormerClassifier(spec, attention)
    if spec.pretrained:
        model.load(published(spec.config))
    return model
