"""Image transformers that methods build on: by name, frozen or trained, whole or with something put inside their blocks.

The transformer is timm's, built at the resolution that it will see, so position embeddings are resampled once, at build, and no
block that nobody reads is built. No method carries a transformer of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from benchctl.layers.attention import BACKENDS, fixed_kernel
from benchctl.layers.pretrained import RANDOM, State, load_pretrained
from benchctl.spec import Attention, MethodConfig, ModelSpec, Rgb

# N images, P tokens of one image (class token first, then patches in rows), C width

EncoderName = Literal["clip-b16", "clip-l14", "dino-b16", "dinov2-b14", "mae-b16", "imagenet-b16", "eva-clip-b16", "eva-clip-l14"]

_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class EncoderSource:
    """One published image transformer: how timm builds it, where its weights are, how its pixels were normalised."""

    architecture: str
    weights: str
    patch_size: int
    width: int
    layers: int
    heads: int
    mean: Rgb
    std: Rgb


def _base(architecture: str, weights: str, mean: Rgb, std: Rgb) -> EncoderSource:
    return EncoderSource(architecture, weights, 16, 768, 12, 12, mean, std)


def _large(architecture: str, weights: str, mean: Rgb, std: Rgb) -> EncoderSource:
    return EncoderSource(architecture, weights, 14, 1024, 24, 16, mean, std)


#: CLIP: Radford et al. 2021, with its own activation (QuickGELU); DINO: Caron et al. 2021; DINOv2 with four registers: Oquab et al. 2023,
#: Darcet et al. 2023; MAE: He et al. 2022; trained on the classes of ImageNet-1K: Steiner et al. 2021; EVA-CLIP: Sun et al. 2023
ENCODERS: Mapping[EncoderName, EncoderSource] = MappingProxyType(
    {
        "clip-b16": _base("vit_base_patch16_clip_quickgelu_224", "timm/vit_base_patch16_clip_224.openai", _CLIP_MEAN, _CLIP_STD),
        "clip-l14": _large("vit_large_patch14_clip_quickgelu_224", "timm/vit_large_patch14_clip_224.openai", _CLIP_MEAN, _CLIP_STD),
        "dino-b16": _base("vit_base_patch16_224", "timm/vit_base_patch16_224.dino", _IMAGENET_MEAN, _IMAGENET_STD),
        "dinov2-b14": EncoderSource(
            "vit_base_patch14_reg4_dinov2", "timm/vit_base_patch14_reg4_dinov2.lvd142m", 14, 768, 12, 12, _IMAGENET_MEAN, _IMAGENET_STD
        ),
        "mae-b16": _base("vit_base_patch16_224", "timm/vit_base_patch16_224.mae", _IMAGENET_MEAN, _IMAGENET_STD),
        "imagenet-b16": _base("vit_base_patch16_224", "timm/vit_base_patch16_224.augreg_in1k", _HALF, _HALF),
        "eva-clip-b16": _base("eva02_base_patch16_clip_224", "timm/eva02_base_patch16_clip_224.merged2b", _CLIP_MEAN, _CLIP_STD),
        "eva-clip-l14": _large("eva02_large_patch14_clip_224", "timm/eva02_large_patch14_clip_224.merged2b", _CLIP_MEAN, _CLIP_STD),
    }
)


class EncoderConfig(MethodConfig):
    """Base of the `Config` of every method with an image encoder. What is left out is as the encoder was published."""

    ATTENTION: ClassVar[tuple[Attention, ...]] = BACKENDS

    encoder: EncoderName = "clip-b16"
    encoder_width: PositiveInt = 768
    encoder_layers: PositiveInt = 12
    encoder_heads: PositiveInt = 12

    @model_validator(mode="before")
    @classmethod
    def _as_published(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        source = ENCODERS.get(given.get("encoder", cls.model_fields["encoder"].default))
        if source is None:
            return given  # the field itself says which names there are
        size = {"patch_size": source.patch_size, "encoder_width": source.width, "encoder_heads": source.heads}
        # fewer layers still take the published weights of the first ones; another width takes none
        fits = all(given.get(name, value) == value for name, value in size.items())
        return {**size, "encoder_layers": source.layers, "weights": source.weights if fits else None, **given}

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.encoder_width % self.encoder_heads:
            raise ValueError(f"width {self.encoder_width} is not a multiple of {self.encoder_heads} heads")
        return self

    def statistics(self) -> tuple[Rgb, Rgb]:
        """Mean and standard deviation of the pixels that the encoder was trained on."""
        return ENCODERS[self.encoder].mean, ENCODERS[self.encoder].std


class ImageEncoder(nn.Module):
    """A timm vision transformer, frozen or trained.

    A frozen one has no trainable parameter and stays in evaluation mode. `features` runs it without a graph, for methods that train
    beside it. Methods that train inside it run `embed` and `block`, or a block's `attention` and `mlp`, themselves: gradients go
    through frozen blocks, from the first trained parameter on, and none go into them.

    Args:
        config: which encoder, and its sizes.
        spec: its padded resolution and its attention backend.
        frozen: whether its weights are left as they are.
        final_norm: whether the normalisation after the last block is built; the classifier never is.
        channels: of an image.

    Attributes:
        width: C.
        grid: patches along one side of an image.
        prefix_tokens: tokens before the patches: 1 for a class token, more with registers.
        weights: where the weights come from, for the result.
    """

    def __init__(self, config: EncoderConfig, spec: ModelSpec, *, frozen: bool, final_norm: bool = False, channels: int = 3) -> None:
        super().__init__()
        import timm

        self.vit = timm.create_model(
            ENCODERS[config.encoder].architecture,
            pretrained=False,
            img_size=spec.padded_resolution,
            patch_size=config.patch_size,
            embed_dim=config.encoder_width,
            depth=config.encoder_layers,
            num_heads=config.encoder_heads,
            num_classes=0,
            in_chans=channels,
        )
        if not final_norm:
            self.vit.norm = nn.Identity()
        self.kernel = config.attention(spec.attention)
        self.frozen = frozen
        self.width = int(self.vit.embed_dim)
        self.grid = spec.padded_resolution // config.patch_size
        self.prefix_tokens = int(self.vit.num_prefix_tokens)
        self.weights = RANDOM
        for block in self.vit.blocks:
            block.attn.fused_attn = self.kernel != "eager"
        if frozen:
            self.requires_grad_(False)
            super().train(False)

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self.vit.blocks)

    def train(self, mode: bool = True) -> Self:
        """As torch's; a frozen encoder stays in evaluation mode: dropout is off and running statistics do not move."""
        return super().train(mode and not self.frozen)

    def embed(self, images_NCHW: Tensor) -> Tensor:
        """(N, channels, H, W) to the tokens (N, P, C) that the first block is fed."""
        placed = self.vit._pos_embed(self.vit.patch_embed(images_NCHW))
        # transformers with rotary positions give those beside the tokens
        tokens: Tensor = self.vit.norm_pre(placed[0] if isinstance(placed, tuple) else placed)
        return tokens

    def block(self, index: int, tokens_NPC: Tensor) -> Tensor:
        """The whole block `index`, counted from 0: (N, P, C) to (N, P, C)."""
        with fixed_kernel(self.kernel, tokens_NPC.device):
            result: Tensor = self.vit.blocks[index](tokens_NPC, **self._rotary())
        return result

    def norms(self, index: int) -> tuple[nn.Module, nn.Module]:
        """The normalisations before attention and before the MLP of block `index`."""
        return self.vit.blocks[index].norm1, self.vit.blocks[index].norm2

    def attention(self, index: int, tokens_NPC: Tensor, *, placed: bool = True) -> Tensor:
        """Attention of block `index` on normalised tokens, without its residual.

        Args:
            index: counted from 0.
            tokens_NPC: (N, P, C), normalised.
            placed: whether the tokens are those of an image, where `block` has them; else rotary positions are left out.
        """
        with fixed_kernel(self.kernel, tokens_NPC.device):
            result: Tensor = self.vit.blocks[index].attn(tokens_NPC, **(self._rotary() if placed else {}))
        return self._scaled(index, "ls1", result)

    def mlp(self, index: int, tokens_NPC: Tensor) -> Tensor:
        """The MLP of block `index` on normalised tokens, without its residual: (N, P, C) to (N, P, C)."""
        result: Tensor = self.vit.blocks[index].mlp(tokens_NPC)
        return self._scaled(index, "ls2", result)

    def _scaled(self, index: int, name: str, x_NPC: Tensor) -> Tensor:
        """What a block adds: DINOv2 scales each channel of it."""
        scale = getattr(self.vit.blocks[index], name, None)
        return x_NPC if scale is None else scale(x_NPC)

    def norm(self, tokens_NPC: Tensor) -> Tensor:
        """The normalisation after the last block; nothing where it was not built."""
        result: Tensor = self.vit.norm(tokens_NPC)
        return result

    def _rotary(self) -> dict[str, Tensor]:
        rope = getattr(self.vit, "rope", None)
        return {} if rope is None else {"rope": rope.get_embed()}

    @torch.no_grad()
    def features(self, images_NCHW: Tensor, every: int = 1) -> Iterator[Tensor]:
        """The tokens after block `every`, 2 x `every`, ..., one at a time, so that a reader that keeps none holds only one.

        Args:
            images_NCHW: (N, 3, H, W), normalised.
            every: distance between two blocks that are read.

        Yields:
            (N, P, C), without a graph.
        """
        tokens = self.embed(images_NCHW)
        for number in range(1, len(self) + 1):
            tokens = self.block(number - 1, tokens)
            if number % every == 0:
                yield tokens

    def load(self, hub_id: str) -> None:
        """Load published weights; position embeddings are resampled to this resolution, unused blocks are left out.

        Raises:
            WeightsMissing: as `load_pretrained`.
        """
        self.weights = load_pretrained(self.vit, hub_id, convert=self._convert)

    def _convert(self, state: State) -> State:
        from timm.models import eva, vision_transformer

        library = eva if isinstance(self.vit, eva.Eva) else vision_transformer
        converted: State = library.checkpoint_filter_fn(state, self.vit)
        kept = range(len(self))
        own = self.vit.state_dict()
        unused = tuple(f"{name}." for name in ("norm", "fc_norm", "head") if not any(key.startswith(f"{name}.") for key in own))
        return {
            name: tensor
            for name, tensor in converted.items()
            if not name.startswith(unused) and not (name.startswith("blocks.") and int(name.split(".")[1]) not in kept)
        }
