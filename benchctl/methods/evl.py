"""EVL: a decoder that reads frozen CLIP features, layer by layer (Lin et al. 2022, arXiv 2208.03550).

Reading, from the authors' released code. A learned query goes through one decoder layer for each of the encoder's last blocks, and
reads the tokens of all frames of that block. Before that, three things are added to the tokens: a depth-wise temporal convolution
of them, a learned embedding of the frame's number, and, to the patches, temporal cross-attention: the encoder's own queries of a
frame are matched with its own keys of the frame before (and of the one after), and the attention, averaged over heads, weights
vectors that depend on the offset between the two patches only. The two tables of those vectors, (2 grid - 1)^2 x C each, start at
zero. Decoder layers have the encoder's width and heads, dropout 0.5 in the MLP and before the classifier. The query starts at
N(0, 0.02), which the released code defines and does not call.

At 8 x 224 with the 174 classes of Something-Something: 98.76 M trainable parameters and 172.9 G MACs for B/16 with 12 decoder
layers, 350.07 M and 797.2 G for L/14 with 24. Later papers list the method with 350 M and 2411 G over 3 views for L/14, which is
0.8 % more than here, and with 89 M and 512 G for B/16, which is 10 % and 1.3 % less; no number of decoder layers gives both.

The recipe is the released one for Kinetics-400: 50,000 steps of 256 clips, which are 53 epochs of its 240,436 videos. For
Something-Something frames come from the whole video, without flips and with the paper's views; for how long it trains there was not
found.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from benchctl.layers.clip_input import ClipInput
from benchctl.layers.image_encoder import EncoderConfig, ImageEncoder
from benchctl.layers.pretrained import RANDOM, published
from benchctl.layers.query_decoder import QueryDecoder
from benchctl.layers.time_conv import TimeConv
from benchctl.recipe import Recipe
from benchctl.spec import ModelSpec

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

# B batch, T frames, N patches of a frame, P = prefix + N tokens of a frame, C encoder width, H heads, E channels of a head, G grid


@torch.no_grad()
def mean_attention(query_MHNE: Tensor, key_MHNE: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(E)), averaged over heads, without a graph.

    Args:
        query_MHNE: (M, H, N, E), M pairs of frames.
        key_MHNE: (M, H, N, E).

    Returns:
        (M, N, N): for each query patch, one weight per key patch.
    """
    scale, heads = query_MHNE.shape[-1] ** -0.5, query_MHNE.shape[1]
    total = query_MHNE.new_zeros(())
    # one head at a time: the matrices of all heads at once would be the largest tensor of the model
    for head in range(heads):
        total = total + (query_MHNE[:, head] * scale @ key_MHNE[:, head].transpose(1, 2)).softmax(dim=-1)
    return total / heads


def sum_over_offsets(attention_MNN: Tensor, table_OC: Tensor, grid: int) -> Tensor:
    """For each query patch, the attention-weighted sum of the vectors that belong to the offsets to the key patches.

    Out[m, q] = sum over k of attention[m, q, k] * table[offset(q - k)], where the offset of rows i and columns j is entry
    (i + G - 1) (2 G - 1) + j + G - 1 of the table.

    Args:
        attention_MNN: (M, N, N), query patches then key patches, both in rows.
        table_OC: ((2 G - 1)^2, C).
        grid: G, patches along a side; N = G^2.

    Returns:
        (M, N, C).
    """
    table = table_OC.unflatten(0, (2 * grid - 1, 2 * grid - 1))
    # with keys in reverse order, the vectors of query (i, j) are the G x G window of the table at (i, j)
    reversed_keys = attention_MNN.flip(-1)
    rows = []
    # one row of queries at a time: windows overlap, and all of them at once hold the table G^2 / 4 times over
    for i in range(grid):
        windows = table[i : i + grid].unfold(1, grid, 1).permute(1, 0, 3, 2).flatten(1, 2)
        rows.append(torch.einsum("mqk,qkc->mqc", reversed_keys[:, i * grid : (i + 1) * grid], windows))
    return torch.cat(rows, dim=1)


class TemporalCrossAttention(nn.Module):
    """What the frames before and after say about motion: attention between frames, read through tables of offsets."""

    def __init__(self, grid: int, width: int) -> None:
        super().__init__()
        self.grid = grid
        self.before = nn.Parameter(torch.zeros((2 * grid - 1) ** 2, width))
        self.after = nn.Parameter(torch.zeros((2 * grid - 1) ** 2, width))

    def forward(self, query_BTHNE: Tensor, key_BTHNE: Tensor) -> Tensor:
        """The encoder's queries and keys of the patches, (B, T, H, N, E), to (B, T, N, C).

        The first frame has none before it and the last none after it: nothing is added for those.
        """
        before = self._half(query_BTHNE[:, 1:], key_BTHNE[:, :-1], self.before)
        after = self._half(query_BTHNE[:, :-1], key_BTHNE[:, 1:], self.after)
        return F.pad(before, (0, 0, 0, 0, 1, 0)) + F.pad(after, (0, 0, 0, 0, 0, 1))

    def _half(self, query_BTHNE: Tensor, key_BTHNE: Tensor, table_OC: Tensor) -> Tensor:
        attention_MNN = mean_attention(query_BTHNE.flatten(0, 1), key_BTHNE.flatten(0, 1))
        read = sum_over_offsets(attention_MNN, table_OC, self.grid)
        return read.unflatten(0, query_BTHNE.shape[:2])


class Reader(nn.Module):
    """One decoder layer with what it adds to the tokens it reads."""

    def __init__(self, encoder: ImageEncoder, config: Config, frames: int) -> None:
        super().__init__()
        width = encoder.width
        self.prefix_tokens = encoder.prefix_tokens
        self.conv = TimeConv(width, width, depthwise=True)
        self.position = nn.Parameter(torch.zeros(frames, 1, width))
        self.cross_attention = TemporalCrossAttention(encoder.grid, width)
        self.decoder = QueryDecoder(width, config.encoder_heads, encoder.kernel, dropout=config.dropout)

    def forward(self, query_B1C: Tensor, tokens_BTPC: Tensor, query_BTHPE: Tensor, key_BTHPE: Tensor) -> Tensor:
        """The learned query (B, 1, C), and of one block its tokens and its attention's queries and keys, to (B, 1, C)."""
        prefix = self.prefix_tokens
        motion = self.cross_attention(query_BTHPE[:, :, :, prefix:], key_BTHPE[:, :, :, prefix:])
        tokens_BTPC = tokens_BTPC + self.conv(tokens_BTPC) + self.position + F.pad(motion, (0, 0, prefix, 0))
        read: Tensor = self.decoder(query_B1C, tokens_BTPC.flatten(1, 2))
        return read


class EVL(nn.Module):
    """CLIP, frozen, and the decoder that reads its last blocks."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        config = spec.config
        assert isinstance(config, Config)
        self.input = ClipInput(spec)
        self.encoder = ImageEncoder(config, spec, frozen=True)
        self.query = nn.Parameter(torch.randn(1, 1, self.encoder.width) * 0.02)
        self.readers = nn.ModuleList(Reader(self.encoder, config, spec.shape.frames) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(self.encoder.width)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(self.encoder.width, spec.num_classes)

    @property
    def weights(self) -> str:
        """Where the weights come from."""
        return RANDOM if self.encoder.weights == RANDOM else f"{self.encoder.weights}, decoder {RANDOM}"

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """(B, T, 3, H, W) to logits (B, classes)."""
        clip_BTCHW = self.input(clip_BTCHW)
        shape = clip_BTCHW.shape[:2]
        first = len(self.encoder) - len(self.readers)
        read = self.query.expand(shape[0], -1, -1)
        with queries_and_keys(self.encoder, first) as latest:
            for index, tokens in enumerate(self.encoder.features(clip_BTCHW.flatten(0, 1))):
                if index >= first:
                    block = (tokens, latest["query"], latest["key"])
                    read = self.readers[index - first](read, *(x.unflatten(0, shape) for x in block))
        logits: Tensor = self.classifier(self.dropout(self.norm(read[:, 0])))
        return logits


@contextmanager
def queries_and_keys(encoder: ImageEncoder, first: int) -> Iterator[dict[str, Tensor]]:
    """While this is open, `query` and `key` of the attention that ran last, each (N, H, P, E), are in what it gives.

    Args:
        encoder: one without rotary positions, whose blocks apply their positions after this.
        first: block from which on attention is watched.
    """
    latest: dict[str, Tensor] = {}
    with ExitStack() as watched:
        for block in encoder.vit.blocks[first:]:
            # these two modules, identities in CLIP, are what timm passes queries and keys through, split into heads
            for name, module in (("query", block.attn.q_norm), ("key", block.attn.k_norm)):
                watched.enter_context(_watch(module, name, latest))
        yield latest


def _watch(module: nn.Module, name: str, into: dict[str, Tensor]) -> Any:
    def keep(_module: nn.Module, _given: tuple[Tensor, ...], output: Tensor) -> None:
        into[name] = output

    return module.register_forward_hook(keep)


class Config(EncoderConfig):
    """Sizes of one EVL."""

    #: the encoder's last blocks, each of which is read by one decoder layer
    decoder_layers: PositiveInt = 12
    #: in the decoder's MLPs and before the classifier
    dropout: float = Field(0.5, ge=0, lt=1)

    @model_validator(mode="after")
    def _blocks_can_be_read(self) -> Self:
        if self.decoder_layers > self.encoder_layers:
            raise ValueError(f"{self.decoder_layers} decoder layers cannot read {self.encoder_layers} encoder layers")
        if self.encoder.startswith("eva-"):
            raise ValueError(f"encoder '{self.encoder}' has rotary positions: its queries and keys mean nothing between frames")
        return self


PRESETS: dict[str, dict[str, Any]] = {
    "evl-b": {"encoder": "clip-b16"},
    "evl-l": {"encoder": "clip-l14", "decoder_layers": 24},
    "evl-tiny": {"encoder_width": 96, "encoder_layers": 4, "encoder_heads": 3, "decoder_layers": 2, "dropout": 0.0},
}

RECIPE = Recipe(
    optimizer="adamw",
    learning_rate=4e-4,
    weight_decay=0.05,
    warmup_fraction=0.0,
    sampling="dense",
    frame_stride=16,
    flip="if-safe",
    crop_scale=0.08,
    rand_augment="rand-m7-n4-mstd0.5-inc1",
    eval_clips=3,
    eval_crops=1,
    epochs=53,
    batch_size=256,
)

RECIPES: dict[str, dict[str, Any]] = {
    "ssv2": {"sampling": "uniform", "eval_clips": 1, "eval_crops": 3, "epochs": None},
}


def build(spec: ModelSpec) -> EVL:
    """The model for `spec`: clips (B, T, 3, H, W), normalised by MEAN and STD, to logits (B, classes).

    Raises:
        WeightsMissing: `spec.pretrained`, and the published weights cannot be had.
    """
    model = EVL(spec)
    if spec.pretrained:
        model.encoder.load(published(spec.config))
    return model
