"""Building a preset in one line."""

from __future__ import annotations

from collections.abc import Callable
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


@pytest.fixture(name="build")
def _build() -> Callable[..., nn.Module]:
    return build
