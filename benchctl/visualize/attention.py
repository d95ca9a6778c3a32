"""Where a model looks: attention of a class token to the patches, or of the patches to a class token (MOOSE, Algorithms 1 to 3).

    TimeSformer  spatial attention: from the class token to the patches of each frame
    ViViT        from the class token to the patches of each tubelet
    ViT          from the class token to the patches of each frame
    VideoMAE     from all tokens, in the mean, to the patches of each tubelet
    others       those that offer `look(clip)`, as MOOSE does: from each patch to the class token of the other modality

These are of the last layer, or of others too: Figure 6 of "When Spatial meets Temporal in Action Recognition" (Chen, Wang, Chen, Gedeon and
Koniusz) shows all 12 of a VideoMAE, with and without the TIME layer. Behind a TIME layer, frames are its grids of small frames. The paper
speaks of a class token, which VideoMAE does not have: its classifier reads the mean of all tokens, and so does the map.

Weights are means over heads. The algorithms normalise each map by itself; the reading is to its own lowest and highest weight. So a
map tells where the model looks more than elsewhere in the same frames, not how much more: the range of the weights stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchctl import lookup
from benchctl.data.decode import Frames
from benchctl.errors import BenchctlError, UsageError
from benchctl.layers.flow import FlowEstimator
from benchctl.layers.time_layer import TimeLayer
from benchctl.layers.video_classifier import VideoClassifier
from benchctl.layers.video_transformer import FineTuned
from benchctl.layers.videomae import VideoMAE
from benchctl.methods.timesformer import TimeSformer
from benchctl.methods.vivit import ViViT
from benchctl.spec import Attention, ModelSpec
from benchctl.visualize.features import given
from benchctl.visualize.flow import estimator_words
from benchctl.visualize.model import LoadedModel
from benchctl.vocabulary import ClipShape

# B is 1; T frames that the model works on, U units, h x w patches of a unit, R pixels a side; N sequences, H heads, Q queries, K keys

Floats = npt.NDArray[np.float32]
#: whose attention is asked for; layers count from 1
Layers = Literal["last", "all"] | tuple[int, ...]

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
    """Maps of one layer of a method, a row of the figure."""

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
    #: uint8 RGB (T, R, R, 3): the frames that they lie over; behind a TIME layer, its grids of small frames
    given: Frames
    #: which layer of how many, in words; empty where it is the last, or the only one
    layer: str = ""
    #: cells along a side of the TIME layer's grid
    grid: int = 1
    #: (U, 2, R, R) in pixels, where the method sees flow
    flow: Floats | None = None
    #: whose flow it is, as the figure says it
    estimator: str = ""

    @property
    def resolution(self) -> int:
        """R, in pixels."""
        return int(self.given.shape[1])

    def over(self) -> Floats:
        """Each map from its lowest (0) to its highest weight (1), bilinear over the frame: (U, h, w) to (U, R, R)."""
        scaled = torch.from_numpy(normalised(self.cells))[:, None]
        shown: Floats = F.interpolate(scaled, size=(self.resolution, self.resolution), mode="bilinear")[:, 0].numpy()
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
    lookup.entry("method", preset)
    if not _known(*_kind(preset)):
        none = _kind(preset)[1] == ("none",)
        what = f"'{preset}' has no attention" if none else f"'{preset}' has no attention map that is known here"
        having = [name for name in lookup.entries("method") if _known(*_kind(name))]
        raise UsageError(what, where=f"--method {preset}", fix=f"these have: {', '.join(having)}")


def attention_maps(loaded: LoadedModel, frames: Frames, layers: Layers = "last") -> tuple[AttentionMaps, ...]:
    """What `loaded`, built with eager attention where it has the choice, attends in a clip.

    Args:
        loaded: the method.
        frames: uint8 RGB, as they are read of the clip: `loaded.read` says how many, and how large.
        layers: whose attention. What a model says itself that it attends is that of one layer.

    Returns:
        The maps of each layer, in the order asked for.

    Raises:
        UsageError: the model is of no known kind, or has no such layer.
    """
    model, clip = loaded.model, loaded.prepare(frames)
    if isinstance(model, Looks):
        _numbers_of(layers, 1, loaded.preset)
        return _looked(loaded, model, clip, frames)
    attention = _attention(model)
    if attention is None:
        raise UsageError(f"'{loaded.preset}' has no attention map that is known here", where="--method", fix="name another method")
    total = len(attention.parts)
    numbers = _numbers_of(layers, total, loaded.preset)
    with torch.inference_mode():
        weights = _captured(model, clip, {number: attention.parts[number - 1] for number in numbers}, attention.read)
    shown = given(loaded, frames)
    grid = next((module.grid for module in model.modules() if isinstance(module, TimeLayer)), 1)
    side = shown.shape[1] // loaded.config.patch_size
    words = {"article": "the ", "layers": "last layer"} if layers == "last" else {"article": "", "layers": _words(numbers, total)}
    meaning = attention.meaning.format(**words)
    if grid > 1:
        meaning += f"; a frame is a grid of {grid} x {grid} of the clip's"
    return tuple(
        AttentionMaps(
            loaded.preset,
            loaded.said,
            "",
            meaning,
            attention.span,
            _array(weights[number].reshape(-1, side, side)),
            shown,
            "" if layers == "last" else f"layer {number} of {total}",
            grid,
        )
        for number in numbers
    )


def _numbers_of(layers: Layers, total: int, preset: str) -> tuple[int, ...]:
    """The layers that are asked for, each once, of `total`."""
    if isinstance(layers, str):
        return (total,) if layers == "last" else tuple(range(1, total + 1))
    for number in layers:
        if not 1 <= number <= total:
            has, fix = ("1 layer", "name layer 1") if total == 1 else (f"{total} layers", f"name layers from 1 to {total}")
            raise UsageError(f"'{preset}' has {has} of attention", where=f"--layers {number}", fix=fix)
    return tuple(dict.fromkeys(layers))


def _words(numbers: Sequence[int], total: int) -> str:
    if len(numbers) == total > 1:
        return f"all {total} layers"
    return f"layer{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))} of {total}"


def _looked(loaded: LoadedModel, model: Looks, clip_BTCHW: Tensor, frames: Frames) -> tuple[AttentionMaps, ...]:
    """Both sides of what a model says that it attends, or the one that it has."""
    with torch.inference_mode():
        seen = model.look(clip_BTCHW)
    sides = []
    if seen.spatial is not None:
        meaning = "each patch of a frame to the class token of the flow that leaves it"
        sides.append(AttentionMaps(loaded.preset, loaded.said, "spatial", meaning, 1, _array(seen.spatial.mean(dim=0)), frames))
    if seen.temporal is not None:
        meaning = "each patch of the flow that leaves a frame to the class token of the frame"
        cells, flow = _array(seen.temporal.mean(dim=0)), _array(seen.flow)
        estimator = _estimator(loaded)
        sides.append(AttentionMaps(loaded.preset, loaded.said, "temporal", meaning, 1, cells, frames, flow=flow, estimator=estimator))
    return tuple(sides)


def _estimator(loaded: LoadedModel) -> str:
    """Who estimated the flow that the model sees: a part of it, or what comes with the clip."""
    inside = next((part for part in loaded.model.modules() if isinstance(part, FlowEstimator)), None)
    estimator = inside or loaded.flow
    return "an estimator of its own" if estimator is None else estimator_words(estimator)


@dataclass(frozen=True)
class _Attention:
    """Where the weights of a kind of model are, and what is read of them."""

    #: one for each layer: gives the weights (N, H, Q, K), or a pair whose second they are
    parts: Sequence[nn.Module]
    #: from these to those of the patches, mean over heads: (N, patches)
    read: Callable[[Tensor], Tensor]
    #: frames that a unit spans
    span: int
    #: from what to what, in words, with places for `layers`, and for an `article` before them
    meaning: str


def _attention(model: nn.Module) -> _Attention | None:
    """None: it is of no kind that is known here."""
    if isinstance(model, TimeSformer):
        parts = [layer.attention.attention.attn_drop for layer in model.video.timesformer.encoder.layer]
        return _Attention(parts, _of_class_token(1), 1, "class token to the patches of each frame, spatial attention of {article}{layers}")
    if isinstance(model, ViViT):
        parts, span = [layer.attention for layer in model.video.vivit.layers], model.video.config.tubelet_size[0]
        return _Attention(parts, _of_class_token(1), span, f"class token to the patches of each tubelet of {span} frames, {{layers}}")
    if isinstance(model, VideoMAE):
        video = model.video.videomae
        parts, span = [layer.attention.attention for layer in video.encoder.layer], video.config.tubelet_size
        unit = "frame" if span == 1 else f"tubelet of {span} frames"
        return _Attention(parts, _of_all_tokens, span, f"all tokens, in the mean, to the patches of each {unit}, {{layers}}")
    if isinstance(model, VideoClassifier) and isinstance(model.video, FineTuned):
        encoder = model.video.encoder
        parts = [block.attn.attn_drop for block in encoder.vit.blocks]
        return _Attention(parts, _of_class_token(encoder.prefix_tokens), 1, "class token to the patches of each frame, {layers}")
    return None


def _of_class_token(prefix: int) -> Callable[[Tensor], Tensor]:
    """Weights of the first token on those after the first `prefix`."""

    def read(weights_NHQK: Tensor) -> Tensor:
        return weights_NHQK[:, :, 0, prefix:].mean(dim=1)

    return read


def _of_all_tokens(weights_NHQK: Tensor) -> Tensor:
    return weights_NHQK.mean(dim=(1, 2))


def _captured(model: nn.Module, clip_BTCHW: Tensor, parts: Mapping[int, nn.Module], read: Callable[[Tensor], Tensor]) -> dict[int, Tensor]:
    """What `read` makes of the weights of each of `parts`, under the same number.

    It is made while the layer runs: the whole weights of all layers would not fit in memory for large clips.
    """
    seen: dict[int, Tensor] = {}

    def keeping(number: int) -> Callable[[nn.Module, object, Tensor | tuple[Tensor, Tensor]], None]:
        def keep(_module: nn.Module, _given: object, output: Tensor | tuple[Tensor, Tensor]) -> None:
            seen[number] = read(output if isinstance(output, Tensor) else output[1])

        return keep

    hooks = [part.register_forward_hook(keeping(number)) for number, part in parts.items()]
    try:
        model(clip_BTCHW)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


@cache
def _kind(preset: str) -> tuple[str, tuple[Attention, ...]]:
    """Presets of one kind have one kind of attention: their file, and the backends, which one file's hosts may differ in."""
    method = lookup.load("method", preset)
    return method.__name__, method.Config.model_validate(method.PRESETS[preset]).backends()


@cache
def _known(module: str, backends: tuple[Attention, ...]) -> bool:
    """Whether presets of this kind build a model whose attention is known; nothing is computed."""
    if backends == ("none",):
        return False
    preset = next(name for name in lookup.entries("method") if _kind(name) == (module, backends))
    method = lookup.load("method", preset)
    config = method.Config.model_validate(method.PRESETS[preset])
    try:
        with torch.device("meta"):
            model = method.build(ModelSpec(config, _SHAPE, 2, config.attention("auto")))
    except BenchctlError:
        # what cannot be built here cannot be looked into either
        return False
    return isinstance(model, Looks) or _attention(model) is not None


def _array(x: Tensor) -> Floats:
    numbers: Floats = x.detach().float().numpy()
    return numbers
