"""Building a preset in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from benchctl import lookup
from benchctl.spec import Attention, ClipShape, ModelSpec


def build(
    preset: str, shape: str, *, classes: int = 4, attention: Attention = "auto", pretrained: bool = False, seed: int = 0, **options: Any
) -> nn.Module:
    """`shape` is frames x resolution, as in "8x64"."""
    frames, resolution = (int(n) for n in shape.split("x"))
    module = lookup.load("method", preset)
    config = module.Config(**{**lookup.entry("method", preset).value, **options})
    torch.manual_seed(seed)
    spec = ModelSpec(config, ClipShape(frames=frames, resolution=resolution), classes, config.attention(attention), pretrained)
    model: nn.Module = module.build(spec)
    return model


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tiny models are no faster with more threads, and many times slower on a machine whose cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(name="build")
def _build() -> Callable[..., nn.Module]:
    return build
