from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchctl import lookup
from benchctl.engine import work
from benchctl.errors import WeightsMissing
from benchctl.methods.vivit import resize_positions
from benchctl.plan import expand
from benchctl.suite_file import parse

Build = Callable[..., nn.Module]

SIZES = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 384, "num_labels": 4}


def old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As files that were published with earlier versions of `transformers` name their tensors."""
    renamed = {}
    for name, tensor in state.items():
        for new, old in (
            ("vivit.layers.", "vivit.encoder.layer."),
            (".q_proj.", ".attention.query."),
            (".k_proj.", ".attention.key."),
            (".v_proj.", ".attention.value."),
            (".o_proj.", ".output.dense."),
            (".mlp.fc1.", ".intermediate.dense."),
            (".mlp.fc2.", ".output.dense."),
        ):
            name = name.replace(new, old)
        renamed[name] = tensor.clone()
    return renamed


def randomise(model: nn.Module) -> None:
    """Class token, positions and biases are all 0 in a new model."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("bias") or "embeddings" in name:
                p.normal_()


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Tensor]], Path]:
    """Puts tensors where `hub/vivit` is looked for."""

    def put(state: dict[str, Tensor]) -> Path:
        monkeypatch.setenv("BENCHCTL_WEIGHTS", str(tmp_path))
        folder = tmp_path / "hub" / "vivit"
        folder.mkdir(parents=True)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return put


def test_counts_at_base_size() -> None:
    """Both counts of multiply-accumulates are those of fvcore, without attention and with it."""
    text = "name: t\ntask: profile\nmethods: [vivit-b]\nsweep: [{frames: 32, resolution: 224}]\nmeasure: [flops, params]"
    result = work.predict(expand(parse(text, Path("t.yaml"))).cells[0])
    assert result.value("params") / 1e6 == pytest.approx(88.95, rel=1e-4)
    assert result.value("macs", kind="all") / 1e9 == pytest.approx(451.52, rel=1e-3)
    assert result.value("macs", kind="without_attention") / 1e9 == pytest.approx(270.44, rel=1e-3)


@pytest.mark.parametrize("shape", ["8x64", "4x96"])
def test_the_model_is_the_librarys(build: Build, shape: str) -> None:
    from transformers import VivitConfig, VivitForVideoClassification

    frames, side = (int(n) for n in shape.split("x"))
    ours = build("vivit-tiny", shape).eval()
    randomise(ours)
    theirs = VivitForVideoClassification(VivitConfig(image_size=side, num_frames=frames, **SIZES)).eval()
    theirs.load_state_dict(ours.video.state_dict())
    clip = torch.randn(2, frames, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(ours(clip), theirs(clip).logits)


def test_positions_matter(build: Build) -> None:
    model = build("vivit-tiny", "8x64").eval()
    randomise(model)
    clip = torch.randn(1, 8, 3, 64, 64)
    with torch.no_grad():
        assert not torch.allclose(model(clip), model(clip.flip(1)), atol=1e-3)


def test_one_frame_with_tubelet_one(build: Build) -> None:
    assert build("vivit-tiny", "1x64", tubelet_size=1)(torch.randn(2, 1, 3, 64, 64)).shape == (2, 4)


@pytest.mark.parametrize("names", [old_names, dict], ids=["old names", "new names"])
def test_published_weights_load_as_the_library_loads_them(build: Build, publish, names) -> None:
    from transformers import VivitConfig, VivitForVideoClassification

    published = build("vivit-tiny", "8x64", seed=1)
    randomise(published)
    folder = publish(names(published.video.state_dict()))
    ours = build("vivit-tiny", "8x64", pretrained=True, weights="hub/vivit", weights_frames=8, weights_resolution=64).eval()
    theirs = VivitForVideoClassification.from_pretrained(folder, config=VivitConfig(image_size=64, num_frames=8, **SIZES)).eval()
    clip = torch.randn(1, 8, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(clip), theirs(clip).logits)
        assert torch.equal(ours(clip), published.eval()(clip))
    assert ours.weights == "hub/vivit"


def test_published_weights_load_at_another_shape(build: Build, publish) -> None:
    published = build("vivit-tiny", "8x64", seed=1)
    randomise(published)
    publish(old_names(published.video.state_dict()))
    options = {"pretrained": True, "weights": "hub/vivit", "weights_frames": 8, "weights_resolution": 64}
    other = build("vivit-tiny", "4x32", classes=9, **options)
    assert other.weights == "hub/vivit, classifier random (9 classes, published 4)"
    positions, theirs = (m.video.vivit.embeddings.position_embeddings for m in (other, published))
    assert torch.equal(positions, resize_positions(theirs, (4, 4, 4), (2, 2, 2)))
    assert torch.equal(other.video.vivit.layers[3].mlp.fc2.weight, published.video.vivit.layers[3].mlp.fc2.weight)


def test_halving_a_grid_takes_means_and_keeps_the_class_token() -> None:
    """At half the size, trilinear sampling points lie in the middle of each two by two by two positions."""
    positions = torch.randn(1, 1 + 4 * 6 * 6, 5, dtype=torch.float64)
    halved = resize_positions(positions, (4, 6, 6), (2, 3, 3))
    assert torch.equal(halved[:, 0], positions[:, 0])
    volume = positions[0, 1:].view(4, 6, 6, 5)
    for t, h, w in itertools.product(range(2), range(3), range(3)):
        mean = volume[2 * t : 2 * t + 2, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2].mean(dim=(0, 1, 2))
        torch.testing.assert_close(halved[0, 1 + 9 * t + 3 * h + w], mean)


def test_positions_of_another_clip_than_said_are_refused(build: Build, publish) -> None:
    publish(build("vivit-tiny", "8x64").video.state_dict())
    with pytest.raises(WeightsMissing, match="does not fit this model"):
        build("vivit-tiny", "4x64", pretrained=True, weights="hub/vivit", weights_frames=16, weights_resolution=64)


def test_base_size_is_published_for_its_own_shape() -> None:
    module = lookup.load("method", "vivit-b")
    config = module.Config(**module.PRESETS["vivit-b"])
    assert config.grid(config.weights_frames, config.weights_resolution) == (16, 14, 14)
