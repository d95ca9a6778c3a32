"""UniFormer: a convolutional and a transforming half (Li et al. 2022, arXiv 2201.04676), as the authors' code for videos has it.

Reading. The blocks are `benchctl.layers.uniformer`; names and shapes are those of the authors' checkpoints, which load as they are.
`temporal_downsampling: false` keeps the 3 x 4 x 4 kernel of the first stage and takes every frame: the baseline of EMIM. At 224
pixels with 174 classes, attention counted:

    uniformer-s, 16 frames 41.8 G   uniformer-s, 16 frames, every frame 109.6 G   uniformer-b, 32 frames 259 G

The paper's figures are the same: 42 G, and 259 G for one view of B. The 2-D checkpoints of ImageNet are not loaded.

The recipe is the authors' for Kinetics-400, its learning rate being for 32 clips a step, without what the recipe vocabulary has no
word for (mixup, RandAugment, random erasing, repeated augmentation). Stochastic depth belongs to the sizes.
"""

from __future__ import annotations

from typing import Any

from benchctl.layers.pretrained import published
from benchctl.layers.uniformer import AttentionPlace, JointAttention, UniFormerClassifier, UniFormerConfig
from benchctl.spec import ModelSpec, Recipe

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
    eval_clips=4,
    eval_crops=1,
)


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
