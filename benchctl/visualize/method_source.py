"""Features and STSS encoders of a method, as it computes them at the position of its MOSS module."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from benchctl import lookup
from benchctl.data.decode import Frames
from benchctl.errors import ShapeError, UsageError, WeightsMissing, unknown
from benchctl.layers.multi_order_similarity import MultiOrderSelfSimilarity
from benchctl.layers.pretrained import RANDOM, contents, read
from benchctl.layers.stss import SelfSimilarity, Window
from benchctl.spec import ClipShape, MethodConfig, ModelSpec, Rgb
from benchctl.visualize.pixels import NAME as PIXELS
from benchctl.visualize.stss import Source

#: width of the classifier where no checkpoint says it; self-similarity comes before it
_CLASSES = 2


class _Reached(Exception):
    """Ends a forward pass where the features are that are looked for."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features


def method_source(
    preset: str,
    frames: Frames,
    *,
    orders: Sequence[int],
    window: Window | None = None,
    pretrained: bool = False,
    checkpoint: Path | None = None,
) -> Source:
    """What the first MOSS module of `preset` is fed, and its STSS encoders, on the CPU in evaluation mode.

    Args:
        preset: a method preset.
        frames: uint8 RGB (T, R, R, 3).
        orders: those to be shown; without a checkpoint, the model is built with all up to the highest of them.
        window: (L, U, V), odd; None: the preset's.
        pretrained: published weights for what has some; otherwise all weights are random, the same each time.
        checkpoint: weights of a training of the same preset.

    Raises:
        UnknownName: no such preset.
        UsageError: it has no MOSS module, or its window cannot be another, or it cannot take these frames; or both kinds of weights are
            asked for.
        WeightsMissing: the weights cannot be had or do not fit.
    """
    if pretrained and checkpoint:
        raise UsageError("a checkpoint has all weights", where="--pretrained", fix="leave out --pretrained or --checkpoint")
    if preset not in lookup.entries("method"):
        raise unknown("method", preset, [*lookup.entries("method"), PIXELS], where="--encoder")
    module = lookup.load("method", preset)
    changes: dict[str, object] = {"window": window} if window else {}
    if checkpoint is None and "orders" in module.Config.model_fields:
        changes["orders"] = tuple(range(1, max(orders) + 1))
    config = _config(module, preset, {**(_trained_config(checkpoint, preset) if checkpoint else {}), **changes}, list(changes))
    if pretrained and config.weights is None:
        raise UsageError(f"no weights are published for '{preset}'", where="--pretrained", fix="leave it out: weights are then random")
    shape = _shape(config, preset, frames)
    state = read(checkpoint) if checkpoint else {}
    classes = len(state["classifier.bias"]) if "classifier.bias" in state else _CLASSES
    torch.manual_seed(0)
    model: nn.Module = module.build(ModelSpec(config, shape, classes, config.attention("auto"), pretrained=pretrained))
    moss = next((part for part in model.modules() if isinstance(part, MultiOrderSelfSimilarity)), None)
    if moss is None:
        raise UsageError(f"'{preset}' computes no self-similarity", where="--encoder", fix="name pixels or a MOSS preset, such as moss-s")
    weights = str(getattr(model, "weights", RANDOM))
    if checkpoint:
        _load(model, state, checkpoint, preset)
        weights = checkpoint.name
    features = _fed(model.eval(), moss, _normalised(frames, config.statistics() or (module.MEAN, module.STD)))
    windows = tuple(part.window for part in moss.similarities if isinstance(part, SelfSimilarity))
    said = "random weights" if weights == RANDOM else f"weights: {weights}"
    return Source(preset, said, features, windows, moss.each_order)


def _trained_config(checkpoint: Path, preset: str) -> dict[str, object]:
    """The options that a training had, where its checkpoint says them."""
    content = contents(checkpoint)
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
        return {}
    if content.get("method") != preset:
        raise UsageError(f"a checkpoint of '{content.get('method')}'", where=str(checkpoint), fix=f"use --encoder {content.get('method')}")
    return dict(content["config"])


def _config(module: ModuleType, preset: str, changes: dict[str, object], asked: Sequence[str]) -> MethodConfig:
    try:
        config: MethodConfig = module.Config.model_validate({**module.PRESETS[preset], **changes})
    except ValidationError as invalid:
        problem = invalid.errors(include_url=False)[0]
        option = f"--{problem['loc'][0]}" if problem["loc"] and problem["loc"][0] in asked else "--encoder"
        what = "has no such option" if problem["type"] == "extra_forbidden" else f"cannot be built so: {problem['msg']}"
        raise UsageError(f"'{preset}' {what}", where=option, fix="leave it out for the preset's own") from None
    return config


def _shape(config: MethodConfig, preset: str, frames: Frames) -> ClipShape:
    resolution = int(frames.shape[1])
    if resolution % config.patch_size:
        raise UsageError(
            f"{resolution} is not a multiple of the patch size {config.patch_size} of '{preset}'",
            where="--resolution",
            fix=f"use {config.padded(resolution)}",
        )
    shape = ClipShape(frames=len(frames), resolution=resolution)
    try:
        config.check(shape, pad=False)
    except ShapeError as error:
        raise UsageError(error.what, where=f"--encoder {preset}", fix=error.fix) from None
    return shape


def _load(model: nn.Module, state: dict[str, Tensor], checkpoint: Path, preset: str) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:200]
        raise WeightsMissing(problem, where=str(checkpoint), fix=f"name a checkpoint of {preset}") from None


def _normalised(frames: Frames, statistics: tuple[Rgb, Rgb]) -> Tensor:
    """uint8 (T, R, R, 3) to what the method takes: (1, T, 3, R, R)."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in statistics)
    return ((torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255 - mean) / std)[None]


def _fed(model: nn.Module, moss: MultiOrderSelfSimilarity, clip_BTCHW: Tensor) -> Tensor:
    """F: what `moss` is given for the clip, (1, T, H, W, C). The model runs no further than there."""

    def stop(_moss: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        raise _Reached(arguments[0])

    hook = moss.register_forward_pre_hook(stop)
    try:
        with torch.inference_mode():
            model(clip_BTCHW)
    except _Reached as reached:
        return reached.features
    finally:
        hook.remove()
    raise UsageError("the model does not use its MOSS module", where="--encoder", fix="name another preset")
