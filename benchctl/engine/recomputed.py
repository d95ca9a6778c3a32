"""Activation checkpointing: blocks that keep their input alone, and compute what is inside again in the backward pass.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(model: nn.Module) -> int:
    """Make the blocks of `model` compute their activations again; how many they are.

    Names of weights stay as they are. Random numbers are drawn anew as they were drawn before, so dropout is the same.
    """
    blocks = list(_blocks(model))
    for block in blocks:
        # the module stays what it is, only its call changes: wrapping it would rename its weights
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    return len(blocks)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules that are one of several of a kind in a list: what a network is stacked of."""
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            kinds = [type(each) for each in child]
            repeated = [each for each in child if kinds.count(type(each)) > 1 and any(True for _ in each.children())]
            for each in child:
                if each in repeated:
                    yield each
                else:
                    yield from _blocks(each)
        else:
            yield from _blocks(child)
