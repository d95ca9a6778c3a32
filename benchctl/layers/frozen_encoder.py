"""An image transformer that is not trained: its weights, its statistics and its activations stay out of training.

The transformer is built by timm at the resolution that it will see, so position embeddings are resampled once, at build, and no
block that nobody reads is built.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn

from benchctl.layers.attention import fixed_kernel
from benchctl.layers.pretrained import RANDOM, State, load_pretrained
from benchctl.spec import Attention

# N images, P tokens of one image (class token first, then patches in rows), C width


class FrozenEncoder(nn.Module):
    """A timm vision transformer with frozen weights, always in evaluation mode.

    `features` runs it without a graph, for methods that train beside it. Methods that train inside it run `embed` and `blocks`
    themselves, each block inside `fixed_kernel`, and get gradients through them, none in them.

    Args:
        architecture: name of a timm vision transformer.
        resolution: side of the images in pixels, a multiple of the patch size.
        blocks: how many blocks are kept, counted from the front; the final normalisation and the head are never built.
        attention: backend of the blocks' attention.
        changes: arguments of the architecture to change, such as `embed_dim`.

    Attributes:
        width: C.
        prefix_tokens: tokens before the patches: 1 for a class token, more with registers.
        weights: where the weights come from, for the result.
    """

    def __init__(self, architecture: str, *, resolution: int, blocks: int, attention: Attention, **changes: Any) -> None:
        super().__init__()
        import timm

        self.vit = timm.create_model(
            architecture, pretrained=False, img_size=resolution, depth=blocks, num_classes=0, final_norm=False, **changes
        )
        self.attention = attention
        self.width = int(self.vit.embed_dim)
        self.prefix_tokens = int(self.vit.num_prefix_tokens)
        self.weights = RANDOM
        for block in self.vit.blocks:
            block.attn.fused_attn = attention != "eager"
        self.requires_grad_(False)
        super().train(False)

    @property
    def blocks(self) -> nn.Sequential:
        """The transformer's blocks, each (N, P, C) to (N, P, C)."""
        blocks: nn.Sequential = self.vit.blocks
        return blocks

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002 - torch's signature
        """Stays in evaluation mode whatever `mode` says: dropout is off and running statistics do not move."""
        return super().train(False)

    def load(self, hub_id: str) -> None:
        """Load published weights; position embeddings are resampled to this resolution, unused blocks are left out.

        Raises:
            WeightsMissing: as `load_pretrained`.
        """
        self.weights = load_pretrained(self.vit, hub_id, convert=self._convert)

    def _convert(self, state: State) -> State:
        from timm.models.vision_transformer import checkpoint_filter_fn

        converted: State = checkpoint_filter_fn(state, self.vit)
        unused = ("norm.", "fc_norm.", "head.")
        kept = range(len(self.blocks))
        return {
            name: tensor
            for name, tensor in converted.items()
            if not name.startswith(unused) and not (name.startswith("blocks.") and int(name.split(".")[1]) not in kept)
        }

    def embed(self, images_NCHW: Tensor) -> Tensor:
        """(N, 3, H, W) to the tokens (N, P, C) that the first block is fed."""
        tokens: Tensor = self.vit.norm_pre(self.vit.patch_drop(self.vit._pos_embed(self.vit.patch_embed(images_NCHW))))
        return tokens

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
        for number, block in enumerate(self.blocks, start=1):
            with fixed_kernel(self.attention, tokens.device):
                tokens = block(tokens)
            if number % every == 0:
                yield tokens
