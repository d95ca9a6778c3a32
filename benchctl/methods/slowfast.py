"""SlowFast: a slow pathway that sees what there is, a fast and narrow one that sees motion (Feichtenhofer et al. 2019, arXiv 1812.03982).

Reading. R50 as PyTorchVideo's model zoo has it, 8 x 8: Table 1 of the paper but for the stride of the data layer, with lateral
convolutions over 7 frames, where the paper has 5. A cell's frames are those of the fast pathway; the slow one is given every
`alpha`-th of them from the first on, on which the lateral convolutions are centred. (The authors' loader takes them evenly from the
first to the last instead, which are other frames.) With 400 classes 34.57 M parameters; 2 slow and 8 fast frames of 256 pixels cost
16.52 G MACs, which is what papers print, and the 8 and 32 of the zoo 66.07 G.

Weights in the zoo's files load: `weights` names where they are. Those files are on no hub, so no preset names one.

The recipe is the authors' for Kinetics-400 from random weights: 196 epochs of which 34 warm up, the learning rate being for 64
clips a step; and their code's for Something-Something, which starts from Kinetics-400. Theirs tests at 256 pixels, and recomputes
batch statistics before it does; ours does neither.
"""

from __future__ import annotations

import re
from typing import Any, Self

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from benchctl.errors import ShapeError
from benchctl.layers.clip_input import ClipInput
from benchctl.layers.pretrained import RANDOM, State, load_pretrained, published
from benchctl.layers.resnet3d import EXPANSION, ConvNorm, Pathway, ResNet3dSizes, TemporalKernels, initialise, stage_name, stem_name
from benchctl.recipe import Recipe
from benchctl.spec import ModelSpec
from benchctl.vocabulary import ClipShape

MEAN = (0.45, 0.45, 0.45)
STD = (0.225, 0.225, 0.225)

_SLOW = TemporalKernels(stem=1, stages=((1,), (1,), (3,), (3,)))
_FAST = TemporalKernels(stem=5, stages=((3,), (3,), (3,), (3,)))
#: frames that a lateral convolution spans
_LATERAL_FRAMES = 7


class SlowFast(nn.Module):
    """Two pathways; before each stage the fast one is handed over to the slow one."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        config = spec.config
        assert isinstance(config, Config)
        config.attention(spec.attention)  # raises where one is asked for
        self.alpha = config.alpha
        self.input = ClipInput(spec)
        narrow = [width // config.beta for width in config.channels]
        handed = [narrow[0], *(EXPANSION * width for width in narrow[:3])]
        self.slow = Pathway(config.blocks, config.channels, _SLOW, joined=[2 * width for width in handed])
        self.fast = Pathway(config.blocks, narrow, _FAST)
        self.lateral = nn.ModuleList(ConvNorm(width, 2 * width, (_LATERAL_FRAMES, 1, 1), (config.alpha, 1, 1)) for width in handed)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(self.slow.outputs + self.fast.outputs, spec.num_classes)
        self.weights = RANDOM
        initialise(self)

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """(B, T, 3, H, W) to logits (B, classes)."""
        clip_BCTHW = self.input(clip_BTCHW).transpose(1, 2)
        slow, fast = self.slow.stem(clip_BCTHW[:, :, :: self.alpha]), self.fast.stem(clip_BCTHW)
        for slow_stage, fast_stage, lateral in zip(self.slow.stages, self.fast.stages, self.lateral):
            slow, fast = slow_stage(torch.cat([slow, torch.relu(lateral(fast))], dim=1)), fast_stage(fast)
        features = torch.cat([slow.mean((2, 3, 4)), fast.mean((2, 3, 4))], dim=1)
        logits: Tensor = self.classifier(self.dropout(features))
        return logits

    def load(self, hub_id: str) -> None:
        """Load weights that are named as PyTorchVideo's files are; raises WeightsMissing as `load_pretrained`."""
        self.weights = load_pretrained(self, hub_id, convert=convert, head="classifier")


def convert(state: State) -> State:
    """The tensors of a file of PyTorchVideo's SlowFast under the names of `SlowFast`.

    Raises:
        ValueError: a tensor that no such file has.
    """
    return {_renamed(name): tensor for name, tensor in state.items()}


def _renamed(name: str) -> str:
    if name.startswith("blocks.6.proj."):
        return name.replace("blocks.6.proj.", "classifier.")
    found = re.fullmatch(r"blocks\.([0-4])\.multipathway_(?:blocks\.([01])|fusion)\.(.+)", name)
    if found is None:
        raise ValueError(f"unexpected tensor {name}")
    block, pathway, rest = int(found[1]), found[2], found[3]
    if pathway is None:
        return f"lateral.{block}.{rest.replace('conv_fast_to_slow.', 'conv.')}"
    place = stage_name(block - 1, rest) if block else stem_name(rest)
    return f"{('slow', 'fast')[int(pathway)]}.{place}"


class Config(ResNet3dSizes):
    """Sizes of one SlowFast; `channels` are those of the slow pathway."""

    #: fast frames for each slow one
    alpha: PositiveInt = 4
    #: slow channels for each fast one; the paper's beta is its reciprocal
    beta: PositiveInt = 8

    @model_validator(mode="after")
    def _check(self) -> Self:
        for width in self.channels:
            if width % self.beta:
                raise ValueError(f"{width} channels are not a multiple of beta = {self.beta}")
        return self

    def check(self, shape: ClipShape, *, pad: bool) -> None:
        """As `MethodConfig.check`; also refuses frames that are not a multiple of alpha."""
        super().check(shape, pad=pad)
        if shape.frames % self.alpha:
            below, above = shape.frames // self.alpha * self.alpha, -(-shape.frames // self.alpha) * self.alpha
            near = f"{below} or {above}" if below else f"{above}"
            raise ShapeError(f"{shape.frames} fast frames are not a multiple of alpha = {self.alpha}", fix=f"use {near} frames")


PRESETS: dict[str, dict[str, Any]] = {
    "slowfast-r50": {},
    "slowfast-tiny": {"blocks": [1, 1, 1, 1], "channels": [16, 32, 64, 128]},
}

RECIPE = Recipe(
    optimizer="nesterov",
    learning_rate=0.1,
    weight_decay=1e-4,
    momentum=0.9,
    warmup_fraction=34 / 196,
    sampling="dense",
    frame_stride=2,
    flip="if-safe",
    eval_clips=10,
    eval_crops=3,
    epochs=196,
    batch_size=64,
)

RECIPES: dict[str, dict[str, Any]] = {
    "ssv2": {
        "learning_rate": 0.03,
        "weight_decay": 1e-6,
        "warmup_fraction": 0.19 / 22,
        "schedule": "steps",
        "drop_at": (14 / 22, 18 / 22),
        "sampling": "uniform",
        "eval_clips": 1,
        "eval_crops": 1,
        "epochs": 22,
        "batch_size": 16,
    },
}


def build(spec: ModelSpec) -> SlowFast:
    """The model for `spec`: clips (B, T, 3, H, W), normalised by MEAN and STD, to logits (B, classes).

    Raises:
        ShapeError: the frames are not a multiple of alpha.
        WeightsMissing: `spec.pretrained`, and no weights are named, or they cannot be had.
    """
    model = SlowFast(spec)
    if spec.pretrained:
        model.load(published(spec.config))
    return model
