"""ST-Adapter: spatio-temporal adapters inside a frozen CLIP (Pan et al. 2022, arXiv 2206.13559).

Reading. An adapter is linear down to 384 channels, depth-wise 3 x 1 x 1 convolution, linear up, added to the patches; the class
token passes by. No activation stands between, as in the authors' released code. One adapter before the attention of every block:
with the 174 classes of Something-Something, 8 x 224, 7.24 M trainable parameters and 151.6 G MACs for B/16, 19.12 M and 686.8 G for
L/14, which are the costs (455 G and 2062 G over 3 views, 7 M) under which later papers list the method; they print 20 M for L/14.
`adapters: [attention, mlp]` is the released script for Something-Something, with two adapters in every block and 14.35 M. The
convolution starts at zero, so the model starts as CLIP. As released, class tokens are averaged over the frames before the final
normalisation, which is not trained, and dropout 0.5 stands before the classifier.

The recipe is that script's: 50 epochs of which 2 warm up, the learning rate being for 256 clips; and the one for Kinetics-400, 12
epochs of dense clips with flips and without RandAugment, whose crops are of frames scaled by 1 to 1.15 (ours: 1.14 to 1.43).
"""

from __future__ import annotations

from typing import Any, Literal, Self

import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from benchctl.layers.clip_input import ClipInput
from benchctl.layers.image_encoder import EncoderConfig, ImageEncoder
from benchctl.layers.pretrained import RANDOM, published
from benchctl.layers.time_conv import TimeConv
from benchctl.recipe import Recipe
from benchctl.spec import ModelSpec

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

# B batch, T frames, P tokens of a frame (class token first, then patches), C encoder width

Position = Literal["attention", "mlp"]


class Adapter(nn.Module):
    """Linear, depth-wise convolution over 3 frames, linear, as a residual on the patches; the identity at the start."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.conv = TimeConv(bottleneck, bottleneck, depthwise=True)
        self.up = nn.Linear(bottleneck, width)
        for start in (self.down.bias, self.conv.weight, self.conv.bias, self.up.bias):
            assert start is not None
            nn.init.zeros_(start)

    def forward(self, tokens_BTPC: Tensor, prefix_tokens: int) -> Tensor:
        """(B, T, P, C) to the same shape; the first `prefix_tokens` of a frame come back as they are."""
        change = self.up(self.conv(self.down(tokens_BTPC[:, :, prefix_tokens:])))
        return tokens_BTPC + F.pad(change, (0, 0, prefix_tokens, 0))


class STAdapter(nn.Module):
    """CLIP, frozen, with adapters in its blocks and a classifier."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        config = spec.config
        assert isinstance(config, Config)
        self.input = ClipInput(spec)
        self.encoder = ImageEncoder(config, spec, frozen=True, final_norm=True)
        self.first = config.first_block
        count = len(self.encoder) - self.first
        self.adapters = nn.ModuleDict(
            {where: nn.ModuleList(Adapter(self.encoder.width, config.bottleneck) for _ in range(count)) for where in config.adapters}
        )
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(self.encoder.width, spec.num_classes)
        nn.init.normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    @property
    def weights(self) -> str:
        """Where the weights come from."""
        return RANDOM if self.encoder.weights == RANDOM else f"{self.encoder.weights}, adapters and classifier {RANDOM}"

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """(B, T, 3, H, W) to logits (B, classes)."""
        clip_BTCHW = self.input(clip_BTCHW)
        frames = clip_BTCHW.shape[1]
        tokens = self.encoder.embed(clip_BTCHW.flatten(0, 1))
        for index in range(len(self.encoder)):
            attention_norm, mlp_norm = self.encoder.norms(index)
            tokens = self._adapt("attention", index, tokens, frames)
            tokens = tokens + self.encoder.attention(index, attention_norm(tokens))
            tokens = self._adapt("mlp", index, tokens, frames)
            tokens = tokens + self.encoder.mlp(index, mlp_norm(tokens))
        pooled = tokens[:, 0].unflatten(0, (-1, frames)).mean(dim=1)
        logits: Tensor = self.classifier(self.dropout(self.encoder.norm(pooled)))
        return logits

    def _adapt(self, where: Position, index: int, tokens_NPC: Tensor, frames: int) -> Tensor:
        if where not in self.adapters or index < self.first:
            return tokens_NPC
        adapters = self.adapters[where]
        assert isinstance(adapters, nn.ModuleList)
        adapted: Tensor = adapters[index - self.first](tokens_NPC.unflatten(0, (-1, frames)), self.encoder.prefix_tokens)
        return adapted.flatten(0, 1)


class Config(EncoderConfig):
    """Sizes of one ST-Adapter."""

    #: channels of the depth-wise convolution
    bottleneck: PositiveInt = 384
    #: what an adapter stands before, in a block
    adapters: tuple[Position, ...] = Field(("attention",), min_length=1)
    #: first block with adapters, counted from 0; those before it run without a graph
    first_block: NonNegativeInt = 0
    #: before the classifier
    dropout: float = Field(0.5, ge=0, lt=1)

    @model_validator(mode="after")
    def _adapters_have_places(self) -> Self:
        if self.first_block >= self.encoder_layers:
            raise ValueError(f"first_block {self.first_block} is beyond the last of {self.encoder_layers} encoder layers")
        if len(set(self.adapters)) < len(self.adapters):
            raise ValueError("adapters names one place twice")
        return self


PRESETS: dict[str, dict[str, Any]] = {
    "st-adapter-b": {"encoder": "clip-b16"},
    "st-adapter-l": {"encoder": "clip-l14"},
    "st-adapter-tiny": {"encoder_width": 96, "encoder_layers": 4, "encoder_heads": 3, "bottleneck": 48, "dropout": 0.0},
}

RECIPE = Recipe(
    optimizer="adamw",
    learning_rate=1e-3,
    weight_decay=1e-2,
    warmup_fraction=2 / 50,
    sampling="segment",
    crop_scale=0.08,
    rand_augment="rand-m7-n4-mstd0.5-inc1",
    eval_clips=1,
    eval_crops=3,
    epochs=50,
    batch_size=256,
)

RECIPES: dict[str, dict[str, Any]] = {
    "kinetics400": {
        "warmup_fraction": 2 / 12,
        "sampling": "dense",
        "frame_stride": 16,
        "flip": "if-safe",
        "crop_scale": None,
        "rand_augment": None,
        "eval_clips": 3,
        "eval_crops": 1,
        "epochs": 12,
    },
}


def build(spec: ModelSpec) -> STAdapter:
    """The model for `spec`: clips (B, T, 3, H, W), normalised by MEAN and STD, to logits (B, classes).

    Raises:
        WeightsMissing: `spec.pretrained`, and the published weights cannot be had.
    """
    model = STAdapter(spec)
    if spec.pretrained:
        model.encoder.load(published(spec.config))
    return model
