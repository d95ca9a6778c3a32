"""C2D: an image network over frames that meet in two pools alone (Wang et al. 2018, arXiv 1711.07971, Table 1), with ResNet-50.

Reading. As PyTorchVideo's model zoo has it, 8 x 8: no convolution spans frames; a maximum over pairs of frames after the first stage
and the average before the classifier do. With 400 classes 24.33 M parameters, which is what papers print beside it; at 8 x 224 it
costs 19.62 G MACs.

Weights in the zoo's files load: `weights` names where they are. Those files are on no hub, so no preset names one.

The recipe is that of SlowFast's code for Kinetics-400 from random weights: 196 epochs of which 34 warm up, the learning rate being
for 64 clips a step. It tests at 256 pixels, and recomputes batch statistics before it does; ours does neither. The paper's own
recipe starts from ImageNet, and the code has none for another data set.
"""

from __future__ import annotations

from typing import Any

from pydantic import PositiveInt

from benchctl.layers.pretrained import published
from benchctl.layers.resnet3d import ResNet3d, ResNet3dSizes, TemporalKernels
from benchctl.recipe import Recipe
from benchctl.spec import ModelSpec

MEAN = (0.45, 0.45, 0.45)
STD = (0.225, 0.225, 0.225)

_KERNELS = TemporalKernels(stem=1, stages=((1,), (1,), (1,), (1,)))


class Config(ResNet3dSizes):
    """Sizes of one network."""

    #: the pool in time takes pairs
    tubelet_size: PositiveInt = 2


PRESETS: dict[str, dict[str, Any]] = {
    "c2d-r50": {},
    "c2d-tiny": {"blocks": [1, 1, 1, 1], "channels": [16, 32, 64, 128]},
}

RECIPE = Recipe(
    optimizer="nesterov",
    learning_rate=0.1,
    weight_decay=1e-4,
    momentum=0.9,
    warmup_fraction=34 / 196,
    sampling="dense",
    frame_stride=8,
    flip="if-safe",
    eval_clips=10,
    eval_crops=3,
    epochs=196,
    batch_size=64,
)


def build(spec: ModelSpec) -> ResNet3d:
    """The model for `spec`: clips (B, T, 3, H, W), normalised by MEAN and STD, to logits (B, classes).

    Raises:
        ShapeError: the frames are not whole pairs.
        WeightsMissing: `spec.pretrained`, and no weights are named, or they cannot be had.
    """
    config = spec.config
    assert isinstance(config, Config)
    model = ResNet3d(spec, config, _KERNELS)
    if spec.pretrained:
        model.load(published(config))
    return model
