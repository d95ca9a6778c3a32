"""From a cell to its model and its data."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from benchctl import lookup
from benchctl.data.clip_set import ClipSet
from benchctl.data.flow_views import flow_source
from benchctl.data.loading import LoadSettings
from benchctl.data.transforms import Normalisation
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
    model: nn.Module = _method(cell).build(model_spec(cell, pretrained=pretrained))
    return model


def load_settings(cell: Cell) -> LoadSettings:
    """How the cell's clips become batches."""
    method = _method(cell)
    config = method.Config.model_validate(cell.config)
    statistics, flow = config.statistics() or (method.MEAN, method.STD), config.clip_flow()
    source = flow_source(flow, cell.dataset, cell.recipe.frame_stride) if flow and cell.dataset else None
    return LoadSettings(cell.shape, cell.recipe, Normalisation(*statistics), flow=source)


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
    return clips


def notes(cell: Cell, model: nn.Module) -> dict[str, object]:
    """Facts about the model that belong beside its numbers."""
    spec = model_spec(cell)
    found: dict[str, object] = {"weights": str(getattr(model, "weights", "random")), **getattr(model, "notes", {})}
    if spec.padded_resolution != cell.shape.resolution:
        found["padding"] = f"{cell.shape.resolution} to {spec.padded_resolution} pixels: patch {spec.config.patch_size}"
    counted = spec.config.counted_frames(cell.shape.frames)
    if counted != cell.shape.frames:
        found["counted_frames"] = counted
    return found


def _method(cell: Cell) -> ModuleType:
    return lookup.load("method", cell.method)
