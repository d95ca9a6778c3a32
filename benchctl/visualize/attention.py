"""Where a model looks: attention of a class token to the patches, or of the patches to a class token (MOOSE, Algorithms 1 to 3).

    TimeSformer  last layer, spatial attention: from the class token to the patches of each frame
    ViViT        last layer: from the class token to the patches of each tubelet
    others       those that offer `look(clip)`, as MOOSE does: from each patch to the class token of the other modality

Weights are means over heads. The algorithms normalise each map by itself; the reading is to its own lowest and highest weight. So a
map tells where the model looks more than elsewhere in the same frames, not how much more: the range of the weights stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchctl import lookup
from benchctl.data.decode import Frames
from benchctl.errors import BenchctlError, UsageError
from benchctl.layers.flow import FlowEstimator
from benchctl.methods.timesformer import TimeSformer
from benchctl.methods.vivit import ViViT
from benchctl.spec import ClipShape, ModelSpec
from benchctl.visualize.flow import estimator_words
from benchctl.visualize.model import LoadedModel

# B is 1; T frames, U units, h x w patches of a unit, P patches of a frame, R pixels a side

Floats = npt.NDArray[np.float32]

#: a shape that every method takes, to see what kind of model a preset builds
_SHAPE = ClipShape(frames=8, resolution=224)


class _Seen(Protocol):
    """What `look` gives: weights (heads, U, h, w), or None where the model has no such side, and flow (U, 2, H, W) in pixels."""

    @property
    def spatial(self) -> Tensor | None: ...
    @property
    def temporal(self) -> Tensor | None: ...
    @property
    def flow(self) -> Tensor: ...


@runtime_checkable
class Looks(Protocol):
    """A model that says itself what its patches attend."""

    def look(self, clip_BTCHW: Tensor) -> _Seen:
        """What is seen in one clip; unit t begins at frame t."""
        ...


@dataclass(frozen=True)
class AttentionMaps:
    """Maps of one method, a row of the figure."""

    method: str
    #: where its weights come from, as the figure says it
    weights: str
    #: which of the method's maps these are; empty where it has one kind
    side: str
    #: from what to what, in words
    meaning: str
    #: frames that a unit spans; the first unit begins at the first frame, and each other one where the last ended
    span: int
    #: (U, h, w): attention, mean over heads
    cells: Floats
    #: (U, 2, R, R) in pixels, where the method sees flow
    flow: Floats | None = None
    #: whose flow it is, as the figure says it
    estimator: str = ""

    def over(self, resolution: int) -> Floats:
        """Each map from its lowest (0) to its highest weight (1), bilinear over the frame: (U, h, w) to (U, R, R)."""
        scaled = torch.from_numpy(normalised(self.cells))[:, None]
        shown: Floats = F.interpolate(scaled, size=(resolution, resolution), mode="bilinear")[:, 0].numpy()
        return shown


def normalised(cells_Uhw: Floats) -> Floats:
    """Each map from its lowest (0) to its highest value (1); a map of one value is 0."""
    low, high = (cells_Uhw.min((1, 2), keepdims=True), cells_Uhw.max((1, 2), keepdims=True))
    spread = np.where(high > low, high - low, 1)
    scaled: Floats = ((cells_Uhw - low) / spread).astype(np.float32)
    return scaled


def check(preset: str) -> None:
    """Refuse a method whose attention maps are not known, before its weights are loaded.

    Raises:
        UnknownName: no such preset.
        UsageError: it has none; the message names the methods that have.
    """
    if not _known(lookup.entry("method", preset).module):
        having = [name for name, entry in lookup.entries("method").items() if _known(entry.module)]
        raise UsageError(
            f"'{preset}' has no attention map that is known here", where=f"--method {preset}", fix=f"these have: {', '.join(having)}"
        )


def attention_maps(loaded: LoadedModel, frames: Frames) -> tuple[AttentionMaps, ...]:
    """What `loaded`, built with eager attention where it has the choice, attends in uint8 `frames` (T, R, R, 3).

    Raises:
        UsageError: the model is of no known kind.
    """
    model, clip = loaded.model, loaded.prepare(frames)
    with torch.inference_mode():
        if isinstance(model, TimeSformer):
            meaning = "class token to the patches of each frame, spatial attention of the last layer"
            return (AttentionMaps(loaded.preset, loaded.said, "", meaning, 1, _numbers(_timesformer(model, clip))),)
        if isinstance(model, ViViT):
            span = model.video.config.tubelet_size[0]
            meaning = f"class token to the patches of each tubelet of {span} frames, last layer"
            return (AttentionMaps(loaded.preset, loaded.said, "", meaning, span, _numbers(_vivit(model, clip))),)
        if not isinstance(model, Looks):
            raise UsageError(f"'{loaded.preset}' has no attention map that is known here", where="--method", fix="name another method")
        seen = model.look(clip)
    sides = []
    if seen.spatial is not None:
        meaning = "each patch of a frame to the class token of the flow that leaves it"
        sides.append(AttentionMaps(loaded.preset, loaded.said, "spatial", meaning, 1, _numbers(seen.spatial.mean(dim=0))))
    if seen.temporal is not None:
        meaning = "each patch of the flow that leaves a frame to the class token of the frame"
        cells, flow = _numbers(seen.temporal.mean(dim=0)), _numbers(seen.flow)
        sides.append(AttentionMaps(loaded.preset, loaded.said, "temporal", meaning, 1, cells, flow, _estimator(loaded)))
    return tuple(sides)


def _estimator(loaded: LoadedModel) -> str:
    """Who estimated the flow that the model sees: a part of it, or what comes with the clip."""
    inside = next((part for part in loaded.model.modules() if isinstance(part, FlowEstimator)), None)
    estimator = inside or loaded.flow
    return "an estimator of its own" if estimator is None else estimator_words(estimator)


def _timesformer(model: TimeSformer, clip_BTCHW: Tensor) -> Tensor:
    """(T, h, w): how much the class token attends each patch of each frame."""
    weights_TP = _captured(model, model.video.timesformer.encoder.layer[-1].attention, clip_BTCHW, output_attentions=True)
    side = round(weights_TP.shape[-1] ** 0.5)
    return weights_TP.reshape(-1, side, side)


def _vivit(model: ViViT, clip_BTCHW: Tensor) -> Tensor:
    """(U, h, w): how much the class token attends each patch of each tubelet."""
    return _captured(model, model.video.vivit.layers[-1].attention, clip_BTCHW).reshape(model.grid)


def _captured(model: nn.Module, attention: nn.Module, clip_BTCHW: Tensor, **options: bool) -> Tensor:
    """Weights of the first token on all others, mean over heads, as `attention` gives them beside its output: (N, tokens - 1).

    Only this layer is asked for them: all layers' would not fit in memory for large clips. `options` are given to its forward pass.
    """
    seen: list[Tensor] = []

    def ask(_module: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, object]) -> tuple[tuple[Tensor, ...], dict[str, object]]:
        return arguments, {**named, **options}

    def keep(_module: nn.Module, _arguments: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        seen.append(output[1][:, :, 0, 1:].mean(dim=1))

    hooks = (attention.register_forward_pre_hook(ask, with_kwargs=True), attention.register_forward_hook(keep))
    try:
        model(clip_BTCHW)
    finally:
        for hook in hooks:
            hook.remove()
    (weights,) = seen
    return weights


@cache
def _known(module: str) -> bool:
    """Whether the method file `module` builds a model whose attention is known; nothing is computed."""
    preset = next(name for name, entry in lookup.entries("method").items() if entry.module == module)
    method = lookup.load("method", preset)
    config = method.Config.model_validate(method.PRESETS[preset])
    try:
        with torch.device("meta"):
            model = method.build(ModelSpec(config, _SHAPE, 2, config.attention("auto")))
    except BenchctlError:
        # what cannot be built here cannot be looked into either
        return False
    return isinstance(model, TimeSformer | ViViT | Looks)


def _numbers(x: Tensor) -> Floats:
    numbers: Floats = x.detach().float().numpy()
    return numbers
