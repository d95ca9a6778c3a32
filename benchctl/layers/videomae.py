"""VideoMAE (Tong et al. 2022, arXiv 2203.12602): a plain video transformer over tubelets, and its pre-training, as `transformers` has them.

The position table is a function of the shape, not a parameter. It is computed here, since the library's loop over its entries takes
seconds on long clips, and lives in a buffer, so that it moves with the model instead of being copied to the device at every step.

Pre-training hides tubes: the same patches at all times. The library picks tokens by a boolean mask, whose result has a shape that depends
on values; here the number of hidden tubes is fixed and they are picked by index, so that a step can be traced without values.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from benchctl.layers.attention import BACKENDS, transformers_backend
from benchctl.layers.clip_input import ClipInput
from benchctl.layers.pretrained import RANDOM, State, load_pretrained
from benchctl.spec import Attention, MethodConfig, ModelSpec

# B batch, T frames, K tokens of a clip (times x patches of a frame), V visible and M hidden of them, C width, P values of a tubelet patch

#: of the decoder, in the published models of every size
_DECODER_LAYERS = 4
#: keeps the deviation of a patch of one colour from dividing by zero
_FLAT = 1e-6


class VideoMAESizes(MethodConfig):
    """Base of the `Config` of methods with a VideoMAE."""

    ATTENTION: ClassVar[tuple[Attention, ...]] = BACKENDS

    tubelet_size: PositiveInt = 2
    width: PositiveInt = 768
    layers: PositiveInt = 12
    heads: PositiveInt = 12
    mlp_width: PositiveInt = 3072
    #: share of the patches that pre-training hides
    mask_ratio: float = Field(0.9, gt=0, lt=1)

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        return self

    def pretrains(self) -> bool:
        """By reconstruction."""
        return True


class VideoMAE(nn.Module):
    """The library's classifier, fed clips of one shape.

    Args:
        spec: shape, classes and attention backend; its config may be another method's.
        sizes: of the transformer.
        front: checks and prepares what the model is given; None: frames as they are.
    """

    def __init__(self, spec: ModelSpec, sizes: VideoMAESizes, front: nn.Module | None = None) -> None:
        super().__init__()
        from transformers import VideoMAEForVideoClassification

        self.input = front or ClipInput(spec)
        self.video = VideoMAEForVideoClassification(_library_config(spec, sizes, num_labels=spec.num_classes))
        _set_shape(self.video.videomae, spec)
        self.weights = RANDOM

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """Clips to logits (B, classes)."""
        return self.judge(self.features(clip_BTCHW))

    def features(self, clip_BTCHW: Tensor) -> Tensor:
        """Tokens of the clip: (B, K, C)."""
        tokens: Tensor = self.video.videomae(self.input(clip_BTCHW)).last_hidden_state
        return tokens

    def judge(self, tokens_BKC: Tensor) -> Tensor:
        """(B, K, C) to logits (B, classes)."""
        logits: Tensor = self.video.classifier(self.video.fc_norm(tokens_BKC.mean(1)))
        return logits

    def load(self, hub_id: str) -> None:
        """Load published weights; raises WeightsMissing as `load_pretrained`."""
        self.weights = load_pretrained(self.video, hub_id, convert=_rename_biases, head="classifier")

    def start_from(self, state: State) -> None:
        """Take over the encoder that `MaskedVideoMAE` learned; its decoder and its last normalisation have no place here.

        Raises:
            RuntimeError: it does not fit.
        """
        prefix = "video.videomae."
        own = self.video.videomae.state_dict()
        found = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        self.video.videomae.load_state_dict({name: found[name] for name in own if name in found})


class Rebuilt(NamedTuple):
    """What pre-training sees of one clip and makes of it. Frames are normalised as the model is given them."""

    #: (T, 3, H, W)
    frames: Tensor
    #: (T, H, W): true where hidden
    hidden: Tensor
    #: (T, 3, H, W): what is visible as it is, what is hidden as the decoder has it
    rebuilt: Tensor


class MaskedVideoMAE(nn.Module):
    """Pre-training: hidden tubes of a clip are rebuilt from the visible ones; the answer is the loss.

    Args:
        spec: as for `VideoMAE`.
        sizes: of the encoder, with the mask ratio. The decoder has half its width and heads and four layers, as published.
        front: as for `VideoMAE`.
    """

    def __init__(self, spec: ModelSpec, sizes: VideoMAESizes, front: nn.Module | None = None) -> None:
        super().__init__()
        from transformers import VideoMAEForPreTraining

        self.input = front or ClipInput(spec)
        config = _library_config(spec, sizes, use_mean_pooling=False)
        self.video = VideoMAEForPreTraining(config)
        _set_shape(self.video.videomae, spec)
        self.side = spec.padded_resolution // sizes.patch_size
        self.hidden = hidden_tubes(self.side**2, sizes.mask_ratio)
        patches = self.video.videomae.embeddings.num_patches
        del self.video.position_embeddings
        self.video.register_buffer("position_embeddings", sinusoid_table(patches, config.decoder_hidden_size), persistent=False)
        self.tubelet, self.patch = sizes.tubelet_size, sizes.patch_size
        self.weights = RANDOM

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """Clips to the mean squared error over the hidden patches, each normalised by its own mean and deviation: a scalar."""
        clip = self.input(clip_BTCHW)
        visible, hidden = self._tubes(len(clip), clip.shape[1] // self.tubelet, clip.device)
        target = _pick(_normalised(self.patches(clip)), hidden)
        return F.mse_loss(self._decoded(clip, visible, hidden), target)

    @torch.no_grad()
    def reconstruct(self, clip_1TCHW: Tensor, seed: int = 0) -> Rebuilt:
        """One clip with tubes hidden and rebuilt, each patch put back on its own mean and deviation; the same tubes for the same seed."""
        clip = self.input(clip_1TCHW)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            visible, hidden = self._tubes(1, clip.shape[1] // self.tubelet, clip.device)
        patches = self.patches(clip)
        picked = _pick(patches, hidden)
        colours = picked.unflatten(-1, (-1, clip.shape[2]))
        mean, deviation = colours.mean(-2, keepdim=True), colours.std(-2, keepdim=True) + _FLAT
        values = (self._decoded(clip, visible, hidden).unflatten(-1, (-1, clip.shape[2])) * deviation + mean).flatten(-2)
        index = hidden.unsqueeze(-1).expand_as(values)
        rebuilt = patches.scatter(1, index, values)
        mask = torch.zeros_like(patches).scatter(1, index, torch.ones_like(values))
        shape = clip.shape[1:]
        return Rebuilt(clip[0], self._frames(mask, shape)[:, 0] > 0, self._frames(rebuilt, shape))

    def patches(self, clip_BTCHW: Tensor) -> Tensor:
        """(B, T, C, H, W) to (B, K, P): values of a patch by time, row and column in it, then channel."""
        cut = clip_BTCHW.unflatten(1, (-1, self.tubelet)).unflatten(4, (-1, self.patch)).unflatten(6, (-1, self.patch))
        # B, time, in tubelet, C, row, in row, column, in column
        return cut.permute(0, 1, 4, 6, 2, 5, 7, 3).flatten(4).flatten(1, 3)

    def _frames(self, patches_1KP: Tensor, shape: torch.Size) -> Tensor:
        """The inverse of `patches` for one clip: (T, C, H, W)."""
        frames, channels, height, width = shape
        cut = patches_1KP[0].reshape(
            frames // self.tubelet, height // self.patch, width // self.patch, self.tubelet, self.patch, self.patch, channels
        )
        return cut.permute(0, 3, 6, 1, 4, 2, 5).reshape(shape)

    def _tubes(self, batch: int, times: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Indices of visible and of hidden tokens: (B, V) and (B, M), each in order."""
        order = torch.rand(batch, self.side**2, device=device).argsort(dim=1)
        hidden, visible = (part.sort(dim=1).values for part in (order[:, : self.hidden], order[:, self.hidden :]))
        offsets = torch.arange(times, device=device)[:, None] * self.side**2
        return ((visible[:, None] + offsets).flatten(1), (hidden[:, None] + offsets).flatten(1))

    def _decoded(self, clip_BTCHW: Tensor, visible_BV: Tensor, hidden_BM: Tensor) -> Tensor:
        """What the decoder says of the hidden tokens: (B, M, P)."""
        model = self.video
        tokens = _pick(model.videomae.embeddings(clip_BTCHW, None), visible_BV)
        tokens = model.videomae.encoder(tokens).last_hidden_state
        seen = model.encoder_to_decoder(model.videomae.layernorm(tokens))
        places = model.position_embeddings.expand(len(clip_BTCHW), -1, -1)
        whole = torch.cat([seen + _pick(places, visible_BV), model.mask_token + _pick(places, hidden_BM)], dim=1)
        decoded: Tensor = model.decoder(whole, hidden_BM.shape[1]).logits
        return decoded


def hidden_tubes(patches: int, mask_ratio: float) -> int:
    """How many of the patches of a frame are hidden: the nearest number, with at least one on each side."""
    return min(max(1, round(mask_ratio * patches)), patches - 1)


def _pick(tokens_BKC: Tensor, index_BM: Tensor) -> Tensor:
    """(B, K, C) and (B, M) to (B, M, C)."""
    return tokens_BKC.gather(1, index_BM.unsqueeze(-1).expand(-1, -1, tokens_BKC.shape[-1]))


def _normalised(patches_BKP: Tensor, channels: int = 3) -> Tensor:
    """Each channel of each patch with mean 0 and deviation 1."""
    values = patches_BKP.unflatten(-1, (-1, channels))
    mean, deviation = values.mean(-2, keepdim=True), values.std(-2, keepdim=True)
    return ((values - mean) / (deviation + _FLAT)).flatten(-2)


def sinusoid_table(positions: int, width: int) -> Tensor:
    """(1, positions, width): sine in even channels and cosine in odd ones, wavelengths from 2 pi to 20000 pi (Vaswani et al. 2017)."""
    channel = torch.arange(width, dtype=torch.float64)
    wavelength = torch.exp(2 * (channel // 2) / width * math.log(10000))
    angle = torch.arange(positions, dtype=torch.float64)[:, None] / wavelength
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()[None]


def _library_config(spec: ModelSpec, sizes: VideoMAESizes, **more: Any) -> Any:
    """The library's configuration, for one patch: its own slow position table then has one entry; nothing trained depends on the shape."""
    from transformers import VideoMAEConfig

    decoder_heads = max(1, sizes.heads // 2)
    # half the encoder's width, in whole heads
    decoder_width = sizes.width // 2 // decoder_heads * decoder_heads
    return VideoMAEConfig(
        image_size=sizes.patch_size,
        patch_size=sizes.patch_size,
        num_frames=sizes.tubelet_size,
        tubelet_size=sizes.tubelet_size,
        hidden_size=sizes.width,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.mlp_width,
        decoder_hidden_size=decoder_width,
        decoder_num_attention_heads=decoder_heads,
        decoder_num_hidden_layers=_DECODER_LAYERS,
        decoder_intermediate_size=4 * decoder_width,
        attn_implementation=transformers_backend(sizes.attention(spec.attention)),
        **more,
    )


def _set_shape(video: Any, spec: ModelSpec) -> None:
    """Let the library's encoder take the clips of `spec`."""
    config, side = video.config, spec.padded_resolution
    config.num_frames, config.image_size = spec.shape.frames, side
    embeddings = video.embeddings
    patches = spec.shape.frames // config.tubelet_size * (side // config.patch_size) ** 2
    embeddings.num_patches = embeddings.patch_embeddings.num_patches = patches
    embeddings.patch_embeddings.image_size = (side, side)
    del embeddings.position_embeddings
    embeddings.register_buffer("position_embeddings", sinusoid_table(patches, config.hidden_size), persistent=False)


def _rename_biases(state: State) -> State:
    """The biases of published files are named as the authors' code names them."""
    return {
        name.replace("attention.q_bias", "attention.query.bias").replace("attention.v_bias", "attention.value.bias"): state[name]
        for name in state
    }
