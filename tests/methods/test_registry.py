"""What holds for every registered method; a new file in `benchctl/methods` is covered without a line here."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchctl import lookup
from benchctl.errors import BenchctlError, DeviceMissing, ShapeError, UsageError
from benchctl.probes.hollow import empty_build
from benchctl.spec import Attention, ClipShape, ModelSpec, Recipe

Build = Callable[..., nn.Module]

PRESETS = sorted(lookup.entries("method"))
TINY = [name for name in PRESETS if name.endswith("-tiny")]
LARGE = [name for name in PRESETS if name not in TINY]
FILES = sorted({lookup.entry("method", name).file for name in PRESETS})


def clip(shape: str = "8x64", batch: int = 2) -> Tensor:
    frames, resolution = (int(n) for n in shape.split("x"))
    return torch.randn(batch, frames, 3, resolution, resolution, generator=torch.Generator().manual_seed(1))


def backends(preset: str) -> tuple[Attention, ...]:
    found: tuple[Attention, ...] = lookup.load("method", preset).Config.ATTENTION
    return found


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_file_reads_in_the_agreed_order(file: Path) -> None:
    names: list[str] = []
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            names.append(target.id if isinstance(target, ast.Name) else "")
    agreed = ["MEAN", "STD", "Config", "PRESETS", "RECIPE", "build"]
    assert [name for name in names if name in agreed] == agreed
    assert names[-1] == "build"


def test_every_method_has_a_tiny_preset() -> None:
    with_tiny = {lookup.entry("method", name).module for name in TINY}
    assert with_tiny == {lookup.entry("method", name).module for name in PRESETS}


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_names_its_file(preset: str) -> None:
    assert preset.startswith(lookup.entry("method", preset).file.stem.replace("_", "-") + "-")


@pytest.mark.parametrize("preset", PRESETS)
def test_config_survives_json(preset: str) -> None:
    config_class = lookup.load("method", preset).Config
    config = config_class(**lookup.entry("method", preset).value)
    assert config_class.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("preset", PRESETS)
def test_config_is_closed(preset: str) -> None:
    with pytest.raises(ValueError, match="no_such_option"):
        lookup.load("method", preset).Config(no_such_option=1)


@pytest.mark.parametrize("preset", TINY)
def test_recipe_and_normalisation(preset: str) -> None:
    module = lookup.load("method", preset)
    assert isinstance(module.RECIPE, Recipe)
    assert len(module.MEAN) == len(module.STD) == 3
    assert all(0 < value < 1 for value in (*module.MEAN, *module.STD))


@pytest.mark.parametrize("preset", TINY)
def test_forward_gives_finite_logits(build: Build, preset: str) -> None:
    model = build(preset, "8x64", classes=5)
    logits = model(clip())
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()
    assert model.weights == "random"


@pytest.mark.parametrize("preset", LARGE)
def test_large_presets_build_on_the_meta_device(build: Build, preset: str) -> None:
    with torch.device("meta"):
        model = build(preset, "8x224", classes=400)
        logits = model(torch.empty(2, 8, 3, 224, 224))
    assert logits.shape == (2, 400)
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize("preset", LARGE)
def test_large_presets_build_without_their_arithmetic(build: Build, preset: str) -> None:
    """As memory prediction builds them: what initialisers write is never computed, and no initialiser may wait for it."""
    model = empty_build(lambda: build(preset, "8x224", classes=400))
    assert not any(p.is_meta for p in model.parameters())


@pytest.mark.parametrize("preset", TINY)
def test_attention_is_counted(build: Build, preset: str) -> None:
    counts = []
    for shape in ("8x64", "8x128"):
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            build(preset, shape)(torch.empty(1, *clip(shape).shape[1:]))
        counts.append(counter.get_total_flops())
    # four times the patches: convolutions and linear layers cost at most four times as much, attention sixteen times
    assert counts[1] > 4 * counts[0] > 0


@pytest.mark.parametrize("preset", TINY)
def test_training_lowers_the_loss(build: Build, preset: str) -> None:
    """Clips of four colours, which an untrained encoder passes on: what trains inside a frozen one has little else to read."""
    model = build(preset, "8x64").train()
    colours = torch.randn(4, 1, 3, 1, 1, generator=torch.Generator().manual_seed(2))
    batch, labels = clip(batch=4) + 2 * colours, torch.arange(4)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses: list[float] = []
    while len(losses) < 50 and (not losses or losses[-1] >= 0.7 * losses[0]):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("preset", TINY)
def test_every_trainable_parameter_gets_a_gradient(build: Build, preset: str) -> None:
    model = build(preset, "8x64").train()
    F.cross_entropy(model(clip()), torch.tensor([0, 1])).backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("preset", TINY)
def test_frozen_parts_stay_as_they_are(build: Build, preset: str) -> None:
    model = build(preset, "8x64").train()
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    frozen_modules = [m for m in model.modules() if list(m.parameters()) and not any(p.requires_grad for p in m.parameters())]
    before = [statistics(m) for m in frozen_modules]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    F.cross_entropy(model(clip()), torch.tensor([0, 1])).backward()
    optimizer.step()
    assert all(torch.equal(dict(model.named_parameters())[name], p) for name, p in frozen.items())
    assert not any(m.training for m in frozen_modules)
    for module, buffers in zip(frozen_modules, before):
        assert all(torch.equal(buffer, buffers[name]) for name, buffer in module.named_buffers())


@pytest.mark.parametrize("preset", TINY)
def test_building_is_deterministic(build: Build, preset: str) -> None:
    first, again, other = (build(preset, "8x64", seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("preset", TINY)
def test_padding_is_a_padded_clip(build: Build, preset: str) -> None:
    """A model for 8x60 pads to 8x64 itself, and then is the model for 8x64."""
    padding, whole = build(preset, "8x60").eval(), build(preset, "8x64").eval()
    small = clip("8x60")
    with torch.no_grad():
        torch.testing.assert_close(padding(small), whole(F.pad(small, (0, 4, 0, 4))), rtol=0, atol=0)


@pytest.mark.parametrize("preset", TINY)
def test_batches_are_independent(build: Build, preset: str) -> None:
    model = build(preset, "8x64").eval()
    batch = clip(batch=3)
    with torch.no_grad():
        torch.testing.assert_close(model(batch)[1:2], model(batch[1:2]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("preset", TINY)
@pytest.mark.parametrize("shape", [(2, 4, 3, 64, 64), (2, 8, 3, 64, 48), (2, 8, 1, 64, 64), (8, 3, 64, 64)])
def test_a_wrong_clip_is_a_shape_error(build: Build, preset: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError):
        build(preset, "8x64")(torch.zeros(shape))


@pytest.mark.parametrize(("preset", "backend"), [(p, b) for p in TINY for b in backends(p)])
def test_backends_agree(build: Build, preset: str, backend: Attention) -> None:
    model = build(preset, "8x64", attention=backend).eval()
    if backend == "efficient":
        with pytest.raises(DeviceMissing):
            model(clip())
        return
    reference = build(preset, "8x64").eval()
    with torch.no_grad():
        torch.testing.assert_close(model(clip()), reference(clip()), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("preset", [p for p in TINY if "flash" not in backends(p)])
def test_a_backend_that_is_not_offered_is_refused(preset: str) -> None:
    module = lookup.load("method", preset)
    config = module.Config(**lookup.entry("method", preset).value)
    with pytest.raises(UsageError, match="attention 'flash' is not available"):
        module.build(ModelSpec(config, ClipShape(frames=8, resolution=64), num_classes=2, attention="flash"))


@pytest.mark.parametrize("preset", TINY)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_runs_under_autocast(build: Build, preset: str, dtype: torch.dtype) -> None:
    model = build(preset, "8x64").train()
    with torch.autocast("cpu", dtype=dtype):
        loss = F.cross_entropy(model(clip()), torch.tensor([0, 1]))
    loss.backward()
    assert loss.isfinite()


@pytest.mark.parametrize("preset", TINY)
def test_a_training_step_needs_no_values(build: Build, preset: str) -> None:
    """Tensors on the meta device have none: control flow that depended on data would raise."""
    with torch.device("meta"):
        model = build(preset, "8x64").train()
        F.cross_entropy(model(torch.empty_like(clip())), torch.tensor([0, 1])).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("preset", [p for p in TINY if "weights" not in lookup.entry("method", p).value])
def test_no_published_weights_is_a_clear_error(build: Build, preset: str) -> None:
    with pytest.raises(BenchctlError, match="no weights are published"):
        build(preset, "8x64", pretrained=True)
