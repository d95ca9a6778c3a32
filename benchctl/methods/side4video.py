"""Side4Video: a spatial-temporal side network beside a frozen CLIP (Yao et al. 2023, arXiv 2311.15769).

Reading. Blocks and tokenizer as `benchctl.layers.side_network` states; a T-Block after every block of the encoder; after the last,
batch normalisation, mean over all positions, one linear classifier. CLIP's own activation (QuickGELU) is kept. This gives, at
8 x 224 with the 174 classes of Something-Something, 21.11 M trainable parameters and 175.97 G MACs for B/16 with side width 320, and
102.1 M and about 870 G for L/14 with side width 512: the paper's figures. Side width 192 and 6 T-Blocks, after every second block of
B/16, are the baseline of MOSS-S: 4.53 M and 148.37 G.

The recipe is the authors' for Something-Something with B/16 and 128 clips a step; L/14 trains with a learning rate of 1e-4 there.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from benchctl.layers.attention import BACKENDS
from benchctl.layers.clip_input import ClipInput
from benchctl.layers.frozen_encoder import FrozenEncoder
from benchctl.layers.pretrained import RANDOM, published
from benchctl.layers.side_network import ChannelsLastBatchNorm, SideFeed, SideShape, SideTokenizer, TBlock, position_embedding
from benchctl.spec import Attention, MethodConfig, ModelSpec, Recipe

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

# B batch, T frames, N patches of a frame, P = 1 + N tokens of a frame, C encoder width, D side width


class Side4Video(nn.Module):
    """CLIP, frozen, and the side network that reads it."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        config = spec.config
        assert isinstance(config, Config)
        attention = config.attention(spec.attention)
        self.every = config.encoder_layers // config.side_layers
        self.input = ClipInput(spec)
        self.encoder = FrozenEncoder(
            config.encoder,
            resolution=spec.padded_resolution,
            blocks=config.encoder_layers,
            attention=attention,
            patch_size=config.patch_size,
            embed_dim=config.encoder_width,
            num_heads=config.encoder_heads,
        )
        side = SideShape(config.side_width, config.side_heads, config.side_layers, config.encoder_width)
        self.tokenizer = SideTokenizer(side.width, config.patch_size)
        self.position = position_embedding((spec.padded_resolution // config.patch_size) ** 2, side.width)
        self.feeds = nn.ModuleList(SideFeed(side) for _ in range(side.blocks))
        self.blocks = nn.ModuleList(TBlock(side, attention) for _ in range(side.blocks))
        self.norm = ChannelsLastBatchNorm(side.width)
        self.classifier = nn.Linear(side.width, spec.num_classes)

    @property
    def weights(self) -> str:
        """Where the weights come from."""
        return RANDOM if self.encoder.weights == RANDOM else f"{self.encoder.weights}, side network {RANDOM}"

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """(B, T, 3, H, W) to logits (B, classes)."""
        clip_BTCHW = self.input(clip_BTCHW)
        side_BTND = self.tokenizer(clip_BTCHW)
        features = self.encoder.features(clip_BTCHW.flatten(0, 1), every=self.every)
        for feed, block, tokens in zip(self.feeds, self.blocks, features, strict=True):
            fed_BTPD = feed(tokens.unflatten(0, clip_BTCHW.shape[:2]))
            side_BTND = block((side_BTND + fed_BTPD[:, :, 1:]) / 2, fed_BTPD[:, :, 0], self.position)
        logits: Tensor = self.classifier(self.norm(side_BTND).mean(dim=(1, 2)))
        return logits


class Config(MethodConfig):
    """Sizes of one Side4Video."""

    ATTENTION: ClassVar[tuple[Attention, ...]] = BACKENDS

    #: timm architecture of the frozen encoder; the three sizes below are set on it
    encoder: str = "vit_base_patch16_clip_quickgelu_224"
    encoder_width: PositiveInt = 768
    encoder_layers: PositiveInt = 12
    encoder_heads: PositiveInt = 12
    side_width: PositiveInt = 320
    #: T-Blocks, spread evenly over the encoder's blocks
    side_layers: PositiveInt = 12
    side_heads: PositiveInt = 5

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.encoder_layers % self.side_layers:
            raise ValueError(f"{self.encoder_layers} encoder layers cannot be shared evenly by {self.side_layers} side layers")
        for width, heads in ((self.encoder_width, self.encoder_heads), (self.side_width, self.side_heads)):
            if width % heads:
                raise ValueError(f"width {width} is not a multiple of {heads} heads")
        return self


PRESETS: dict[str, dict[str, Any]] = {
    "side4video-b": {"weights": "timm/vit_base_patch16_clip_224.openai"},
    "side4video-l": {
        "weights": "timm/vit_large_patch14_clip_224.openai",
        "patch_size": 14,
        "encoder": "vit_large_patch14_clip_quickgelu_224",
        "encoder_width": 1024,
        "encoder_layers": 24,
        "encoder_heads": 16,
        "side_width": 512,
        "side_layers": 24,
        "side_heads": 8,
    },
    "side4video-tiny": {"encoder_width": 96, "encoder_layers": 4, "encoder_heads": 3, "side_width": 96, "side_layers": 2, "side_heads": 3},
}

RECIPE = Recipe(
    optimizer="adamw",
    learning_rate=1e-3,
    weight_decay=0.15,
    warmup_fraction=4 / 40,
    label_smoothing=0.1,
    sampling="segment",
    eval_clips=2,
    eval_crops=3,
)


def build(spec: ModelSpec) -> Side4Video:
    """The model for `spec`: clips (B, T, 3, H, W), normalised by MEAN and STD, to logits (B, classes).

    Raises:
        WeightsMissing: `spec.pretrained`, and the published weights cannot be had.
    """
    model = Side4Video(spec)
    if spec.pretrained:
        model.encoder.load(published(spec.config))
    return model
