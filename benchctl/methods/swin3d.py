"""Video Swin: attention within windows over space and time that are shifted in every second block (Liu et al. 2022, arXiv 2106.13230).

Reading. As `torchvision` has it. Where a feature map is smaller than the window, the window is the map and is not shifted; so its
weights load at every shape. With 400 classes Swin-T has 28,158,070 parameters; 16 frames of 224 pixels cost 43.88 G MACs as torchvision
counts them, attention included, and 44.03 G with what normalisation costs.

The recipe is the authors' for Kinetics-400, from ImageNet: 30 epochs of which 2.5 warm up, the learning rate being for 64 clips a
step. The vocabulary has no word for the smaller rate, a tenth, that they give all but the classifier. They print no recipe for this
size on another data set.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from benchctl.layers.clip_input import ClipInput
from benchctl.layers.pretrained import RANDOM, published
from benchctl.layers.torchvision_weights import load_torchvision
from benchctl.recipe import Recipe
from benchctl.spec import Attention, MethodConfig, ModelSpec

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

#: side in pixels of what one token of the first stage shows
_PATCH = 4


class Swin3d(nn.Module):
    """torchvision's network, fed clips of one shape."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        from torchvision.models.video import SwinTransformer3d

        config = spec.config
        assert isinstance(config, Config)
        config.attention(spec.attention)  # raises where another than torchvision's is asked for
        self.input = ClipInput(spec)
        self.video = SwinTransformer3d(
            patch_size=[config.tubelet_size, _PATCH, _PATCH],
            embed_dim=config.width,
            depths=list(config.depths),
            num_heads=list(config.heads),
            window_size=list(config.window),
            stochastic_depth_prob=config.drop_path,
            num_classes=spec.num_classes,
        )
        self.weights = RANDOM

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """(B, T, 3, H, W) to logits (B, classes)."""
        logits: Tensor = self.video(self.input(clip_BTCHW).transpose(1, 2))
        return logits

    def load(self, name: str) -> None:
        """Load weights that torchvision publishes; raises WeightsMissing as `load_torchvision`."""
        self.weights = load_torchvision(self.video, name, head="head")


class Config(MethodConfig):
    """Sizes of one Video Swin."""

    ATTENTION: ClassVar[tuple[Attention, ...]] = ("eager",)

    #: what the last stage makes one token of: frames are padded to whole ones
    patch_size: PositiveInt = 32
    tubelet_size: PositiveInt = 2
    #: channels of the first stage; each further one has twice as many
    width: PositiveInt = 96
    depths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (2, 2, 6, 2)
    heads: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (3, 6, 12, 24)
    #: of attention: tubelets, rows and columns
    window: tuple[PositiveInt, PositiveInt, PositiveInt] = (8, 7, 7)
    #: stochastic depth of the last block; it grows linearly from 0
    drop_path: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for stage, heads in enumerate(self.heads):
            if self.width * 2**stage % heads:
                raise ValueError(f"width {self.width * 2**stage} is not a multiple of {heads} heads")
        return self


PRESETS: dict[str, dict[str, Any]] = {
    "swin3d-t": {"weights": "Swin3D_T_Weights.KINETICS400_V1"},
    "swin3d-tiny": {"width": 24, "depths": [2, 1, 1, 1], "heads": [1, 2, 4, 8], "window": [2, 8, 8], "drop_path": 0.0},
}

RECIPE = Recipe(
    optimizer="adamw",
    learning_rate=1e-3,
    weight_decay=0.02,
    warmup_fraction=2.5 / 30,
    sampling="dense",
    frame_stride=2,
    flip="if-safe",
    crop_scale=0.08,
    eval_clips=4,
    eval_crops=3,
    epochs=30,
    batch_size=64,
)


def build(spec: ModelSpec) -> Swin3d:
    """The model for `spec`: clips (B, T, 3, H, W), normalised by MEAN and STD, to logits (B, classes).

    Raises:
        ShapeError: the frames are not whole tubelets.
        WeightsMissing: `spec.pretrained`, and the published weights cannot be had.
    """
    model = Swin3d(spec)
    if spec.pretrained:
        model.load(published(spec.config))
    return model
