"""DiST: a temporal encoder and an integration branch beside a frozen CLIP (Qing et al. 2023, arXiv 2309.07911).

Reading, from the authors' released code and its configuration for Something-Something (384 channels of integration, 96 in time).

- A clip has twice the frames that CLIP sees: CLIP sees every `temporal_stride`-th, the temporal encoder all. What papers list as 8
  frames is a clip of 16 here; a last group of frames that is not full is filled with zeros.
- The temporal encoder starts with a 5 x P x P convolution, stride 1 in time. Each of its blocks is LayerNorm, 3 x 1 x 1 convolution,
  QuickGELU and 1 x 3 x 3 convolution with a residual, and QuickGELU after it.
- After every block of CLIP the integration branch takes CLIP's tokens, linearly, adds what its own last block gave, and adds the
  temporal features of the same frames (a convolution whose kernel and stride are `temporal_stride`, with a learned class token). Its
  block is the sum of an MLP and of a temporal bottleneck (a quarter of the channels, 3 frames), each after LayerNorm.
- The temporal encoder gets the integrated patches as they were before that addition, repeated in time. After the last block nothing
  reads it, so that map is not built.
- Pooling: two rounds; in each a learned token per frame reads its frame, and one of the clip reads those with learned embeddings
  of the frame's number. CLIP's class token, averaged over frames, is added before the last normalisation.
- The authors compare the result with the text embeddings of class names; here it goes to a linear classifier, with no text encoder
  and no 384 x 512 projection into its space.

At 16 x 224 with the 174 classes of Something-Something: 18.83 M trainable parameters and 161.9 G MACs for B/16 (19.0 M and 163 G
published), 32.24 M and 705.7 G for L/14 (32 M and 710 G).

The recipe is the authors', the same for Something-Something and Kinetics-400: 36 epochs of which 6 warm up. The learning rate is
their 3.2e-5 times 10 for new parts; their configuration has steps of 32 clips beside it. They flip Something-Something too, with
exchanged labels: here clips are flipped where that changes no label. Left out: grey clips (one in five), and what they optimise of
CLIP's own.
"""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from benchctl.layers.clip_input import ClipInput
from benchctl.layers.image_encoder import EncoderConfig, ImageEncoder
from benchctl.layers.pretrained import RANDOM, published
from benchctl.layers.query_decoder import QueryDecoder, QuickGELU
from benchctl.layers.time_conv import TimeConv
from benchctl.recipe import Recipe
from benchctl.spec import Attention, ModelSpec

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

# B batch, T frames of the clip, S frames that CLIP sees, N patches, P = prefix + N tokens of a frame,
# C encoder width, I integration width, D temporal width


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class TemporalBlock(nn.Module):
    """One block of the temporal encoder."""

    def __init__(self, width: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.norm = nn.LayerNorm(width)
        self.time = TimeConv(width, width)
        self.space = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.activation = QuickGELU()

    def forward(self, x_BTND: Tensor) -> Tensor:
        """(B, T, N, D) to the same shape."""
        timed = self.activation(self.time(self.norm(x_BTND)))
        images = timed.flatten(0, 1).unflatten(1, (self.grid, self.grid)).movedim(-1, 1)
        spaced = self.space(images).movedim(1, -1).reshape(x_BTND.shape)
        result: Tensor = self.activation(x_BTND + spaced)
        return result


class IntegrationBlock(nn.Module):
    """An MLP and a temporal bottleneck side by side; the residual is the caller's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, width), QuickGELU(), nn.Linear(width, width))
        self.temporal_norm = nn.LayerNorm(width)
        narrow = width // 4
        self.temporal = nn.Sequential(nn.Linear(width, narrow), TimeConv(narrow, narrow), QuickGELU(), nn.Linear(narrow, width))

    def forward(self, x_BSPI: Tensor) -> Tensor:
        """(B, S, P, I) to the same shape."""
        result: Tensor = self.mlp(self.norm(x_BSPI)) + self.temporal(self.temporal_norm(x_BSPI))
        return result


class TemporalToIntegration(nn.Module):
    """Temporal features of `stride` frames to tokens of one frame that CLIP sees, a learned token in the place of the class token."""

    def __init__(self, config: Config, frames: int, prefix_tokens: int) -> None:
        super().__init__()
        self.fill = frames * config.temporal_stride
        self.conv = TimeConv(config.temporal_width, config.integration_width, kernel=config.temporal_stride, stride=config.temporal_stride)
        self.token = nn.Parameter(torch.empty(frames, prefix_tokens, config.integration_width))
        nn.init.trunc_normal_(self.token, std=0.02)

    def forward(self, x_BTND: Tensor) -> Tensor:
        """(B, T, N, D) to (B, S, P, I)."""
        filled = F.pad(x_BTND, (0, 0, 0, 0, 0, self.fill - x_BTND.shape[1]))
        return torch.cat([self.token.expand(x_BTND.shape[0], -1, -1, -1), self.conv(filled)], dim=2)


class IntegrationToTemporal(nn.Module):
    """Integrated patches to temporal features: linear, each frame repeated `stride` times."""

    def __init__(self, config: Config, prefix_tokens: int) -> None:
        super().__init__()
        self.stride = config.temporal_stride
        self.prefix_tokens = prefix_tokens
        self.linear = nn.Linear(config.integration_width, config.temporal_width)

    def forward(self, x_BSPI: Tensor, frames: int) -> Tensor:
        """(B, S, P, I) to (B, T, N, D) with T = `frames`."""
        narrow: Tensor = self.linear(x_BSPI[:, :, self.prefix_tokens :])
        return narrow.repeat_interleave(self.stride, dim=1)[:, :frames]


class Pooling(nn.Module):
    """One round of pooling: tokens of frames read their frame, then the clip's token reads them."""

    def __init__(self, config: Config, frames: int, attention: Attention) -> None:
        super().__init__()
        width = config.integration_width
        self.space = QueryDecoder(width, config.integration_heads, attention, shared_norm=True)
        self.time = QueryDecoder(width, config.integration_heads, attention, shared_norm=True)
        self.position = nn.Parameter(torch.empty(frames, width))
        nn.init.trunc_normal_(self.position, std=0.02)
        for decoder in (self.space, self.time):
            decoder.attention.out.apply(_initialise)
            decoder.mlp.apply(_initialise)

    def forward(self, clip_B1I: Tensor, frames_BSI: Tensor, tokens_BSPI: Tensor) -> tuple[Tensor, Tensor]:
        """The clip's token (B, 1, I), the frames' (B, S, I) and what they read (B, S, P, I) to the first two, updated."""
        read = self.space(frames_BSI.flatten(0, 1).unsqueeze(1), tokens_BSPI.flatten(0, 1))
        frames_BSI = read.view_as(frames_BSI)
        return self.time(clip_B1I, frames_BSI + self.position), frames_BSI


class DiST(nn.Module):
    """CLIP, frozen, the temporal encoder, and the integration branch that reads both."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        config = spec.config
        assert isinstance(config, Config)
        self.stride = config.temporal_stride
        self.input = ClipInput(spec)
        self.encoder = encoder = ImageEncoder(config, spec, frozen=True)
        seen = -(-spec.shape.frames // self.stride)
        width, narrow, patch, blocks = config.integration_width, config.temporal_width, config.patch_size, range(len(encoder))
        self.stem = nn.Conv3d(3, narrow, (5, patch, patch), stride=(1, patch, patch), padding=(2, 0, 0))
        self.temporal = nn.ModuleList(TemporalBlock(narrow, encoder.grid) for _ in blocks)
        self.feeds = nn.ModuleList(nn.Linear(encoder.width, width) for _ in blocks)
        self.to_temporal = nn.ModuleList(IntegrationToTemporal(config, encoder.prefix_tokens) for _ in blocks[:-1])
        self.to_integration = nn.ModuleList(TemporalToIntegration(config, seen, encoder.prefix_tokens) for _ in blocks)
        self.integration = nn.ModuleList(IntegrationBlock(width) for _ in blocks)
        self.class_feed = nn.Linear(encoder.width, width)
        self.classifier = nn.Linear(width, spec.num_classes)
        trained = (self.stem, self.temporal, self.feeds, self.to_temporal, self.to_integration, self.integration)
        for part in (*trained, self.class_feed, self.classifier):
            part.apply(_initialise)
        self.clip_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, width), std=0.02))
        self.frame_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, width), std=0.02))
        self.pooling = nn.ModuleList(Pooling(config, seen, encoder.kernel) for _ in range(config.pooling_layers))
        self.norm = nn.LayerNorm(width)

    @property
    def weights(self) -> str:
        """Where the weights come from."""
        return RANDOM if self.encoder.weights == RANDOM else f"{self.encoder.weights}, temporal encoder and integration {RANDOM}"

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """(B, T, 3, H, W) to logits (B, classes)."""
        clip_BTCHW = self.input(clip_BTCHW)
        integrated_BSPI, class_BI = self._integrate(clip_BTCHW)
        shape = integrated_BSPI.shape[:2]
        clip_B1I, frames_BSI = self.clip_token.expand(shape[0], -1, -1), self.frame_token.expand(*shape, -1)
        for pooling in self.pooling:
            clip_B1I, frames_BSI = pooling(clip_B1I, frames_BSI, integrated_BSPI)
        logits: Tensor = self.classifier(self.norm(clip_B1I[:, 0] + class_BI))
        return logits

    def _integrate(self, clip_BTCHW: Tensor) -> tuple[Tensor, Tensor]:
        """The integration branch's last tokens (B, S, P, I), and CLIP's class token averaged over frames and projected (B, I)."""
        frames, seen_BSCHW = clip_BTCHW.shape[1], clip_BTCHW[:, :: self.stride]
        temporal_BTND = self.stem(clip_BTCHW.transpose(1, 2)).flatten(3).movedim(1, -1)
        given_BSPI, last = None, len(self.encoder) - 1
        for index, tokens in enumerate(self.encoder.features(seen_BSCHW.flatten(0, 1))):
            tokens_BSPC = tokens.unflatten(0, seen_BSCHW.shape[:2])
            temporal_BTND = self.temporal[index](temporal_BTND)
            before_BSPI = self.feeds[index](tokens_BSPC)
            if given_BSPI is not None:
                before_BSPI = before_BSPI + given_BSPI
            mixed_BSPI = before_BSPI + self.to_integration[index](temporal_BTND)
            given_BSPI = self.integration[index](mixed_BSPI)
            if index < last:
                temporal_BTND = temporal_BTND + self.to_temporal[index](before_BSPI, frames)
        return mixed_BSPI + given_BSPI, self.class_feed(tokens_BSPC[:, :, 0].mean(dim=1))


class Config(EncoderConfig):
    """Sizes of one DiST."""

    integration_width: PositiveInt = 384
    #: of the attention that pools
    integration_heads: PositiveInt = 6
    temporal_width: PositiveInt = 96
    #: frames of the clip per frame that the image encoder sees
    temporal_stride: PositiveInt = 2
    #: rounds of pooling
    pooling_layers: PositiveInt = 2

    @model_validator(mode="after")
    def _widths_divide(self) -> Self:
        if self.integration_width % self.integration_heads:
            raise ValueError(f"integration width {self.integration_width} is not a multiple of {self.integration_heads} heads")
        if self.integration_width % 4:
            raise ValueError(f"integration width {self.integration_width} is not a multiple of 4, for its temporal bottleneck")
        return self

    def counted_frames(self, frames: int) -> int:
        """Those that the image encoder sees."""
        return frames // self.temporal_stride


PRESETS: dict[str, dict[str, Any]] = {
    "dist-b": {"encoder": "clip-b16"},
    "dist-l": {"encoder": "clip-l14"},
    "dist-tiny": {
        "encoder_width": 96,
        "encoder_layers": 4,
        "encoder_heads": 3,
        "integration_width": 48,
        "integration_heads": 3,
        "temporal_width": 16,
    },
}

RECIPE = Recipe(
    optimizer="adamw",
    learning_rate=3.2e-4,
    weight_decay=1e-4,
    warmup_fraction=6 / 36,
    label_smoothing=0.1,
    sampling="segment",
    flip="if-safe",
    crop_scale=0.4,
    mixup=0.8,
    cutmix=1.0,
    eval_clips=3,
    eval_crops=1,
    epochs=36,
    batch_size=32,
)


def build(spec: ModelSpec) -> DiST:
    """The model for `spec`: clips (B, T, 3, H, W), normalised by MEAN and STD, to logits (B, classes).

    Raises:
        WeightsMissing: `spec.pretrained`, and the published weights cannot be had.
    """
    model = DiST(spec)
    if spec.pretrained:
        model.encoder.load(published(spec.config))
    return model
