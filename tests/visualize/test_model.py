from __future__ import annotations

import numpy as np
import pytest
import torch

from benchctl import lookup
from benchctl.errors import UnknownName, UsageError, WeightsMissing
from benchctl.layers.flow import FlowEstimator
from benchctl.spec import ModelSpec
from benchctl.visualize import model as models
from benchctl.visualize.model import load_model
from benchctl.vocabulary import ClipShape

PRESET = "timesformer-tiny"


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """A model for five classes, with an option changed, and a file of its weights as a training leaves them."""
    module = lookup.load("method", PRESET)
    config = module.Config.model_validate({**module.PRESETS[PRESET], "layers": 2})
    torch.manual_seed(7)
    model = module.build(ModelSpec(config, ClipShape(frames=4, resolution=64), 5, "eager"))
    file = tmp_path_factory.mktemp("trained") / "checkpoint.pt"
    torch.save({"format": 1, "method": PRESET, "config": config.model_dump(mode="json"), "model": model.state_dict()}, file)
    return model.eval(), file


def test_random_weights_are_said_and_the_same_each_time(frames):
    first, second = (load_model(PRESET, frames=4, resolution=64) for _ in range(2))
    assert first.said == "random weights"
    assert not first.model.training
    clip = first.prepare(frames)
    with torch.no_grad():
        assert torch.equal(first.model(clip), second.model(clip))


def test_clips_are_normalised_as_the_method_says(frames):
    clip = load_model(PRESET, frames=4, resolution=64).prepare(frames)
    assert clip.shape == (1, 4, 3, 64, 64)
    # TimeSformer: mean 0.45, standard deviation 0.225
    assert float(clip[0, 1, 2, 3, 5]) == pytest.approx((frames[1, 3, 5, 2] / 255 - 0.45) / 0.225, abs=1e-5)


def test_a_checkpoint_brings_its_options_and_its_classes(frames, trained):
    model, file = trained
    loaded = load_model(PRESET, frames=4, resolution=64, checkpoint=file)
    assert loaded.said == "weights: checkpoint.pt"
    assert loaded.config.layers == 2
    with torch.no_grad():
        assert torch.equal(loaded.model(loaded.prepare(frames)), model(loaded.prepare(frames)))
        assert loaded.model(loaded.prepare(frames)).shape == (1, 5)


def test_a_checkpoint_of_another_shape_or_method_is_refused(trained):
    with pytest.raises(WeightsMissing, match="time_embeddings"):
        load_model(PRESET, frames=8, resolution=64, checkpoint=trained[1])
    with pytest.raises(UsageError, match="a checkpoint of 'timesformer-tiny'; use --method timesformer-tiny"):
        load_model("videomae-tiny", frames=4, resolution=64, checkpoint=trained[1])


def test_options_can_be_changed():
    loaded = load_model(PRESET, frames=4, resolution=64, changes={"layers": 3})
    assert len(loaded.model.video.timesformer.encoder.layer) == 3


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"changes": {"depth": 3}}, "--set depth: 'timesformer-tiny' has no such option"),
        ({"changes": {"layers": "many"}}, "--set layers: 'timesformer-tiny' cannot be built so"),
        ({"changes": {"depth": 3}, "changed": "--{}"}, "--depth: "),
        ({"pretrained": True}, "--pretrained: no weights are published for 'timesformer-tiny'"),
        ({"resolution": 60}, "--resolution: 60 is not a multiple of the patch size 16 of 'timesformer-tiny'; use 64"),
    ],
)
def test_what_cannot_be_names_the_option(options, what):
    with pytest.raises(UsageError, match=what):
        load_model(PRESET, **{"frames": 4, "resolution": 64, **options})


def test_frames_that_are_no_whole_tubelets_name_the_method():
    with pytest.raises(UsageError, match="--method videomae-tiny: 5 frames are not a multiple"):
        load_model("videomae-tiny", frames=5, resolution=64)


def test_unknown_names_are_suggested():
    with pytest.raises(UnknownName, match="--encoder: unknown method 'timesformer-tini'; did you mean 'timesformer-tiny'"):
        load_model("timesformer-tini", frames=4, resolution=64, where="--encoder")


def test_flow_comes_with_the_clip_where_the_method_reads_it():
    """A square that goes three pixels to the right and one up: flow is in pixels, not normalised, and 0 in the last frame."""
    loaded = load_model("moose-tiny", frames=4, resolution=64, changes={"flow": "exact"})
    assert loaded.said == "random weights, flow by dis"
    texture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8).repeat(2, 0).repeat(2, 1)[:30, :30]
    frames = np.full((4, 64, 64, 3), 90, np.uint8)
    for t in range(4):
        frames[t, 20 - t : 50 - t, 10 + 3 * t : 40 + 3 * t] = texture
    clip = loaded.prepare(frames)
    assert clip.shape == (1, 4, 5, 64, 64)
    assert clip[0, 0, 3:, 28:42, 18:32].mean(dim=(1, 2)).tolist() == pytest.approx([3, -1], abs=0.3)
    assert not clip[0, -1, 3:].any()
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)[None] / 255
    assert torch.equal(clip[:, :-1, 3:], FlowEstimator("dis")(pixels))
    with torch.no_grad():
        assert loaded.model(clip).isfinite().all()


def test_a_clip_without_flow_is_refused_where_flow_is_read():
    with pytest.raises(UsageError, match="--method moose-tiny: there is no optical flow in one frame"):
        load_model("moose-tiny", frames=1, resolution=64, changes={"flow": "exact"})


def test_the_estimator_is_the_methods_with_its_weights():
    changes = {"flow": "raft-small", "flow_weights": "random", "precomputed": True}
    assert (
        load_model("moose-tiny", frames=2, resolution=128, changes=changes).said == "random weights, flow by raft-small with random weights"
    )


def test_published_weights_come_with_the_classes_they_were_trained_for(monkeypatch: pytest.MonkeyPatch):
    module, seen = lookup.load("method", PRESET), []
    monkeypatch.setattr(module, "build", lambda spec: seen.append(spec) or torch.nn.Identity())
    models.load_model(PRESET, frames=4, resolution=64, pretrained=True, changes={"weights": "hub/tsf"})
    assert seen[0].pretrained
    assert seen[0].num_classes == 400
