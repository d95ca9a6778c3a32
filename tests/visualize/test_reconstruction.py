"""What pre-training hides and rebuilds: masks, colours and errors against their definitions, and the figure."""

from __future__ import annotations

import matplotlib.image
import numpy as np
import pytest
import torch

from benchctl import lookup
from benchctl.errors import UsageError, WeightsMissing
from benchctl.spec import ModelSpec
from benchctl.visualize import reconstruction_figure
from benchctl.visualize.model import LoadedModel, load_model
from benchctl.visualize.reconstruction import Rebuilt, check_ratio, clip_shape, named, reconstruction
from benchctl.vocabulary import ClipShape

PRESET = "time-videomae-tiny"


def loaded(preset: str = PRESET, **changes: object) -> LoadedModel:
    return load_model(preset, frames=4, resolution=64, changes=changes, pretraining=True)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return loaded(grid=2)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)


def checkpoint(folder, *, task: str = "pretrain", build: str = "build_pretraining", **content: object):
    """A file as a training leaves it, with the options that it had."""
    module = lookup.load("method", PRESET)
    config = module.Config.model_validate({**module.PRESETS[PRESET], "grid": 2, "mask_ratio": 0.5})
    torch.manual_seed(7)
    made = getattr(module, build)(ModelSpec(config, ClipShape(frames=4, resolution=64), 5, config.attention("auto")))
    file = folder / f"{task}.pt"
    said = {"format": 1, "method": PRESET, "task": task, "config": config.model_dump(mode="json"), **content}
    torch.save({**said, "model": made.state_dict()}, file)
    return file


def test_what_is_given_is_what_the_network_sees(model, frames):
    assert clip_shape(model) == ClipShape(frames=16, resolution=32)
    found = reconstruction(model, frames)
    assert found.given.shape == found.rebuilt.shape == (4, 64, 64, 3)
    # cell (1, 0) of the spatial arrangement holds frames 8 to 11
    assert found.given[3, 32:, :32] == pytest.approx(frames[11] / 255, abs=1e-6)


@pytest.mark.parametrize(("ratio", "tubes"), [(0.5, 8), (0.75, 12), (0.9, 14)])
def test_tubes_are_hidden_in_that_share(model, frames, ratio, tubes):
    found = reconstruction(model, frames, ratio)
    assert found.tubes == (tubes, 16)
    assert found.hidden.mean() == pytest.approx(tubes / 16)
    assert (found.hidden == found.hidden[:1]).all()
    patches = found.hidden[0].reshape(4, 16, 4, 16)
    assert (patches.all((1, 3)) | ~patches.any((1, 3))).all()
    assert np.array_equal(found.rebuilt[~found.hidden], found.given[~found.hidden])
    assert not np.allclose(found.rebuilt[found.hidden], found.given[found.hidden])


def test_the_ratio_that_it_was_trained_with_is_the_default(model, frames):
    assert reconstruction(model, frames).tubes == (14, 16)
    assert reconstruction(model, frames, 0.5).tubes == (8, 16)
    assert reconstruction(model, frames).tubes == (14, 16), "showing another ratio changes nothing in the model"
    other = reconstruction(loaded(grid=2, mask_ratio=0.5), frames)
    assert np.array_equal(other.rebuilt, reconstruction(model, frames, 0.5).rebuilt)


def test_the_errors_are_their_definitions(model, frames):
    found = reconstruction(model, frames, 0.5)
    total = flat = count = 0.0
    for t in range(0, 4, 2):
        for y, x in ((y, x) for y in range(0, 64, 16) for x in range(0, 64, 16)):
            tube = (slice(t, t + 2), slice(y, y + 16), slice(x, x + 16))
            if found.hidden[t, y, x]:
                given, rebuilt = (each[tube].reshape(-1, 3).tolist() for each in (found.given, found.rebuilt))
                means = [sum(pixel[c] for pixel in given) / len(given) for c in range(3)]
                for truth, guess in zip(given, rebuilt):
                    total += sum((truth[c] - guess[c]) ** 2 for c in range(3))
                    flat += sum((truth[c] - means[c]) ** 2 for c in range(3))
                    count += 3
    assert found.error == pytest.approx(total / count, rel=1e-4)
    assert found.error_of_means == pytest.approx(flat / count, rel=1e-4)


def test_a_model_that_gives_nothing_has_the_error_of_the_means(model, frames, monkeypatch):
    monkeypatch.setattr(type(model.model), "_decoded", lambda self, clip, visible, hidden: torch.zeros(1, hidden.shape[1], 2 * 16 * 16 * 3))
    found = reconstruction(model, frames, 0.5)
    assert found.error == pytest.approx(found.error_of_means, rel=1e-5)


def test_depth_is_rebuilt_in_its_own_scale(frames):
    grey = frames[..., :1].repeat(3, axis=-1)
    found = reconstruction(loaded(grid=2, modality="depth"), grey, 0.5)
    assert found.given[3, 32:, :32] == pytest.approx(grey[11] / 255, abs=1e-6)


def test_a_checkpoint_says_its_method_and_brings_its_options(tmp_path, frames):
    file = checkpoint(tmp_path)
    assert named(None, [file]) == [(PRESET, file)]
    model = load_model(PRESET, frames=4, resolution=64, checkpoint=file, pretraining=True)
    assert (model.said, model.config.grid) == ("weights: pretrain.pt", 2)
    assert reconstruction(model, frames).tubes == (8, 16)


def test_checkpoints_of_another_kind_are_refused(tmp_path):
    trained = checkpoint(tmp_path, task="train", build="build")
    with pytest.raises(UsageError, match=r"train.pt: holds a model that classifies; name a checkpoint that a pre-training left"):
        load_model(PRESET, frames=4, resolution=64, checkpoint=trained, pretraining=True)
    with pytest.raises(UsageError, match=r"pretrain.pt: holds a model that was pre-trained by reconstruction; name a checkpoint that a tr"):
        load_model(PRESET, frames=4, resolution=64, checkpoint=checkpoint(tmp_path))
    with pytest.raises(UsageError, match="does not say whose weights it has; name the preset with --method"):
        named(None, [checkpoint(tmp_path, method=None)])
    torn = tmp_path / "torn.pt"
    torn.write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(WeightsMissing, match=r"torn.pt: cannot be read"):
        named(None, [torn])


def test_what_is_asked_for():
    assert named(PRESET, []) == [(PRESET, None)]
    with pytest.raises(UsageError, match="--checkpoint: whose reconstruction"):
        named(None, [])
    for ratio in (0.0, 1.0, -1.0, 2.0, float("nan")):
        with pytest.raises(UsageError, match=f"--mask-ratio {ratio:g}: some patches must be hidden, and not all"):
            check_ratio(ratio)
    check_ratio(0.75)


@pytest.mark.parametrize("preset", ["timesformer-tiny", "time-resnet-tiny"])
def test_a_method_that_does_not_pretrain_names_those_that_do(preset):
    with pytest.raises(UsageError, match=f"--method {preset}: '{preset}' does not learn by reconstruction; such are .*videomae-tiny") as no:
        loaded(preset)
    assert "time-resnet" not in str(no.value).partition(";")[2]


def test_the_figure_has_rows_of_given_masked_and_rebuilt(model, frames, tmp_path):
    at = tuple(reconstruction(model, frames, ratio) for ratio in (0.5, 0.9))
    picture = reconstruction_figure.Picture("a$b.mp4", (Rebuilt("one", "weights: a.pt", at), Rebuilt("two", "random weights", at[:1])))
    made = reconstruction_figure.figure(picture)
    shown = [axes.get_images()[0].get_array() for axes in made.axes]
    rows = [np.stack(shown[start : start + 4]) for start in range(0, len(shown), 4)]
    assert len(rows) == 1 + 2 * 2 + 1 + 2
    for row, each in ((rows[1], at[0]), (rows[3], at[1]), (rows[6], at[0])):
        assert (row[each.hidden] == 237).all()
        assert np.array_equal(row[~each.hidden], rows[0][~each.hidden])
    assert np.array_equal(rows[4], np.rint(255 * at[1].rebuilt.clip(0, 1)))
    said = " ".join(text.get_text().replace("\n", " ") for text in [*made.texts, *(text for axes in made.axes for text in axes.texts)])
    for part in ("a$b.mp4", "Model 1: one (weights: a.pt)", "8 of 16 patches (50%)", f"error {at[0].error:.3g}", "model 2"):
        assert part in said
    reconstruction_figure.save(picture, tmp_path / "a.png")
    assert matplotlib.image.imread(tmp_path / "a.png")[..., :3].std() > 0.05
