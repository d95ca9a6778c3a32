"""MViTv2: a transformer whose stages trade tokens for channels, by pooling attention (Li et al. 2022, arXiv 2112.01526).

Reading. As `torchvision` has it: positions are relative, one table for each axis and block. With 400 classes the small one has
34,537,744 parameters; 16 frames of 224 pixels cost 64.22 G MACs as torchvision counts them, attention included, and 64.46 G with
what normalisation costs.

Published weights are for 16 x 224. For other shapes their tables are resized linearly, which is what torchvision's and the authors'
attention do with a table of another length than the clip needs.

The recipe is the authors' for Kinetics-400 from random weights, 200 epochs of which 30 warm up, and for Something-Something from
Kinetics-400. Learning rates are for 512 clips a step, and 16. Left out: the end of the cosine at 1e-6, and a wider stochastic depth
on Something-Something (0.4, for which the vocabulary has no word: torchvision's model fixes 0.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from benchctl.layers.clip_input import ClipInput
from benchctl.layers.pretrained import RANDOM, State, published
from benchctl.layers.torchvision_weights import load_torchvision
from benchctl.recipe import Recipe
from benchctl.spec import Attention, MethodConfig, ModelSpec

if TYPE_CHECKING:
    from torchvision.models.video.mvit import MSBlockConfig

MEAN = (0.45, 0.45, 0.45)
STD = (0.225, 0.225, 0.225)


class MViT(nn.Module):
    """torchvision's network, built for clips of one shape."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        from torchvision.models.video import MViT as Network

        config = spec.config
        assert isinstance(config, Config)
        config.attention(spec.attention)  # raises where another than torchvision's is asked for
        self.input = ClipInput(spec)
        self.video = Network(
            spatial_size=(spec.padded_resolution, spec.padded_resolution),
            temporal_size=spec.shape.frames,
            block_setting=list(_blocks(config)),
            residual_pool=True,
            residual_with_cls_embed=False,
            rel_pos_embed=True,
            proj_after_attn=True,
            stochastic_depth_prob=config.drop_path,
            num_classes=spec.num_classes,
            patch_embed_stride=(config.tubelet_size, 4, 4),
        )
        self.weights = RANDOM

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """(B, T, 3, H, W) to logits (B, classes)."""
        logits: Tensor = self.video(self.input(clip_BTCHW).transpose(1, 2))
        return logits

    def load(self, name: str) -> None:
        """Load weights that torchvision publishes; raises WeightsMissing as `load_torchvision`."""
        self.weights = load_torchvision(self.video, name, head="head", convert=self._convert)

    def _convert(self, state: State) -> State:
        own = self.video.state_dict()
        return {
            name: resize_table(tensor, own[name].shape[0]) if ".rel_pos_" in name and name in own else tensor
            for name, tensor in state.items()
        }


def resize_table(table_LC: Tensor, length: int) -> Tensor:
    """Relative positions (L, C) to (length, C), linearly, as torchvision's `MultiscaleAttention` does."""
    if table_LC.shape[0] == length:
        return table_LC
    return F.interpolate(table_LC.T[None], size=length, mode="linear")[0].T


def _blocks(config: Config) -> Iterator[MSBlockConfig]:
    """The first block of each stage but the first halves rows and columns and doubles channels; keys are pooled by 8, 4, 2 and 1."""
    from torchvision.models.video.mvit import MSBlockConfig

    stages = len(config.depths)
    for stage, depth in enumerate(config.depths):
        outputs, keys = config.width * 2**stage, 2 ** (stages - 1 - stage)
        for block in range(depth):
            enters = stage > 0 and block == 0
            yield MSBlockConfig(
                num_heads=config.heads * 2**stage,
                input_channels=outputs // 2 if enters else outputs,
                output_channels=outputs,
                kernel_q=[3, 3, 3],
                kernel_kv=[3, 3, 3],
                stride_q=[1, 2, 2] if enters else [1, 1, 1],
                stride_kv=[1, keys, keys],
            )


class Config(MethodConfig):
    """Sizes of one MViTv2."""

    ATTENTION: ClassVar[tuple[Attention, ...]] = ("eager",)

    #: what the last stage makes one token of: frames are padded to whole ones
    patch_size: PositiveInt = 32
    tubelet_size: PositiveInt = 2
    #: blocks of each stage
    depths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (1, 2, 11, 2)
    #: channels and heads of the first stage; each further one has twice as many
    width: PositiveInt = 96
    heads: PositiveInt = 1
    #: stochastic depth of the last block; it grows linearly from 0
    drop_path: float = Field(0.2, ge=0, lt=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        return self


PRESETS: dict[str, dict[str, Any]] = {
    "mvit-v2-s": {"weights": "MViT_V2_S_Weights.KINETICS400_V1"},
    "mvit-tiny": {"depths": [1, 1, 1, 1], "width": 24, "drop_path": 0.0},
}

RECIPE = Recipe(
    optimizer="adamw",
    learning_rate=1.6e-3,
    weight_decay=0.05,
    warmup_fraction=30 / 200,
    clip_gradient_norm=1.0,
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
    eval_crops=1,
    epochs=200,
    batch_size=512,
)

RECIPES: dict[str, dict[str, Any]] = {
    "ssv2": {
        "optimizer": "nesterov",
        "learning_rate": 2.5e-3,
        "weight_decay": 1e-4,
        "warmup_fraction": 3 / 100,
        "clip_gradient_norm": None,
        "sampling": "uniform",
        "crop_scale": None,
        "repeated_augmentation": 1,
        "eval_clips": 1,
        "eval_crops": 3,
        "epochs": 100,
        "batch_size": 16,
    },
}


def build(spec: ModelSpec) -> MViT:
    """The model for `spec`: clips (B, T, 3, H, W), normalised by MEAN and STD, to logits (B, classes).

    Raises:
        ShapeError: the frames are not whole tubelets.
        WeightsMissing: `spec.pretrained`, and the published weights cannot be had or do not fit.
    """
    model = MViT(spec)
    if spec.pretrained:
        model.load(published(spec.config))
    return model
