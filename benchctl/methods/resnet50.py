"""ResNet-50, averaged over the frames of a clip (He et al. 2016; averaged as in TSN, Wang et al. 2016). One frame: the single-frame floor.

Reading. Whatever order frames come in, the answer is the same: what this learns, no motion was needed for. 25.56 M parameters and 4.1 G
MACs a frame at 224, with 1000 classes.

The recipe is TSN's for RGB frames on UCF101: 4,500 steps of 256 clips, which are 120 epochs of its 9,537 videos, a tenth of the
rate after each 2,000. Left out: crops from the corners, and partial batch normalisation.
"""

from __future__ import annotations

from typing import Any

from benchctl.layers.frame_resnet import FrameResNet, ResNetSizes
from benchctl.layers.pretrained import published
from benchctl.recipe import Recipe
from benchctl.spec import ModelSpec

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Config(ResNetSizes):
    """Sizes of one network."""


PRESETS: dict[str, dict[str, Any]] = {
    "resnet50": {"weights": "timm/resnet50.tv_in1k"},
    "resnet50-tiny": {"blocks": [1, 1, 1, 1], "channels": [16, 32, 64, 128]},
}

RECIPE = Recipe(
    optimizer="sgd",
    learning_rate=1e-3,
    weight_decay=5e-4,
    momentum=0.9,
    warmup_fraction=0.0,
    schedule="steps",
    drop_at=(2000 / 4500, 4000 / 4500),
    sampling="segment",
    flip="if-safe",
    eval_clips=1,
    eval_crops=1,
    epochs=120,
    batch_size=256,
)


def build(spec: ModelSpec) -> FrameResNet:
    """The model for `spec`: clips (B, T, 3, H, W), normalised by MEAN and STD, to logits (B, classes).

    Raises:
        WeightsMissing: `spec.pretrained`, and the published weights cannot be had.
    """
    config = spec.config
    assert isinstance(config, Config)
    model = FrameResNet(spec, config)
    if spec.pretrained:
        model.load(published(config))
    return model
