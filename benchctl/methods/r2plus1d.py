"""R(2+1)D: each convolution over space and time taken apart into one over space and one over time (Tran et al. 2018, arXiv 1711.11248).

Reading. `torchvision`'s 18 layers: its blocks, in its order and with its names, put together here since its own class fixes the widths.
With 400 classes 31,505,325 parameters; 16 frames of 112 pixels, for which it was published, cost 40.52 G MACs as torchvision counts
them, 40.64 G with what normalisation costs.

The recipe is torchvision's for Kinetics-400: three drops of the rate, which is for 24 clips a step; 45 epochs of five clips of each
video, which are 225 here, where an epoch takes one of each. Frames at half the rate of the video are a stride of 2.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar

from pydantic import PositiveInt
from torch import Tensor, nn

from benchctl.layers.clip_input import ClipInput
from benchctl.layers.pretrained import RANDOM, published
from benchctl.layers.torchvision_weights import load_torchvision
from benchctl.recipe import Recipe
from benchctl.spec import Attention, MethodConfig, ModelSpec

MEAN = (0.43216, 0.394666, 0.37645)
STD = (0.22803, 0.22145, 0.216989)


class R2Plus1D(nn.Module):
    """torchvision's network, fed clips of one shape."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        config = spec.config
        assert isinstance(config, Config)
        config.attention(spec.attention)  # raises where one is asked for
        self.input = ClipInput(spec)
        self.video = network(config, spec.num_classes)
        self.weights = RANDOM

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """(B, T, 3, H, W) to logits (B, classes)."""
        logits: Tensor = self.video(self.input(clip_BTCHW).transpose(1, 2))
        return logits

    def load(self, name: str) -> None:
        """Load weights that torchvision publishes; raises WeightsMissing as `load_torchvision`."""
        self.weights = load_torchvision(self.video, name, head="fc")


def network(config: Config, classes: int) -> nn.Sequential:
    """(B, 3, T, H, W) to logits (B, classes), with the names of torchvision's `VideoResNet`, initialised as it is."""
    from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D

    first = config.widths[0]
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["stem"] = nn.Sequential(
        nn.Conv3d(3, config.stem_width, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False),
        nn.BatchNorm3d(config.stem_width),
        nn.ReLU(inplace=True),
        nn.Conv3d(config.stem_width, first, (3, 1, 1), padding=(1, 0, 0), bias=False),
        nn.BatchNorm3d(first),
        nn.ReLU(inplace=True),
    )
    inputs = first
    for place, (depth, width) in enumerate(zip(config.blocks, config.widths), start=1):
        stage = nn.Sequential()
        for block in range(depth):
            stride = 2 if place > 1 and block == 0 else 1
            shortcut = None
            if stride > 1:
                shortcut = nn.Sequential(nn.Conv3d(inputs, width, 1, stride=stride, bias=False), nn.BatchNorm3d(width))
            stage.append(BasicBlock(inputs, width, Conv2Plus1D, stride, shortcut))
            inputs = width
        parts[f"layer{place}"] = stage
    parts.update(avgpool=nn.AdaptiveAvgPool3d(1), flatten=nn.Flatten(), fc=nn.Linear(inputs, classes))
    for part in nn.Sequential(parts).modules():
        if isinstance(part, nn.Conv3d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.01)
            nn.init.zeros_(part.bias)
    return nn.Sequential(parts)


class Config(MethodConfig):
    """Sizes of one R(2+1)D."""

    ATTENTION: ClassVar[tuple[Attention, ...]] = ("none",)

    #: what the last stage makes one feature of: frames are padded to whole ones
    patch_size: PositiveInt = 16
    #: channels between the stem's two convolutions
    stem_width: PositiveInt = 45
    #: blocks and channels of each stage
    blocks: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (2, 2, 2, 2)
    widths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (64, 128, 256, 512)


PRESETS: dict[str, dict[str, Any]] = {
    "r2plus1d-18": {"weights": "R2Plus1D_18_Weights.KINETICS400_V1"},
    "r2plus1d-tiny": {"stem_width": 12, "blocks": [1, 1, 1, 1], "widths": [16, 24, 32, 48]},
}

RECIPE = Recipe(
    optimizer="sgd",
    learning_rate=0.01,
    weight_decay=1e-4,
    momentum=0.9,
    warmup_fraction=10 / 45,
    schedule="steps",
    drop_at=(20 / 45, 30 / 45, 40 / 45),
    sampling="dense",
    frame_stride=2,
    flip="if-safe",
    eval_clips=5,
    eval_crops=1,
    epochs=225,
    batch_size=24,
)


def build(spec: ModelSpec) -> R2Plus1D:
    """The model for `spec`: clips (B, T, 3, H, W), normalised by MEAN and STD, to logits (B, classes).

    Raises:
        WeightsMissing: `spec.pretrained`, and the published weights cannot be had.
    """
    model = R2Plus1D(spec)
    if spec.pretrained:
        model.load(published(spec.config))
    return model
