"""VideoMAE: a plain video transformer over tubelets (Tong et al. 2022, arXiv 2203.12602), as `transformers` has it.

Reading. Base size, 16 x 224, 400 classes: 86.53 M parameters, 180.34 G MACs with attention, 135.17 G without, which is what papers
print. `videomae-s` is the small one of the MovT paper: 9 layers, width 384, 6 heads, MLP 1536, tubelet 2, and tubelet 1 where a
clip is one frame (option `tubelet_size: 1`). That paper prints 3.19 / 3.24 / 6.49 / 25.95 G at 1 / 2 / 4 / 16 frames, attention
left out, and 16.63 M parameters; here they are 16.57 M with Jester's 27 classes, 16.62 M with Something-Something's 174.

Pre-training rebuilds hidden tubes; `pretraining: {objective: reconstruction}` in a suite does it, and training starts from its encoder.

The recipe is the authors' released one for fine-tuning: 75 epochs on Kinetics-400, 30 on Something-Something, of which 5 warm up.
Their code's base rate is for 256 videos, each of them twice: 512 clips. Left out: the decay of the rate from layer to layer (0.75),
stochastic depth (0.1), and the end of the cosine at 1e-6.
"""

from __future__ import annotations

from typing import Any

from benchctl.layers.pretrained import published
from benchctl.layers.videomae import MaskedVideoMAE, VideoMAE, VideoMAESizes
from benchctl.recipe import Recipe
from benchctl.spec import ModelSpec

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Config(VideoMAESizes):
    """Sizes of one VideoMAE."""


PRESETS: dict[str, dict[str, Any]] = {
    "videomae-b": {"weights": "MCG-NJU/videomae-base-finetuned-kinetics"},
    "videomae-s": {"width": 384, "layers": 9, "heads": 6, "mlp_width": 1536},
    "videomae-tiny": {"width": 96, "layers": 4, "heads": 3, "mlp_width": 384},
}

RECIPE = Recipe(
    optimizer="adamw",
    learning_rate=5e-4,
    weight_decay=0.05,
    warmup_fraction=5 / 75,
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
    eval_clips=5,
    eval_crops=3,
    epochs=75,
    batch_size=512,
)

RECIPES: dict[str, dict[str, Any]] = {
    "ssv2": {"warmup_fraction": 5 / 30, "sampling": "segment", "eval_clips": 2, "epochs": 30},
}


def build_pretraining(spec: ModelSpec) -> MaskedVideoMAE:
    """The model that learns without labels: clips as for `build`, to its loss."""
    config = spec.config
    assert isinstance(config, Config)
    return MaskedVideoMAE(spec, config)


def build(spec: ModelSpec) -> VideoMAE:
    """The model for `spec`: clips (B, T, 3, H, W), normalised by MEAN and STD, to logits (B, classes).

    Raises:
        ShapeError: the frames are not whole tubelets.
        WeightsMissing: `spec.pretrained`, and the published weights cannot be had.
    """
    config = spec.config
    assert isinstance(config, Config)
    model = VideoMAE(spec, config)
    if spec.pretrained:
        model.load(published(config))
    return model
