from __future__ import annotations

import numpy as np
import pytest
import torch

from benchctl.errors import UsageError
from benchctl.visualize.pixels import CELL, WINDOW, pixel_features, pixel_source


def test_one_vector_for_each_cell():
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    features = pixel_features(frames)
    assert features.shape[:4] == (1, 3, 32 // CELL, 32 // CELL)
    assert features.dtype == torch.float32


def test_a_plain_background_is_zero_and_a_patch_is_its_colour_difference():
    frames = np.full((2, 32, 32, 3), 100, np.uint8)
    frames[1, 8:16, 16:24] = (151, 100, 49)
    features = pixel_features(frames)[0]
    assert not features[0].any()
    # three colours and two gradients, each of 2 x 2 parts; inside the patch the gradient is its own edges
    colours = features[1, 1, 2].reshape(5, 4)[:3]
    assert torch.allclose(colours, torch.tensor([0.2, 0.0, -0.2])[:, None].expand(3, 4), atol=1e-6)
    assert not features[1, 3, 0].any()


def test_gradients_are_central_differences_of_luminance():
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[None, None, :, None] * 4, (1, 32, 32, 3))
    across, down = pixel_features(np.ascontiguousarray(ramp))[0, 0, 1, 1].reshape(5, 4)[3:]
    assert torch.allclose(across, torch.full((4,), 4 / 255), atol=1e-6)
    assert torch.allclose(down, torch.zeros(4), atol=1e-6)


def test_a_resolution_of_no_whole_cells_is_refused():
    with pytest.raises(UsageError, match="--resolution: 36 is not a multiple of the 8 pixels of a cell; use 40"):
        pixel_features(np.zeros((1, 36, 36, 3), np.uint8))


def test_the_source_says_that_nothing_is_learned_and_offers_four_orders():
    frames = np.zeros((1, 16, 16, 3), np.uint8)
    source = pixel_source(frames, (3, 5, 5))
    assert source.windows == ((3, 5, 5),) * 4
    assert "no weights" in source.weights
    assert [output.motion.shape[-1] for output in source.each_order(source.features)] == [75] * 4
    assert pixel_source(frames).windows[0] == WINDOW
