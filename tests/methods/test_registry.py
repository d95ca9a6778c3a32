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
from benchctl.recipe import Recipe
from benchctl.spec import Attention, MethodConfig, ModelSpec
from benchctl.vocabulary import ClipShape

Build = Callable[..., nn.Module]

PRESETS = sorted(lookup.entries("method"))
TINY = [name for name in PRESETS if name.endswith("-tiny")]
LARGE = [name for name in PRESETS if name not in TINY]
FILES = sorted({lookup.entry("method", name).file for name in PRESETS})


def config(preset: str) -> MethodConfig:
    found: MethodConfig = lookup.load("method", preset).Config(**lookup.entry("method", preset).value)
    return found


def clip_shape(text: str) -> ClipShape:
    frames, resolution = (int(n) for n in text.split("x"))
    return ClipShape(frames=frames, resolution=resolution)


def clips(preset: str, shape: str = "8x64", batch: int = 2) -> tuple[Tensor, ...]:
    """What the model is given: pixels, tracks, or both."""
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(batch, *each, generator=generator) for each in config(preset).input_shapes(clip_shape(shape)))


def empty(preset: str, shape: str = "8x64", batch: int = 2) -> tuple[Tensor, ...]:
    return tuple(torch.empty(batch, *each) for each in config(preset).input_shapes(clip_shape(shape)))


def backends(preset: str) -> tuple[Attention, ...]:
    return config(preset).backends()


#: those that can learn without labels
PRETRAINED = [name for name in TINY if config(name).pretrains()]
#: those that are given a clip's pixels as they are
PLAIN = [name for name in TINY if config(name).input_shapes(clip_shape("8x64")) == ((8, 3, 64, 64),)]


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
    file = lookup.entry("method", preset).file.stem.removesuffix("_layer").replace("_", "-")
    assert preset == file or preset.startswith(file + "-")


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
    logits = model(*clips(preset))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()
    assert model.weights == "random"


@pytest.mark.parametrize("preset", LARGE)
def test_large_presets_build_on_the_meta_device(build: Build, preset: str) -> None:
    with torch.device("meta"):
        model = build(preset, "8x224", classes=400)
        logits = model(*empty(preset, "8x224"))
    assert logits.shape == (2, 400)
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize("preset", LARGE)
def test_large_presets_build_without_their_arithmetic(build: Build, preset: str) -> None:
    """As memory prediction builds them: what initialisers write is never computed, and no initialiser may wait for it."""
    model = empty_build(lambda: build(preset, "8x224", classes=400))
    assert not any(p.is_meta for p in model.parameters())


@pytest.mark.parametrize("preset", [name for name in PLAIN if backends(name) != ("none",)])
def test_attention_is_counted(build: Build, preset: str) -> None:
    counts = []
    for shape in ("8x64", "8x128"):
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            build(preset, shape)(*empty(preset, shape, batch=1))
        counts.append(counter.get_total_flops())
    # four times the patches: convolutions and linear layers cost at most four times as much, attention sixteen times
    assert counts[1] > 4 * counts[0] > 0


@pytest.mark.parametrize("preset", TINY)
def test_training_lowers_the_loss(build: Build, preset: str) -> None:
    """Clips of four colours, which an untrained encoder passes on: what trains inside a frozen one has little else to read."""
    model = build(preset, "8x64").train()
    colours = torch.randn(4, 1, 3, 1, 1, generator=torch.Generator().manual_seed(2))
    given = clips(preset, batch=4)
    # tracks have no colour; each of their clips is another anyway
    batch, labels = tuple(tensor + 2 * colours if tensor.ndim == 5 else tensor for tensor in given), torch.arange(4)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses: list[float] = []
    while len(losses) < 50 and (not losses or losses[-1] >= 0.7 * losses[0]):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(*batch), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("preset", TINY)
def test_every_trainable_parameter_gets_a_gradient(build: Build, preset: str) -> None:
    model = build(preset, "8x64").train()
    F.cross_entropy(model(*clips(preset)), torch.tensor([0, 1])).backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("preset", TINY)
def test_frozen_parts_stay_as_they_are(build: Build, preset: str) -> None:
    model = build(preset, "8x64").train()
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    frozen_modules = [m for m in model.modules() if list(m.parameters()) and not any(p.requires_grad for p in m.parameters())]
    before = [statistics(m) for m in frozen_modules]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    F.cross_entropy(model(*clips(preset)), torch.tensor([0, 1])).backward()
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


@pytest.mark.parametrize("preset", PLAIN)
def test_padding_is_a_padded_clip(build: Build, preset: str) -> None:
    """A model for 8x60 pads to 8x64 itself, and then is the model for 8x64."""
    padding, whole = build(preset, "8x60").eval(), build(preset, "8x64").eval()
    (small,) = clips(preset, "8x60")
    with torch.no_grad():
        torch.testing.assert_close(padding(small), whole(F.pad(small, (0, 4, 0, 4))), rtol=0, atol=0)


@pytest.mark.parametrize("preset", TINY)
def test_batches_are_independent(build: Build, preset: str) -> None:
    model = build(preset, "8x64").eval()
    batch = clips(preset, batch=3)
    with torch.no_grad():
        alone = model(*(tensor[1:2] for tensor in batch))
        torch.testing.assert_close(model(*batch)[1:2], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("preset", TINY)
def test_a_wrong_clip_is_a_shape_error(build: Build, preset: str) -> None:
    """One frame fewer, one pixel (or point) fewer in a row, one channel fewer, and no batch: of each tensor that the model is given."""
    model = build(preset, "8x64")
    right = config(preset).input_shapes(clip_shape("8x64"))
    for place, shape in enumerate(right):
        for axis in range(len(shape)):
            wrong = [*shape[:axis], shape[axis] - 1, *shape[axis + 1 :]]
            given = [torch.zeros(2, *each) for each in right]
            given[place] = torch.zeros(2, *wrong)
            with pytest.raises(ShapeError):
                model(*given)
        given[place] = torch.zeros(shape)
        with pytest.raises(ShapeError):
            model(*given)


@pytest.mark.parametrize(("preset", "backend"), [(p, b) for p in TINY for b in backends(p)])
def test_backends_agree(build: Build, preset: str, backend: Attention) -> None:
    model = build(preset, "8x64", attention=backend).eval()
    if backend == "efficient":
        with pytest.raises(DeviceMissing):
            model(*clips(preset))
        return
    reference = build(preset, "8x64").eval()
    with torch.no_grad():
        torch.testing.assert_close(model(*clips(preset)), reference(*clips(preset)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("preset", [p for p in TINY if "flash" not in backends(p)])
def test_a_backend_that_is_not_offered_is_refused(preset: str) -> None:
    module = lookup.load("method", preset)
    with pytest.raises(UsageError, match="attention 'flash' is not available"):
        module.build(ModelSpec(config(preset), clip_shape("8x64"), num_classes=2, attention="flash"))


@pytest.mark.parametrize("preset", TINY)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_runs_under_autocast(build: Build, preset: str, dtype: torch.dtype) -> None:
    model = build(preset, "8x64").train()
    with torch.autocast("cpu", dtype=dtype):
        loss = F.cross_entropy(model(*clips(preset)), torch.tensor([0, 1]))
    loss.backward()
    assert loss.isfinite()


@pytest.mark.parametrize("preset", TINY)
def test_a_training_step_needs_no_values(build: Build, preset: str) -> None:
    """Tensors on the meta device have none: control flow that depended on data would raise."""
    with torch.device("meta"):
        model = build(preset, "8x64").train()
        F.cross_entropy(model(*empty(preset)), torch.tensor([0, 1])).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("preset", [p for p in TINY if "weights" not in lookup.entry("method", p).value])
def test_no_published_weights_is_a_clear_error(build: Build, preset: str) -> None:
    with pytest.raises(BenchctlError, match="no weights are published"):
        build(preset, "8x64", pretrained=True)


@pytest.mark.parametrize("preset", PRETRAINED)
def test_pre_training_lowers_its_loss_and_training_starts_from_it(build: Build, preset: str) -> None:
    module = lookup.load("method", preset)
    torch.manual_seed(0)
    backend = config(preset).attention("auto")
    learning = module.build_pretraining(ModelSpec(config(preset), clip_shape("8x64"), num_classes=2, attention=backend)).train()
    batch = tuple(tensor.mean((-1, -2), keepdim=True).expand_as(tensor) for tensor in clips(preset, batch=4))
    optimizer = torch.optim.AdamW(learning.parameters(), lr=3e-3)
    losses: list[float] = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = learning(*batch)
        assert loss.shape == ()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(p.grad is not None for p in learning.parameters() if p.requires_grad)
    assert min(losses[-5:]) < 0.8 * losses[0]
    started, fresh = build(preset, "8x64"), build(preset, "8x64")
    started.start_from(learning.state_dict())
    changed = {name for name, tensor in started.state_dict().items() if not torch.equal(tensor, fresh.state_dict()[name])}
    trained = {name for name, p in fresh.named_parameters() if p.requires_grad}
    assert len(trained - changed) < 0.2 * len(trained), "most of what is trained starts from pre-training"


@pytest.mark.parametrize("preset", PRETRAINED)
def test_a_pre_training_step_needs_no_values(preset: str) -> None:
    module = lookup.load("method", preset)
    with torch.device("meta"):
        backend = config(preset).attention("auto")
        module.build_pretraining(ModelSpec(config(preset), clip_shape("8x64"), 2, backend)).train()(*empty(preset)).backward()
