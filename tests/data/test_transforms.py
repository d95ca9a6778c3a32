from __future__ import annotations

import numpy as np
import pytest
import torch

from benchctl.data.transforms import Normalisation, drawn_view, eval_scaling, eval_views, train_view

PLAIN = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def constant(height: int, width: int) -> np.ndarray:
    frames = np.empty((2, height, width, 3), np.uint8)
    frames[...] = (10, 100, 250)
    return frames


def resized_by_definition(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Antialiased bilinear in float64: a triangle of half width max(scale, 1) around each output pixel's centre."""

    def weights(length: int, out: int) -> np.ndarray:
        scale = length / out
        reach = max(scale, 1.0)
        matrix = np.zeros((out, length))
        for o in range(out):
            centre = (o + 0.5) * scale
            for i in range(length):
                matrix[o, i] = max(0.0, 1 - abs(i + 0.5 - centre) / reach)
            matrix[o] /= matrix[o].sum()
        return matrix

    return np.einsum("oh,hwc,pw->opc", weights(image.shape[0], size[0]), image.astype(np.float64), weights(image.shape[1], size[1]))


@pytest.mark.parametrize("size", [(96, 128), (129, 97), (300, 20), (32, 32)])
def test_shapes_and_normalisation(size: tuple[int, int]) -> None:
    normalisation = Normalisation((0.5, 0.25, 0.1), (0.2, 0.5, 2.0))
    expected = [(10 / 255 - 0.5) / 0.2, (100 / 255 - 0.25) / 0.5, (250 / 255 - 0.1) / 2.0]
    views = {
        1: train_view(constant(*size), 32, normalisation, np.random.default_rng(0))[None],
        2: eval_views(constant(*size), 32, normalisation, 1),
        3: eval_views(constant(*size), 32, normalisation, 3),
    }
    for crops, view in zip((1, 1, 3), views.values()):
        assert view.shape == (crops, 2, 3, 32, 32)
        assert view.dtype == torch.float32
        for channel, value in enumerate(expected):
            assert torch.allclose(view[:, :, channel], torch.tensor(value), atol=1e-5)


@pytest.mark.parametrize("size", [(48, 64), (64, 40), (20, 24)])
def test_a_centre_crop_is_the_definition(size: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    scale = 32 / min(size)
    whole = resized_by_definition(frames[0], (round(size[0] * scale), round(size[1] * scale)))
    top, left = (whole.shape[0] - 32) // 2, (whole.shape[1] - 32) // 2
    expected = whole[top : top + 32, left : left + 32].transpose(2, 0, 1) / 255
    difference = np.abs(eval_views(frames, 32, PLAIN, 1)[0, 0].numpy() - expected) * 255
    assert difference.max() <= 1.01  # grey levels are whole
    assert difference.mean() < 0.35


def test_frames_that_are_not_scaled_keep_every_byte() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 40, 3), dtype=np.uint8)
    normalisation = Normalisation()
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (normalisation.mean, normalisation.std))
    assert torch.equal(eval_views(frames, 32, normalisation, 1)[0], ((pixels - mean) / std)[..., 4:36])


@pytest.mark.parametrize("size", [(96, 128), (129, 97), (32, 40)])
def test_frames_scaled_while_they_are_decoded_give_the_same_views(size: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    assert torch.equal(eval_views(eval_scaling(size, 32).frames(frames), 32, PLAIN, 3), eval_views(frames, 32, PLAIN, 3))
    view = drawn_view(size, 32, np.random.default_rng(5), flip=True)
    cut = torch.from_numpy(view.cut(view.scaling.frames(frames))).permute(0, 3, 1, 2).float() / 255
    assert torch.allclose(cut, train_view(frames, 32, PLAIN, np.random.default_rng(5), flip=True))


def test_three_crops_lie_at_both_ends_and_in_the_middle_of_the_longer_side() -> None:
    ramp = np.zeros((1, 32, 96, 3), np.uint8)
    ramp[...] = np.arange(96)[None, None, :, None]
    for frames in (ramp, ramp.transpose(0, 2, 1, 3)):
        views = eval_views(frames, 32, PLAIN, 3) * 255
        assert [(round(v.min().item()), round(v.max().item())) for v in views] == [(0, 31), (32, 63), (64, 95)]
        assert torch.equal(views[1], eval_views(frames, 32, PLAIN, 1)[0] * 255)


def test_a_training_view_follows_its_generator() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8)
    first, again, other = (train_view(frames, 32, PLAIN, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_all_frames_of_a_clip_are_cropped_alike() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (1, 48, 64, 3), dtype=np.uint8)
    view = train_view(np.repeat(frame, 4, axis=0), 32, PLAIN, np.random.default_rng(0), flip=True)
    assert all(torch.equal(view[0], frame) for frame in view)


def test_flips_happen_half_the_time_and_only_where_asked_for() -> None:
    ramp = np.zeros((1, 40, 40, 3), np.uint8)
    ramp[...] = np.arange(40)[None, None, :, None] * 6

    def mirrored(seed: int, flip: bool) -> bool:
        view = train_view(ramp, 32, PLAIN, np.random.default_rng(seed), flip=flip)
        return bool(view[0, 0, 0, 0] > view[0, 0, 0, -1])

    assert not any(mirrored(seed, flip=False) for seed in range(20))
    assert 70 < sum(mirrored(seed, flip=True) for seed in range(200)) < 130


def test_the_scale_spans_the_published_range() -> None:
    sides = {drawn_view((56, 90), 56, np.random.default_rng(seed)).scaling.size[0] for seed in range(150)}
    assert sides == set(range(64, 81))  # 256 to 320 for a crop of 224


def test_a_resized_box_has_its_share_of_the_area_and_a_moderate_aspect_ratio() -> None:
    boxes = [drawn_view((60, 80), 16, np.random.default_rng(seed), crop_scale=0.2).scaling.box for seed in range(300)]
    tops, lefts, heights, widths = np.array(boxes).T
    assert min(tops.min(), lefts.min()) == 0
    assert (tops + heights).max() == 60
    assert (lefts + widths).max() == 80
    shares, ratios = heights * widths / 4800, widths / heights
    assert 0.19 < shares.min() < 0.25
    assert 0.9 < shares.max() <= 1
    assert 0.72 < ratios.min() < 0.8
    assert 1.25 < ratios.max() < 1.38


def test_a_picture_that_no_box_fits_is_cropped_in_its_middle() -> None:
    view = drawn_view((10, 100), 16, np.random.default_rng(0), crop_scale=1.0)
    assert view.scaling.box == (0, 43, 10, 13)


@pytest.mark.parametrize("stored", [(40, 60), (20, 30)])
def test_flow_goes_the_way_of_a_box(stored: tuple[int, int]) -> None:
    # everything moves 6 pixels of 60 to the right and 2 of 40 down, whatever the size that it is stored at
    flow = np.empty((2, 2, *stored), np.float32)
    flow[:, 0], flow[:, 1] = 6 * stored[1] / 60, 2 * stored[0] / 40
    for seed in range(8):
        view = drawn_view((40, 60), 16, np.random.default_rng(seed), flip=True, crop_scale=0.3)
        assert view.scaling.box is not None
        found = view.flow(flow)
        assert found.shape == (2, 2, 16, 16)
        sign = -1 if view.mirrored else 1
        assert torch.allclose(found[:, 0], torch.tensor(sign * 6 * 16 / view.scaling.box[3]), atol=1e-4)
        assert torch.allclose(found[:, 1], torch.tensor(2 * 16 / view.scaling.box[2]), atol=1e-4)


def test_a_std_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="std"):
        Normalisation(std=(1.0, 0.0, 1.0))
