"""Building a preset in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from benchctl import lookup
from benchctl.layers.image_encoder import ENCODERS
from benchctl.spec import Attention, ModelSpec
from benchctl.vocabulary import ClipShape


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


@pytest.fixture
def publish_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., nn.Module]:
    """A function that puts the weights of a small CLIP, with an unused head, where `hub/clip` is looked for, and returns the CLIP."""

    def publish(**changes: int) -> nn.Module:
        import timm

        sizes = {"embed_dim": 96, "num_heads": 3, "depth": 4, "img_size": 64, "num_classes": 512, **changes}
        published: nn.Module = timm.create_model(ENCODERS["clip-b16"].architecture, **sizes)
        nn.init.normal_(published.norm.weight)
        monkeypatch.setenv("BENCHCTL_WEIGHTS", str(tmp_path))
        (tmp_path / "hub" / "clip").mkdir(parents=True)
        save_file(published.state_dict(), tmp_path / "hub" / "clip" / "model.safetensors")
        return published

    return publish
