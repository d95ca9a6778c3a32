"""MOOSE: optical flow beside vision, each frame fused with the motion that leaves it.

Source: "MOOSE: Pay Attention to Temporal Dynamics for Video Understanding via Optical Flows"; equations and tables are its own.

Reading. A clip of T frames makes T - 1 units: unit t holds frame t, as a frozen DINOv2 ViT-B/14 with registers sees it, and the
optical flow from frame t to t + 1, as a small ViT sees it that is trained from scratch (12 layers, 192 wide, 3 heads, patch 14, two
channels). So nine frames are the paper's eight. Flow is given to the ViT in patches a frame: pixels over the patch size.

Fusion is one bidirectional cross-attention with 12 heads of 96: queries and keys of a modality are one projection (the shared QK of
the work that the paper cites, and Algorithm 3's `to_qk`), so what a frame says about its flow and the flow about its frame are the
two softmaxes of one product. Its parameters, with a classifier of 400 classes, make the printed totals: 101.01 M with averaged units
and 104.70 M with causal attention, one biased multi-head attention of width 960 = 768 + 192 (3.69 M), with DINOv2 at its native 518
pixels and RAFT-large counted. Flow prior (equation 1) and visual prior (equation 2) are either half of it.

Arrow masking (Section 3.1): a patch attends its own counterpart and the other modality's class token; class tokens see everything. The
paper has class tokens make the decision, and with one fusion layer what patches attend then reaches nothing: it is computed only
where it is read, with `readout: mean`, which averages all tokens. `arrow: false` lets patches see everything (Figure 5, left).

A clip's embedding is the mean over units; with causal attention (equation 4) or Mamba, of what each unit makes of those up to it. With
causal attention only the mask tells earlier from later: the paper names no position embedding.

Costs at 9 x 224: 206.7 G and, with RAFT-large in the model, 494.5 G. The printed 297.3 G, which is said to hold RAFT, is neither: eight
pairs of frames through RAFT-large with its 12 updates are 287.8 G (318 G where every update makes a mask, as torchvision does).

The recipe is the paper's (Section A.5): 20 epochs, 96 clips a step, random crops and flips. Of its two learning rates it is the
first, 5e-3; the other, 1e-3, stands under its equation 9. The paper stops early, after 10 epochs without improvement: here a budget
is spent.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Self

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from benchctl.errors import MissingError, WeightsMissing
from benchctl.layers import flow as flows
from benchctl.layers.attention import MultiHeadAttention, attend
from benchctl.layers.clip_input import ClipInput
from benchctl.layers.flow import FlowEstimator
from benchctl.layers.image_encoder import EncoderConfig, EncoderName, ImageEncoder
from benchctl.layers.pretrained import RANDOM, published
from benchctl.layers.selective_scan import Mamba, Scan, package_installed
from benchctl.recipe import Recipe
from benchctl.spec import Attention, ClipFlow, FlowEstimatorName, ModelSpec, Task
from benchctl.vocabulary import ClipShape

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# B batch, U units, N = B x U, P patches of a unit, Q = 1 + P tokens, C or D channels, H heads, W channels of a head

Fusion = Literal["bidirectional", "flow-prior", "visual-prior"]
Aggregation = Literal["mean", "causal", "mamba"]
Readout = Literal["class", "mean"]

#: images of 224 x 224 that the frozen encoder sees at a time; larger ones, fewer
IMAGES_AT_ONCE = 128


class Looked(NamedTuple):
    """What one clip's patches attend, for a picture: each patch's weight on the other modality's class token, and the flow."""

    #: (heads, U, h, w) of frames over flow; None where the fusion has no such side
    spatial: Tensor | None
    #: (heads, U, h, w) of flow over frames; None where the fusion has no such side
    temporal: Tensor | None
    #: (U, 2, H, W), in pixels
    flow: Tensor


class CrossModalFusion(nn.Module):
    """Tokens of two modalities, class token first, to the embedding of their unit (equations 1 to 3).

    Args:
        visual: channels of a visual token.
        motion: channels of a flow token.
        config: kind of fusion, heads, width inside, mask and readout.
        attention: backend.

    Attributes:
        width: channels of a unit: visual, motion, or both.
    """

    def __init__(self, visual: int, motion: int, config: Config, attention: Attention) -> None:
        super().__init__()
        self.heads = config.fusion_heads
        self.arrow = config.arrow
        self.readout = config.readout
        self.attention = attention
        self.sides: list[str] = {"bidirectional": ["visual", "motion"], "flow-prior": ["visual"], "visual-prior": ["motion"]}[config.fusion]
        widths = {"visual": visual, "motion": motion}
        inner = config.fusion_width
        self.query_key = nn.ModuleDict({name: nn.Linear(width, inner, bias=False) for name, width in widths.items()})
        self.value = nn.ModuleDict({_other(side): nn.Linear(widths[_other(side)], inner, bias=False) for side in self.sides})
        self.out = nn.ModuleDict({side: nn.Linear(inner, widths[side]) for side in self.sides})
        self.width = sum(widths[side] for side in self.sides)

    def forward(self, visual_NQC: Tensor, motion_NQC: Tensor) -> Tensor:
        """(N, Q, visual) and (N, Q, motion) to (N, width)."""
        tokens = {"visual": visual_NQC, "motion": motion_NQC}
        query_key = self._query_keys(tokens)
        return torch.cat([self._read(side, tokens, query_key) for side in self.sides], dim=-1)

    def to_class(self, visual_NQC: Tensor, motion_NQC: Tensor) -> dict[str, Tensor]:
        """Each side's weight of a patch on the other side's class token: (N, H, P), between 0 and 1."""
        query_key = self._query_keys({"visual": visual_NQC, "motion": motion_NQC})
        return {side: self._patch_weights(query_key[side], query_key[_other(side)])[..., 0] for side in self.sides}

    def _query_keys(self, tokens: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: self._split(self.query_key[name](given)) for name, given in tokens.items()}

    def _split(self, x_NQD: Tensor) -> Tensor:
        return x_NQD.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _read(self, side: str, tokens: dict[str, Tensor], query_key: dict[str, Tensor]) -> Tensor:
        query, key = query_key[side], query_key[_other(side)]
        value = self._split(self.value[_other(side)](tokens[_other(side)]))
        own = tokens[side]
        if self.readout == "class":
            # what the other tokens attend reaches nothing
            query, own = query[:, :, :1], own[:, :1]
        if self.arrow and self.readout == "mean":
            seen = torch.cat([attend(query[:, :, :1], key, value, self.attention), self._along_arrows(query, key, value)], dim=2)
        else:
            seen = attend(query, key, value, self.attention)
        fused: Tensor = own + self.out[side](seen.transpose(1, 2).flatten(2))
        return fused.mean(dim=1)

    def _along_arrows(self, query_NHQW: Tensor, key_NHQW: Tensor, value_NHQW: Tensor) -> Tensor:
        """What patches see of the other modality's class token and of their counterpart: (N, H, P, W)."""
        weights = self._arrow_weights(query_NHQW, key_NHQW)
        return weights[..., :1] * value_NHQW[:, :, :1] + weights[..., 1:] * value_NHQW[:, :, 1:]

    @staticmethod
    def _arrow_weights(query_NHQW: Tensor, key_NHQW: Tensor) -> Tensor:
        """(N, H, P, 2): softmax over the class token and the counterpart. Two products a patch, where a masked one has Q."""
        query = query_NHQW[:, :, 1:] * query_NHQW.shape[-1] ** -0.5
        class_score = query @ key_NHQW[:, :, :1].transpose(-2, -1)
        own_score = torch.einsum("nhpw,nhpw->nhp", query, key_NHQW[:, :, 1:])
        return torch.cat([class_score, own_score.unsqueeze(-1)], dim=-1).softmax(dim=-1)

    def _patch_weights(self, query_NHQW: Tensor, key_NHQW: Tensor) -> Tensor:
        if self.arrow:
            return self._arrow_weights(query_NHQW, key_NHQW)
        return (query_NHQW[:, :, 1:] * query_NHQW.shape[-1] ** -0.5 @ key_NHQW.transpose(-2, -1)).softmax(dim=-1)


def _other(side: str) -> str:
    return "motion" if side == "visual" else "visual"


class UnitAggregation(nn.Module):
    """Embeddings of a clip's units to the clip's: (B, U, D) to (B, D)."""

    def __init__(self, width: int, config: Config, attention: Attention) -> None:
        super().__init__()
        self.causal = MultiHeadAttention(width, config.aggregation_heads, attention) if config.aggregation == "causal" else None
        self.mamba = Mamba(width, scan=config.scan) if config.aggregation == "mamba" else None

    def forward(self, units_BUD: Tensor) -> Tensor:
        """(B, U, D) to (B, D)."""
        if self.causal is not None:
            units = units_BUD.shape[1]
            earlier = torch.ones(units, units, dtype=torch.bool, device=units_BUD.device).tril()
            units_BUD = self.causal(units_BUD, units_BUD, earlier)
        elif self.mamba is not None:
            units_BUD = self.mamba(units_BUD)
        return units_BUD.mean(dim=1)


class Moose(nn.Module):
    """Clips to logits."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        config = spec.config
        assert isinstance(config, Config)
        backend = config.attention(spec.attention)
        self.input = ClipInput(spec)
        self.patch_size = config.patch_size
        self.visual = ImageEncoder(config, spec, frozen=True, final_norm=True)
        self.motion = ImageEncoder(config.motion_encoder, spec, frozen=False, final_norm=True, channels=2)
        self.flow = None if config.estimator is None else FlowEstimator(config.estimator, weights=config.flow_weights, load=spec.pretrained)
        self.fusion = CrossModalFusion(self.visual.width, self.motion.width, config, backend)
        self.aggregation = UnitAggregation(self.fusion.width, config, backend)
        self.classifier = nn.Linear(self.fusion.width, spec.num_classes)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)
        self.notes = {"flow": config.flow_source}
        if spec.pretrained:
            self.visual.load(published(config))

    @property
    def weights(self) -> str:
        """Where the weights come from."""
        loaded = [self.visual.weights, *([] if self.flow is None or self.flow.weights is None else [self.flow.weights])]
        return RANDOM if set(loaded) == {RANDOM} else ", ".join([*loaded, f"rest {RANDOM}"])

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """(B, T, 3, H, W), or (B, T, 5, H, W) where flow comes with the clip, to logits (B, classes)."""
        visual, motion, _ = self._tokens(clip_BTCHW)
        units = self.fusion(visual, motion).unflatten(0, (len(clip_BTCHW), -1))
        logits: Tensor = self.classifier(self.aggregation(units))
        return logits

    @torch.no_grad()
    def look(self, clip_1TCHW: Tensor) -> Looked:
        """What the patches of one clip attend (Algorithm 3)."""
        visual, motion, flow = self._tokens(clip_1TCHW)
        shape = (self.visual.grid, self.visual.grid)
        maps = {side: weights.transpose(0, 1).unflatten(-1, shape) for side, weights in self.fusion.to_class(visual, motion).items()}
        return Looked(maps.get("visual"), maps.get("motion"), flow[0])

    def _tokens(self, clip_BTCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Visual and flow tokens (N, 1 + P, C) of every unit, and the flow (B, U, 2, H, W) in pixels."""
        clip = self.input(clip_BTCHW)
        frames = clip[:, :, :3]
        flow = clip[:, :-1, 3:] if self.flow is None else self.flow(frames * self.std + self.mean)
        motion = self.motion.embed(flow.flatten(0, 1) / self.patch_size)
        for index in range(len(self.motion)):
            motion = self.motion.block(index, motion)
        return self._visual_tokens(frames[:, :-1].flatten(0, 1)), self.motion.norm(motion), flow

    @torch.no_grad()
    def _visual_tokens(self, images_NCHW: Tensor) -> Tensor:
        """Class token and patches: registers hold what no patch is asked for."""
        at_once = max(1, IMAGES_AT_ONCE * 224 * 224 // (images_NCHW.shape[-1] * images_NCHW.shape[-2]))
        parts = []
        for images in images_NCHW.split(at_once):
            (tokens,) = self.visual.features(images, every=len(self.visual))
            tokens = self.visual.norm(tokens)
            parts.append(torch.cat([tokens[:, :1], tokens[:, self.visual.prefix_tokens :]], dim=1))
        return torch.cat(parts)


class Config(EncoderConfig):
    """Sizes and parts of one MOOSE."""

    encoder: EncoderName = "dinov2-b14"
    #: who estimates optical flow; `exact`: the data set carries it
    flow: FlowEstimatorName | Literal["exact"] = "raft-large"
    #: RAFT's weights: a name out of torchvision's list, a file, or `random`; null: those that `benchctl.layers.flow` takes by default
    flow_weights: str | None = None
    #: flow is read with the clip, from what `benchctl data flow` left, instead of being estimated in the model
    precomputed: bool = False
    #: the ViT that sees flow
    flow_width: PositiveInt = 192
    flow_layers: PositiveInt = 12
    flow_heads: PositiveInt = 3
    fusion: Fusion = "bidirectional"
    fusion_width: PositiveInt = 1152
    fusion_heads: PositiveInt = 12
    #: whether a patch attends only its counterpart and the class token
    arrow: bool = True
    #: which fused tokens make a unit: the class token, or the mean of all
    readout: Readout = "class"
    aggregation: Aggregation = "causal"
    aggregation_heads: PositiveInt = 12
    #: who runs Mamba's recurrence on CUDA
    scan: Scan = "plain"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.flow_weights is not None and self.flow in ("dis", "farneback", "exact"):
            raise ValueError(f"flow '{self.flow}' has no weights: leave flow_weights out")
        if self.flow == "exact" and self.precomputed:
            raise ValueError("exact flow comes with the data set: leave precomputed out")
        if not self.arrow and self.readout == "class":
            raise ValueError("arrow: false changes what patches attend, which only readout: mean reads")
        for name, width, heads in (("fusion", self.fusion_width, self.fusion_heads), ("flow", self.flow_width, self.flow_heads)):
            if width % heads:
                raise ValueError(f"{name}_width {width} is not a multiple of {heads} heads")
        width = self.unit_width
        if self.aggregation == "causal" and width % self.aggregation_heads:
            raise ValueError(f"units are {width} wide, not a multiple of {self.aggregation_heads} aggregation_heads")
        return self

    @property
    def unit_width(self) -> int:
        """Channels of a unit's embedding."""
        return {
            "bidirectional": self.encoder_width + self.flow_width,
            "flow-prior": self.encoder_width,
            "visual-prior": self.flow_width,
        }[self.fusion]

    @property
    def motion_encoder(self) -> EncoderConfig:
        """The ViT that sees flow: timm's plain one."""
        sizes = {"encoder_width": self.flow_width, "encoder_layers": self.flow_layers, "encoder_heads": self.flow_heads}
        return EncoderConfig(encoder="dino-b16", patch_size=self.patch_size, **sizes)

    @property
    def estimator(self) -> FlowEstimatorName | None:
        """Who estimates flow in the model."""
        return None if self.precomputed or self.flow == "exact" else self.flow

    @property
    def flow_source(self) -> str:
        """Where flow comes from, in words."""
        if self.flow == "exact":
            return "exact, with the clip"
        if self.precomputed:
            return f"{self.flow}, precomputed"
        on_cpu = self.flow in ("dis", "farneback")
        return f"{self.flow}, in the model" + (" (OpenCV on the CPU: its operations are not counted)" if on_cpu else "")

    def clip_flow(self) -> ClipFlow | None:
        """What comes with the clip, unless flow is estimated in the model."""
        return None if self.estimator else ClipFlow(estimator=self.flow, weights=self.flow_weights)

    def counted_frames(self, frames: int) -> int:
        """The last frame only ends the flow of the one before it."""
        return frames - 1

    def check(self, shape: ClipShape, *, pad: bool) -> None:
        """As every method's; flow needs two frames, RAFT 128 pixels, and `mamba-ssm` to be installed.

        Raises:
            ShapeError, MissingError.
        """
        super().check(shape, pad=pad)
        flows.check_shape(self.estimator or "dis", shape.frames, self.padded(shape.resolution))
        if self.aggregation == "mamba" and self.scan == "mamba-ssm" and not package_installed():
            raise MissingError("the package mamba-ssm is not installed", fix="install it, or use 'scan: plain'")

    def brings(self) -> tuple[str, ...]:
        """The encoder's, and those of the network that estimates flow, in the model or before it."""
        learnt = self.flow in ("raft-large", "raft-small") and self.flow_weights != RANDOM
        return (*super().brings(), *((self.flow_weights or self.flow,) if learnt else ()))

    def check_weights(self, task: Task, *, pretrained: bool) -> None:
        """RAFT without its weights estimates nothing: a cell that learns or is judged needs them, or must say `random`.

        Raises:
            WeightsMissing.
        """
        if self.estimator is None or self.estimator in ("dis", "farneback") or self.flow_weights == RANDOM:
            return
        if pretrained:
            flows.check_weights(self.estimator, self.flow_weights)
        elif task != "profile":
            raise WeightsMissing(
                f"{self.estimator} would have random weights",
                fix="set 'pretrained: true', or in the method's options 'flow: dis', or 'flow_weights: random' if that is meant",
            )


PRESETS: dict[str, dict[str, Any]] = {
    "moose-b": {"encoder": "dinov2-b14"},
    "moose-tiny": {
        "encoder_width": 96,
        "encoder_layers": 4,
        "encoder_heads": 3,
        "patch_size": 8,
        "flow": "dis",
        "flow_width": 48,
        "flow_layers": 4,
        "flow_heads": 3,
        "fusion_width": 144,
        "fusion_heads": 3,
        "aggregation_heads": 3,
    },
}

RECIPE = Recipe(
    optimizer="sgd",
    learning_rate=5e-3,
    weight_decay=1e-4,
    momentum=0.9,
    warmup_fraction=0.0,
    sampling="dense",
    frame_stride=8,
    flip="if-safe",
    eval_clips=1,
    eval_crops=1,
    epochs=20,
    batch_size=96,
)


def build(spec: ModelSpec) -> Moose:
    """The model for `spec`: clips (B, T, 3, H, W), normalised by MEAN and STD, to logits (B, classes).

    Raises:
        ShapeError: fewer than two frames, or frames too small for the estimator.
        WeightsMissing: `spec.pretrained`, and the published weights cannot be had.
    """
    return Moose(spec)
