from __future__ import annotations

import pytest
import torch

from benchctl.errors import ShapeError
from benchctl.layers.clip_input import ClipInput
from benchctl.spec import MethodConfig, ModelSpec
from benchctl.vocabulary import ClipShape


def spec(frames: int = 4, resolution: int = 30, patch: int = 16, tubelet: int = 2) -> ModelSpec:
    config = MethodConfig(patch_size=patch, tubelet_size=tubelet)
    return ModelSpec(config, ClipShape(frames=frames, resolution=resolution), num_classes=2, attention="eager")


def test_pads_right_and_bottom_with_zeros() -> None:
    clip = torch.rand(2, 4, 3, 30, 30) + 1
    padded = ClipInput(spec())(clip)
    assert padded.shape == (2, 4, 3, 32, 32)
    assert torch.equal(padded[..., :30, :30], clip)
    assert not padded[..., 30:, :].any()
    assert not padded[..., :, 30:].any()


def test_passes_whole_patches_on_untouched() -> None:
    clip = torch.rand(1, 4, 3, 32, 32)
    assert ClipInput(spec(resolution=32))(clip) is clip


@pytest.mark.parametrize("shape", [(4, 3, 30, 30), (1, 3, 3, 30, 30), (1, 4, 1, 30, 30), (1, 4, 3, 30, 32), (1, 3, 4, 30, 30)])
def test_another_shape_is_an_error_that_names_both(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError) as error:
        ClipInput(spec())(torch.zeros(shape))
    assert "x".join(map(str, shape)) in str(error.value)
    assert "Bx4x3x30x30" in str(error.value)


def test_frames_must_be_whole_tubelets() -> None:
    with pytest.raises(ShapeError, match="use 2 or 4 frames"):
        ClipInput(spec(frames=3))
