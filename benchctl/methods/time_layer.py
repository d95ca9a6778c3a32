"""The TIME layer in front of ResNet-50, ViT and VideoMAE.

Source: "When Spatial meets Temporal in Action Recognition" (Chen, Wang, Chen, Gedeon and Koniusz); tables and equations are its own.

Reading. A cell's frames and resolution are those of the host (T* frames of R x R); N^2 times as many are read of the video, of R / N a
side, and arranged in grids (`benchctl.layers.time_layer`). The host costs what it costs without the layer: only what is read of the video
grows. Image hosts classify each arranged frame, and a clip's logits are their mean; the paper does not say how it joins them. With
`grid: 1` each is its host (`resnet50`, `vit-b`, `videomae-b`), with the same weights the same logits.

The paper chooses N among 1, 2, 4, 7 and 14, which divide 224. Depth videos have one channel, which is shown to all three of the stem.

VideoMAE is pre-trained with the layer: tubes hide the same places of every arranged frame. With the spatial arrangement a hidden place is
a short motion that is missing whole; with the temporal one, every (N^2)-th frame of the video at that place.

The recipe for VideoMAE is the paper's for fine-tuning (section 4.1): base rate 1e-3 for 50 epochs of HMDB51, 5e-4 for 100 of
UCF101, weight decay 0.7, and the procedure of VideoMAE, whose base rate is for 256 videos, each of them twice, and whose
augmentation stands here as its released code has it. What the paper does for the image models is not said: their recipe is ours,
and has no epochs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator
from torch import nn

from benchctl.errors import UsageError
from benchctl.layers.attention import BACKENDS
from benchctl.layers.frame_resnet import FrameResNet, ResNetSizes
from benchctl.layers.image_encoder import EncoderConfig
from benchctl.layers.pretrained import published
from benchctl.layers.time_layer import Arrangement, TimeInput, TimeLayer, check_grid, small_frames
from benchctl.layers.video_classifier import VideoClassifier
from benchctl.layers.video_transformer import FineTuned
from benchctl.layers.videomae import MaskedVideoMAE, VideoMAE, VideoMAESizes
from benchctl.recipe import Recipe
from benchctl.spec import Attention, MethodConfig, Modality, ModelSpec, Rgb
from benchctl.vocabulary import ClipShape

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

Host = Literal["resnet50", "vit", "videomae"]


class Config(MethodConfig):
    """The layer, and the host behind it. Sizes that a host does not have are not read."""

    ATTENTION: ClassVar[tuple[Attention, ...]] = BACKENDS

    host: Host
    #: N: cells along a side of the grid
    grid: Literal[1, 2, 4, 7, 14] = 2
    arrangement: Arrangement = "spatial"
    modality: Modality = "rgb"
    #: of ViT and VideoMAE
    width: PositiveInt = 768
    layers: PositiveInt = 12
    heads: PositiveInt = 12
    #: of VideoMAE
    mlp_width: PositiveInt = 3072
    mask_ratio: float = Field(0.9, gt=0, lt=1)
    #: of ResNet: blocks and channels of each stage
    blocks: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (3, 4, 6, 3)
    channels: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (64, 128, 256, 512)

    @model_validator(mode="before")
    @classmethod
    def _as_the_host(cls, given: Any) -> Any:
        """Patches and tubelets are the host's."""
        if not isinstance(given, dict):
            return given
        own = {"resnet50": {"patch_size": 32}, "vit": {"patch_size": 16}, "videomae": {"patch_size": 16, "tubelet_size": 2}}
        return {**own.get(given.get("host", ""), {}), **given}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.host != "resnet50" and self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        return self

    @property
    def host_config(self) -> MethodConfig:
        """What the host is built by."""
        common = {"patch_size": self.patch_size, "weights": self.weights}
        if self.host == "resnet50":
            return ResNetSizes(blocks=self.blocks, channels=self.channels, **common)
        if self.host == "vit":
            sizes = {"encoder_width": self.width, "encoder_layers": self.layers, "encoder_heads": self.heads}
            return EncoderConfig(encoder="imagenet-b16", **sizes, **common)
        sizes = {"width": self.width, "layers": self.layers, "heads": self.heads, "mlp_width": self.mlp_width}
        return VideoMAESizes(tubelet_size=self.tubelet_size, mask_ratio=self.mask_ratio, **sizes, **common)

    def backends(self) -> tuple[Attention, ...]:
        """The host's."""
        return self.host_config.backends()

    def statistics(self) -> tuple[Rgb, Rgb] | None:
        """The host's."""
        return self.host_config.statistics()

    def clip_modality(self) -> Modality:
        """As asked for."""
        return self.modality

    def pretrains(self) -> bool:
        """Whether the host does."""
        return self.host_config.pretrains()

    def pixels(self, shape: ClipShape) -> ClipShape:
        """N^2 times the frames, of 1 / N of the side."""
        return small_frames(shape, self.grid)

    def check(self, shape: ClipShape, *, pad: bool) -> None:
        """As every method's; and the grid must divide the resolution.

        Raises:
            ShapeError.
        """
        super().check(shape, pad=pad)
        check_grid(shape, self.grid)


PRESETS: dict[str, dict[str, Any]] = {
    "time-resnet50": {"host": "resnet50", "weights": "timm/resnet50.tv_in1k"},
    "time-resnet-tiny": {"host": "resnet50", "blocks": [1, 1, 1, 1], "channels": [16, 32, 64, 128]},
    "time-vit": {"host": "vit", "weights": "timm/vit_base_patch16_224.augreg_in1k"},
    "time-vit-tiny": {"host": "vit", "width": 96, "layers": 4, "heads": 3},
    "time-videomae": {"host": "videomae", "weights": "MCG-NJU/videomae-base-finetuned-kinetics"},
    "time-videomae-tiny": {"host": "videomae", "width": 96, "layers": 4, "heads": 3, "mlp_width": 384},
}

RECIPE = Recipe(
    optimizer="adamw",
    learning_rate=1e-3,
    weight_decay=0.05,
    warmup_fraction=0.1,
    sampling="segment",
    eval_clips=1,
    eval_crops=1,
    batch_size=128,
)

_VIDEOMAE: dict[str, Any] = {
    "weight_decay": 0.7,
    "warmup_fraction": 5 / 50,
    "label_smoothing": 0.1,
    "flip": "if-safe",
    "crop_scale": 0.08,
    "rand_augment": "rand-m7-n4-mstd0.5-inc1",
    "random_erasing": 0.25,
    "mixup": 0.8,
    "cutmix": 1.0,
    "repeated_augmentation": 2,
    "epochs": 50,
    "batch_size": 512,
}

RECIPES: dict[str, dict[str, Any]] = {
    "time-videomae": _VIDEOMAE,
    "time-videomae/ucf101": {"learning_rate": 5e-4, "warmup_fraction": 5 / 100, "epochs": 100},
    "time-videomae-tiny": _VIDEOMAE,
}


def _front(spec: ModelSpec, config: Config) -> TimeInput:
    return TimeInput(spec, TimeLayer(config.grid, config.arrangement))


def build_pretraining(spec: ModelSpec) -> MaskedVideoMAE:
    """The model that learns without labels: clips as for `build`, to its loss.

    Raises:
        UsageError: the host does not pre-train.
    """
    config = spec.config
    assert isinstance(config, Config)
    sizes = config.host_config
    if not isinstance(sizes, VideoMAESizes):
        raise UsageError(f"'{config.host}' has no pre-training by reconstruction", fix="use the host videomae")
    return MaskedVideoMAE(replace(spec, config=sizes), sizes, _front(spec, config))


def build(spec: ModelSpec) -> nn.Module:
    """The model for `spec`: small frames (B, T N^2, 3 or 1, R / N, R / N), normalised, to logits (B, classes).

    Raises:
        ShapeError: the grid does not divide the resolution, or the frames are not whole tubelets.
        WeightsMissing: `spec.pretrained`, and the published weights cannot be had.
    """
    config = spec.config
    assert isinstance(config, Config)
    front, sizes = _front(spec, config), config.host_config
    hosted = replace(spec, config=sizes)
    if isinstance(sizes, EncoderConfig):
        video = FineTuned(sizes, hosted, temporal_conv=False)
        return VideoClassifier(hosted, video, sizes.encoder_width, rest="classifier", front=front)
    model: VideoMAE | FrameResNet
    if isinstance(sizes, VideoMAESizes):
        model = VideoMAE(hosted, sizes, front)
    else:
        assert isinstance(sizes, ResNetSizes)
        model = FrameResNet(hosted, sizes, front)
    if spec.pretrained:
        model.load(published(config))
    return model
