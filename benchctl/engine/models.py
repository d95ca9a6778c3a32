"""From a cell to its model and its data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import nn

from benchctl import lookup, pretrained_on
from benchctl.data.clip_set import ClipSet
from benchctl.data.flow_views import flow_source
from benchctl.data.index import index_of
from benchctl.data.loading import LoadSettings
from benchctl.data.track_views import track_source
from benchctl.data.transforms import Normalisation
from benchctl.engine import checkpoint
from benchctl.engine.recomputed import recompute
from benchctl.errors import BenchctlError, DataMissing
from benchctl.spec import Cell, ModelSpec


def model_spec(cell: Cell, *, pretrained: bool | None = None) -> ModelSpec:
    """What the method's `build` is given; `pretrained` replaces the cell's own where weights come from elsewhere."""
    config = _method(cell).Config.model_validate(cell.config)
    wanted = cell.pretrained if pretrained is None else pretrained
    return ModelSpec(config=config, shape=cell.shape, num_classes=cell.num_classes, attention=cell.attention, pretrained=wanted)


def build(cell: Cell, *, pretrained: bool | None = None) -> nn.Module:
    """The cell's model on the CPU, the same for the same seed."""
    torch.manual_seed(cell.seed)
    module, spec = _method(cell), model_spec(cell, pretrained=pretrained)
    model: nn.Module = module.build_pretraining(spec) if cell.task == "pretrain" else module.build(spec)
    if cell.recipe.train_only == "head":
        head = head_names(cell)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in head)
    if cell.launch is not None and cell.launch.activation_checkpointing and not recompute(model):
        raise BenchctlError(f"'{cell.method}' has no repeated blocks to compute again", fix="leave 'activation_checkpointing' out")
    return model


def head_names(cell: Cell) -> frozenset[str]:
    """The classifier's tensors: those that differ between models for different numbers of classes."""
    spec = model_spec(cell, pretrained=False)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        own, wider = (_method(cell).build(replace(spec, num_classes=spec.num_classes + more)).state_dict() for more in (0, 1))
    return frozenset(name for name, tensor in own.items() if tensor.shape != wider[name].shape)


def start(model: nn.Module, cell: Cell, file: Path) -> str:
    """Give `model` the weights that another cell left in `file`, all but a classifier; what was loaded, in words.

    Raises:
        BenchctlError: they are of another method or size.
    """
    content = checkpoint.load(file)
    if content.get("method") != cell.method:
        raise BenchctlError(f"a checkpoint of '{content.get('method')}', not of '{cell.method}'", where=str(file), fix="train it again")
    state: dict[str, torch.Tensor] = content["model"]
    words = f"{content.get('task', 'train')} cell {content['cell']} after {content['step']} steps"
    try:
        if content.get("task") == "pretrain":
            cast("Any", model).start_from(state)
            return f"from {words}"
        head = head_names(cell)
        found = model.load_state_dict({name: tensor for name, tensor in state.items() if name not in head}, strict=False)
    except RuntimeError as problem:
        what = " ".join(str(problem).split())[:200]
        raise BenchctlError(f"does not fit '{cell.method}': {what}", where=str(file), fix="train it again with --fresh") from None
    # what a model has beyond what it starts from, it says
    added = tuple(getattr(model, "added_to_start", ()))
    missing = {name for name in found.missing_keys if name not in head and not (added and name.startswith(added))}
    if missing or found.unexpected_keys:
        what = ", ".join(sorted({*missing, *found.unexpected_keys})[:3])
        raise BenchctlError(f"does not fit '{cell.method}': {what}", where=str(file), fix="train it again with --fresh")
    return f"from {words}, classifier random"


def load_settings(cell: Cell, clips: ClipSet) -> LoadSettings:
    """How the cell's `clips` become batches."""
    method = _method(cell)
    config = method.Config.model_validate(cell.config)
    statistics, flow = config.statistics() or (method.MEAN, method.STD), config.clip_flow()
    tracks, pixels = config.clip_tracks(cell.shape), config.pixels(cell.shape)
    return LoadSettings(
        pixels or cell.shape,
        cell.recipe,
        Normalisation(*statistics),
        flow=flow_source(flow, cell.dataset, cell.recipe.frame_stride) if flow and cell.dataset else None,
        tracks=track_source(tracks, cell.dataset) if tracks and cell.dataset else None,
        pixels=pixels is not None,
        modality=config.clip_modality(),
        index=index_of(clips),
    )


def sources(load: LoadSettings) -> dict[str, Any]:
    """Where flow and tracks that come with the clips are from."""
    found = {"flow": load.flow, "tracks": load.tracks}
    return {name: source.description for name, source in found.items() if source}


def load_clips(cell: Cell, root: Path | None) -> ClipSet:
    """The cell's data set at `root`.

    Raises:
        DataMissing: the runner named no folder.
        BenchctlError: it changed since the cell was planned.
    """
    if cell.dataset is None or root is None:
        raise DataMissing("this cell has no data set", fix="plan it again")
    module = lookup.load("dataset", cell.dataset.name)
    clips: ClipSet = module.load(root, module.Options.model_validate(cell.dataset.options))
    if cell.data_fingerprint is not None and clips.fingerprint != cell.data_fingerprint:
        raise BenchctlError(f"data set '{clips.name}' changed while the suite ran", where=str(root), fix="run the suite again")
    return clips.share(cell.train_fraction, cell.seed) if cell.train_fraction else clips


def notes(cell: Cell, model: nn.Module) -> dict[str, object]:
    """Facts about the model that belong beside its numbers."""
    spec = model_spec(cell)
    found: dict[str, object] = {"weights": str(getattr(model, "weights", "random")), **getattr(model, "notes", {})}
    if cell.task != "profile":
        found["pretraining"] = pretrained_on.declared(spec.config) if cell.pretrained else pretrained_on.NONE
    if spec.padded_resolution != cell.shape.resolution:
        found["padding"] = f"{cell.shape.resolution} to {spec.padded_resolution} pixels: patch {spec.config.patch_size}"
    counted = spec.config.counted_frames(cell.shape.frames)
    if counted != cell.shape.frames:
        found["counted_frames"] = counted
    read = spec.config.pixels(cell.shape)
    if read is not None and read.frames != cell.shape.frames:
        found["frames_read"] = read.frames
    return found


def _method(cell: Cell) -> ModuleType:
    return lookup.load("method", cell.method)
