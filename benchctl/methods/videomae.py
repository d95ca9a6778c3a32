"""VideoMAE: a plain video transformer over tubelets (Tong et al. 2022, arXiv 2203.12602), as `transformers` has it.

Reading. Base size, 16 x 224, 400 classes: 86.53 M parameters, 180.34 G MACs with attention, 135.17 G without, which is what papers
print. `videomae-s` is the small one of the MovT paper: 9 layers, width 384, 6 heads, MLP 1536, tubelet 2, and tubelet 1 where a
clip is one frame (option `tubelet_size: 1`). That paper prints 3.19 / 3.24 / 6.49 / 25.95 G at 1 / 2 / 4 / 16 frames, attention
left out, and 16.63 M parameters; here they are 16.57 M with Jester's 27 classes, 16.62 M with Something-Something's 174.

The position table is a function of the shape, not a parameter. It is computed here, since the library's loop over its entries takes
seconds on long clips, and lives in a buffer, so that it moves with the model instead of being copied to the device at every step.

The recipe is the authors' fine-tuning recipe for Kinetics-400 at base size, its learning rate being for 256 clips a step, without what
the recipe vocabulary has no word for (layer-wise decay, mixup, RandAugment, drop path).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from benchctl.layers.attention import BACKENDS, transformers_backend
from benchctl.layers.clip_input import ClipInput
from benchctl.layers.pretrained import RANDOM, State, load_pretrained, published
from benchctl.spec import Attention, MethodConfig, ModelSpec, Recipe

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class VideoMAE(nn.Module):
    """The library's model, fed clips of one shape."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        from transformers import VideoMAEConfig, VideoMAEForVideoClassification

        config = spec.config
        assert isinstance(config, Config)
        self.input = ClipInput(spec)
        # built for one patch, so that the library's own slow position table has one entry; nothing trained depends on the shape
        self.video = VideoMAEForVideoClassification(
            VideoMAEConfig(
                image_size=config.patch_size,
                patch_size=config.patch_size,
                num_frames=config.tubelet_size,
                tubelet_size=config.tubelet_size,
                hidden_size=config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=config.mlp_width,
                num_labels=spec.num_classes,
                attn_implementation=transformers_backend(config.attention(spec.attention)),
            )
        )
        self._set_shape(frames=spec.shape.frames, side=spec.padded_resolution)
        self.weights = RANDOM

    def _set_shape(self, *, frames: int, side: int) -> None:
        video = self.video.config
        video.num_frames, video.image_size = frames, side
        embeddings = self.video.videomae.embeddings
        patches = frames // video.tubelet_size * (side // video.patch_size) ** 2
        embeddings.num_patches = embeddings.patch_embeddings.num_patches = patches
        embeddings.patch_embeddings.image_size = (side, side)
        del embeddings.position_embeddings
        embeddings.register_buffer("position_embeddings", sinusoid_table(patches, video.hidden_size), persistent=False)

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """(B, T, 3, H, W) to logits (B, classes)."""
        logits: Tensor = self.video(self.input(clip_BTCHW)).logits
        return logits

    def load(self, hub_id: str) -> None:
        """Load published weights; raises WeightsMissing as `load_pretrained`."""
        self.weights = load_pretrained(self.video, hub_id, convert=_rename_biases, head="classifier")


def sinusoid_table(positions: int, width: int) -> Tensor:
    """(1, positions, width): sine in even channels and cosine in odd ones, wavelengths from 2 pi to 20000 pi (Vaswani et al. 2017)."""
    channel = torch.arange(width, dtype=torch.float64)
    wavelength = torch.exp(2 * (channel // 2) / width * math.log(10000))
    angle = torch.arange(positions, dtype=torch.float64)[:, None] / wavelength
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()[None]


def _rename_biases(state: State) -> State:
    """The biases of published files are named as the authors' code names them."""
    return {
        name.replace("attention.q_bias", "attention.query.bias").replace("attention.v_bias", "attention.value.bias"): state[name]
        for name in state
    }


class Config(MethodConfig):
    """Sizes of one VideoMAE."""

    ATTENTION: ClassVar[tuple[Attention, ...]] = BACKENDS

    tubelet_size: PositiveInt = 2
    width: PositiveInt = 768
    layers: PositiveInt = 12
    heads: PositiveInt = 12
    mlp_width: PositiveInt = 3072

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        return self


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
    eval_clips=5,
    eval_crops=3,
)


def build(spec: ModelSpec) -> VideoMAE:
    """The model for `spec`: clips (B, T, 3, H, W), normalised by MEAN and STD, to logits (B, classes).

    Raises:
        ShapeError: the frames are not whole tubelets.
        WeightsMissing: `spec.pretrained`, and the published weights cannot be had.
    """
    model = VideoMAE(spec)
    if spec.pretrained:
        model.load(published(spec.config))
    return model
