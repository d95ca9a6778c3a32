from __future__ import annotations

import numpy as np
import pytest
import torch

from benchctl import lookup
from benchctl.errors import UnknownName, UsageError, WeightsMissing
from benchctl.spec import ModelSpec
from benchctl.visualize.method_source import method_source
from benchctl.visualize.stss import order_maps
from benchctl.vocabulary import ClipShape

PRESET = "moss-tiny"


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)


def config_of(preset: str, **options: object):
    module = lookup.load("method", preset)
    return module.Config.model_validate({**module.PRESETS[preset], **options})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """A model, and a file of its weights in the form in which a training leaves them."""
    module, config = lookup.load("method", PRESET), config_of(PRESET)
    torch.manual_seed(7)
    model = module.build(ModelSpec(config, ClipShape(frames=4, resolution=64), 5, config.attention("auto")))
    file = tmp_path_factory.mktemp("trained") / "checkpoint.pt"
    torch.save({"format": 1, "step": 3, "model": model.state_dict(), "record": {}}, file)
    return module, model.eval(), file


def test_random_weights_are_said_and_the_same_each_time(frames):
    first, second = (method_source(PRESET, frames, orders=(1, 2, 3)) for _ in range(2))
    assert first.weights == "random weights"
    assert torch.equal(first.features, second.features)
    config = config_of(PRESET)
    grid = 64 // config.patch_size
    assert first.features.shape == (1, 4, grid, grid, config.encoder_width)
    assert first.windows == (config.window_of(1),) * 3
    assert [found.order for found in order_maps(first, [(0, 0, 0)], (3,))] == [3]


def test_with_a_checkpoint_it_is_what_the_trained_model_computes(frames, trained):
    module, model, file = trained
    source = method_source(PRESET, frames, orders=(1, 2), checkpoint=file)
    assert source.weights == "weights: checkpoint.pt"

    seen = {}
    motion = next(iter(model.motion.values()))
    motion.moss.encoders[1].register_forward_hook(lambda _module, given, made: seen.update(similarity=given[0], motion=made))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (module.MEAN, module.STD))
    with torch.inference_mode():
        model(((torch.from_numpy(frames).permute(0, 3, 1, 2) / 255 - mean) / std)[None])

    (second,) = order_maps(source, [(1, 2, 3)], (2,))
    assert np.allclose(second.norms, seen["motion"][0].norm(dim=-1), atol=1e-5)
    # the offset (-1, -2, 0) of query (1, 2, 3) is frame 0, row 0
    t, h, w = (side // 2 for side in source.windows[1])
    assert second.similarity[0, 0, 0, 3] == pytest.approx(float(seen["similarity"][0, 1, 2, 3, t - 1, h - 2, w]), abs=1e-5)


def test_a_trained_model_has_only_its_own_orders(frames, trained):
    source = method_source(PRESET, frames, orders=(1, 2, 3), checkpoint=trained[2])
    with pytest.raises(UsageError, match="--orders: 'moss-tiny' computes orders 1 to 2"):
        order_maps(source, [(0, 0, 0)], (1, 2, 3))


def test_a_checkpoint_of_something_else_does_not_fit(frames, tmp_path):
    torch.save({"model": {"weight": torch.zeros(1)}}, tmp_path / "other.pt")
    with pytest.raises(WeightsMissing, match=r"other\.pt: .*; name a checkpoint of moss-tiny"):
        method_source(PRESET, frames, orders=(1,), checkpoint=tmp_path / "other.pt")


def test_a_checkpoint_says_with_which_options_it_was_trained(frames, tmp_path):
    module, config = lookup.load("method", PRESET), config_of(PRESET, orders=(1, 3), window=(3, 5, 5))
    model = module.build(ModelSpec(config, ClipShape(frames=4, resolution=64), 5, config.attention("auto")))
    said = {"format": 1, "method": PRESET, "config": config.model_dump(mode="json"), "model": model.state_dict()}
    torch.save(said, tmp_path / "mine.pt")
    assert method_source(PRESET, frames, orders=(1, 3), checkpoint=tmp_path / "mine.pt").windows == ((3, 5, 5),) * 3
    torch.save({**said, "method": "aim-tiny"}, tmp_path / "other.pt")
    with pytest.raises(UsageError, match=r"other\.pt: a checkpoint of 'aim-tiny'; use --encoder aim-tiny"):
        method_source(PRESET, frames, orders=(1,), checkpoint=tmp_path / "other.pt")


def test_another_window_is_used(frames):
    assert method_source(PRESET, frames, orders=(1,), window=(3, 5, 5)).windows == ((3, 5, 5),)


@pytest.mark.parametrize(
    ("preset", "options", "what"),
    [
        ("timesformer-tiny", {}, "--encoder: 'timesformer-tiny' computes no self-similarity"),
        ("timesformer-tiny", {"window": (3, 3, 3)}, "--window: 'timesformer-tiny' has no such option"),
        (PRESET, {"pretrained": True}, "--pretrained: no weights are published for 'moss-tiny'"),
    ],
)
def test_what_cannot_be_names_the_option(frames, preset, options, what):
    with pytest.raises(UsageError, match=what):
        method_source(preset, frames, orders=(1,), **options)


def test_both_kinds_of_weights_are_one_too_many(frames, trained):
    with pytest.raises(UsageError, match="leave out --pretrained or --checkpoint"):
        method_source(PRESET, frames, orders=(1,), pretrained=True, checkpoint=trained[2])


def test_unknown_names_suggest_pixels_too(frames):
    with pytest.raises(UnknownName, match="--encoder: unknown method 'pixel'; did you mean 'pixels'"):
        method_source("pixel", frames, orders=(1,))


def test_a_resolution_of_no_whole_patches_is_refused():
    with pytest.raises(UsageError, match=r"--resolution: 63 is not a multiple of the patch size \d+ of 'moss-tiny'; use 64"):
        method_source(PRESET, np.zeros((4, 63, 63, 3), np.uint8), orders=(1,))
