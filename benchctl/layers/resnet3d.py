"""Residual networks over clips with separate kernels in time and space: what SlowFast, I3D and C2D are built of.

Blocks are bottlenecks (He et al. 2016) whose first convolution spans 1 or 3 frames, and whose second one 3 x 3 pixels, with the
stride; batch normalisation throughout (Feichtenhofer et al. 2019, Table 1). Space is halved by the stem, by its pool and by the last
three stages; time by none of them. The average before the classifier is over all of space and time, whatever the shape.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from benchctl.layers.clip_input import ClipInput
from benchctl.layers.pretrained import RANDOM, State, load_pretrained
from benchctl.spec import Attention, MethodConfig, ModelSpec

# B batch, T frames, C channels

#: outputs of a bottleneck over its width
EXPANSION = 4
#: of PyTorchVideo's names in a bottleneck: ours
_IN_BLOCK = (
    ("branch1_conv", "shortcut.conv"),
    ("branch1_norm", "shortcut.norm"),
    ("branch2.conv_a", "reduce.conv"),
    ("branch2.norm_a", "reduce.norm"),
    ("branch2.conv_b", "spatial.conv"),
    ("branch2.norm_b", "spatial.norm"),
    ("branch2.conv_c", "expand.conv"),
    ("branch2.norm_c", "expand.norm"),
)
#: the pool in time is the third of PyTorchVideo's blocks
_STAGE_OF_BLOCK = {1: 0, 3: 1, 4: 2, 5: 3}


class ResNet3dSizes(MethodConfig):
    """Base of the `Config` of methods with a residual network over clips; the default is ResNet-50."""

    ATTENTION: ClassVar[tuple[Attention, ...]] = ("none",)

    #: what the last stage makes one feature of: frames are padded to whole ones
    patch_size: PositiveInt = 32
    #: bottleneck blocks of each stage
    blocks: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (3, 4, 6, 3)
    #: channels of a block's 3 x 3 convolution in each stage; the stem has as many as the first
    channels: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (64, 128, 256, 512)
    #: before the classifier
    dropout: float = Field(0.5, ge=0, lt=1)


@dataclass(frozen=True)
class TemporalKernels:
    """Frames that convolutions span."""

    stem: int
    #: of the first convolution of the blocks of each stage, over and over
    stages: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]


class ConvNorm(nn.Module):
    """A convolution that keeps the size but for its stride, and batch normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int, int], stride: tuple[int, int, int] = (1, 1, 1)) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)
        self.norm = nn.BatchNorm3d(outputs)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """(B, inputs, T, H, W) to (B, outputs, T', H', W')."""
        normed: Tensor = self.norm(self.conv(x_BCTHW))
        return normed


class Bottleneck3d(nn.Module):
    """Reduce, over `frames` frames; convolve 3 x 3 pixels, with the stride; expand; and add what came in."""

    def __init__(self, inputs: int, width: int, frames: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.reduce = ConvNorm(inputs, width, (frames, 1, 1))
        self.spatial = ConvNorm(width, width, (1, 3, 3), (1, stride, stride))
        self.expand = ConvNorm(width, outputs, (1, 1, 1))
        self.shortcut = None if inputs == outputs and stride == 1 else ConvNorm(inputs, outputs, (1, 1, 1), (1, stride, stride))

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """(B, inputs, T, H, W) to (B, 4 width, T, H / stride, W / stride)."""
        inner = torch.relu(self.spatial(torch.relu(self.reduce(x_BCTHW))))
        skipped = x_BCTHW if self.shortcut is None else self.shortcut(x_BCTHW)
        return torch.relu(self.expand(inner) + skipped)


class Pathway(nn.Module):
    """Stem and four stages, to be called one by one.

    Args:
        blocks: of each stage.
        channels: of each stage's 3 x 3 convolutions.
        kernels: in time.
        joined: channels that another pathway adds to what each stage is given.
    """

    def __init__(
        self, blocks: Sequence[int], channels: Sequence[int], kernels: TemporalKernels, joined: Sequence[int] = (0, 0, 0, 0)
    ) -> None:
        super().__init__()
        self.stem = Stem(channels[0], kernels.stem)
        self.stages = nn.ModuleList()
        inputs = channels[0]
        for place, (depth, width, extra) in enumerate(zip(blocks, channels, joined, strict=True)):
            frames = islice(cycle(kernels.stages[place]), depth)
            stage = nn.Sequential()
            for block, spanned in enumerate(frames):
                first = block == 0
                before = inputs + extra if first else EXPANSION * width
                stage.append(Bottleneck3d(before, width, spanned, stride=2 if first and place else 1))
            self.stages.append(stage)
            inputs = EXPANSION * width
        self.outputs = inputs


class Stem(nn.Module):
    """Convolution over 7 x 7 pixels and `frames` frames, and a pool over 3 x 3 pixels, each with stride 2 in space."""

    def __init__(self, outputs: int, frames: int) -> None:
        super().__init__()
        self.first = ConvNorm(3, outputs, (frames, 7, 7), (1, 2, 2))
        self.pool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        """(B, 3, T, H, W) to (B, outputs, T, H / 4, W / 4)."""
        pooled: Tensor = self.pool(torch.relu(self.first(clip_BCTHW)))
        return pooled


class ResNet3d(nn.Module):
    """One pathway, with a maximum over pairs of frames after its first stage, and a classifier.

    Args:
        spec: shape and classes.
        sizes: of the network.
        kernels: in time.
    """

    def __init__(self, spec: ModelSpec, sizes: ResNet3dSizes, kernels: TemporalKernels) -> None:
        super().__init__()
        sizes.attention(spec.attention)  # raises where one is asked for
        self.input = ClipInput(spec)
        self.pathway = Pathway(sizes.blocks, sizes.channels, kernels)
        self.pairs = nn.MaxPool3d((2, 1, 1))
        self.dropout = nn.Dropout(sizes.dropout)
        self.classifier = nn.Linear(self.pathway.outputs, spec.num_classes)
        self.weights = RANDOM
        initialise(self)

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """(B, T, 3, H, W) to logits (B, classes)."""
        first, *rest = self.pathway.stages
        x_BCTHW = self.pairs(first(self.pathway.stem(self.input(clip_BTCHW).transpose(1, 2))))
        for stage in rest:
            x_BCTHW = stage(x_BCTHW)
        logits: Tensor = self.classifier(self.dropout(x_BCTHW.mean((2, 3, 4))))
        return logits

    def load(self, hub_id: str) -> None:
        """Load weights that are named as PyTorchVideo's files are; raises WeightsMissing as `load_pretrained`."""
        self.weights = load_pretrained(self, hub_id, convert=convert, head="classifier")


def convert(state: State) -> State:
    """The tensors of a file of PyTorchVideo's I3D or C2D under the names of `ResNet3d`.

    Raises:
        ValueError: a tensor that no such file has.
    """
    return {_renamed(name): tensor for name, tensor in state.items()}


def _renamed(name: str) -> str:
    if name.startswith("blocks.6.proj."):
        return name.replace("blocks.6.proj.", "classifier.")
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    block, rest = (int(found[1]), found[2]) if found else (-1, "")
    if block == 0:
        return f"pathway.{stem_name(rest)}"
    if block in _STAGE_OF_BLOCK:
        return f"pathway.{stage_name(_STAGE_OF_BLOCK[block], rest)}"
    raise ValueError(f"unexpected tensor {name}")


def stem_name(rest: str) -> str:
    """Of a tensor of PyTorchVideo's stem, `conv.weight` for example: its name in a `Pathway`."""
    return f"stem.first.{rest}"


def stage_name(stage: int, rest: str) -> str:
    """Of a tensor in one of PyTorchVideo's stages, `res_blocks.0.branch2.conv_a.weight` for example: its name in a `Pathway`."""
    name = f"stages.{stage}.{rest.removeprefix('res_blocks.')}"
    for theirs, ours in _IN_BLOCK:
        name = name.replace(f".{theirs}.", f".{ours}.")
    return name


def initialise(model: nn.Module) -> None:
    """As the authors of SlowFast: convolutions after He et al. 2015, blocks that begin as what came in, a small classifier."""
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, Bottleneck3d):
            nn.init.zeros_(module.expand.norm.weight)
