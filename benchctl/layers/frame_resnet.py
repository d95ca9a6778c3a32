"""A residual network for images (He et al. 2016) over the frames of a clip, as timm has it."""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveInt
from torch import Tensor, nn

from benchctl.layers.clip_input import ClipInput
from benchctl.layers.pretrained import RANDOM, load_pretrained
from benchctl.spec import Attention, MethodConfig, ModelSpec


class ResNetSizes(MethodConfig):
    """Base of the `Config` of methods with an image ResNet; the default is ResNet-50."""

    ATTENTION: ClassVar[tuple[Attention, ...]] = ("none",)

    #: what the last stage makes one feature of: frames are padded to whole ones
    patch_size: PositiveInt = 32
    #: bottleneck blocks of each stage
    blocks: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (3, 4, 6, 3)
    #: channels of a block's 3 x 3 convolution in each stage; the stem has 64, whatever these are
    channels: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (64, 128, 256, 512)


class FrameResNet(nn.Module):
    """Each frame is classified by itself; a clip's logits are the mean over its frames. With one frame, the single-frame floor.

    Args:
        spec: shape and classes.
        sizes: of the network.
        front: checks and prepares what the model is given; None: frames as they are.
    """

    def __init__(self, spec: ModelSpec, sizes: ResNetSizes, front: nn.Module | None = None) -> None:
        super().__init__()
        from timm.models.resnet import Bottleneck, ResNet

        sizes.attention(spec.attention)  # raises where one is asked for
        self.input = front or ClipInput(spec)
        self.image = ResNet(Bottleneck, layers=sizes.blocks, num_classes=spec.num_classes, channels=sizes.channels)
        self.weights = RANDOM

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """Clips to logits (B, classes)."""
        clip = self.input(clip_BTCHW)
        logits: Tensor = self.image(clip.flatten(0, 1)).unflatten(0, clip.shape[:2]).mean(1)
        return logits

    def load(self, hub_id: str) -> None:
        """Load published weights; raises WeightsMissing as `load_pretrained`."""
        self.weights = load_pretrained(self.image, hub_id, head="fc")
