"""A method preset with its weights, ready to be looked into, and clips as it takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from benchctl import lookup
from benchctl.data.decode import Frames
from benchctl.errors import ShapeError, UsageError, WeightsMissing, unknown
from benchctl.layers import flow
from benchctl.layers.pretrained import RANDOM, State, contents, read
from benchctl.spec import Attention, MethodConfig, ModelSpec, Rgb
from benchctl.visualize.flow import estimator_words
from benchctl.vocabulary import ClipShape

# T frames, R pixels a side, C channels

#: width of a classifier with random weights, and of one with published ones (those of Kinetics-400)
_RANDOM_CLASSES, _PUBLISHED_CLASSES = 2, 400


@dataclass(frozen=True)
class LoadedModel:
    """One model in evaluation mode, on the CPU."""

    model: nn.Module
    config: MethodConfig
    preset: str
    #: where its weights come from, as a figure says it
    said: str
    #: mean and standard deviation that its clips are normalised by
    statistics: tuple[Rgb, Rgb]
    #: what estimates the flow that it reads with each clip; None: it is given RGB alone
    flow: flow.FlowEstimator | None = None
    #: frames, and their size, that it reads of a video; None: it reads no pixels, or whatever it is given
    read: ClipShape | None = None

    def prepare(self, frames: Frames) -> Tensor:
        """uint8 RGB (T, R, R, 3) to the clip that the model takes: (1, T, C, R, R), normalised.

        Where the method reads flow with each clip, C is 5: flow in pixels to the next frame, 0 in the last one. Where it reads depth, C
        is 1: the mean over the channels, normalised by the means of both statistics, as the loader does with depth.

        Raises:
            UsageError: the method reads other frames, or point tracks.
        """
        self._check(frames)
        pixels_T3RR = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
        mean, std = self._scale()
        if self.config.clip_modality() == "depth":
            return ((pixels_T3RR.mean(1, keepdim=True) - mean) / std)[None]
        clip_BTCHW = ((pixels_T3RR - mean) / std)[None]
        if self.flow is None:
            return clip_BTCHW
        found = self.flow(pixels_T3RR[None])
        return torch.cat([clip_BTCHW, torch.cat([found, torch.zeros_like(found[:, :1])], dim=1)], dim=2)

    def _check(self, frames: Frames) -> None:
        where = f"--method {self.preset}"
        shape = self.read or ClipShape(frames=frames.shape[0], resolution=frames.shape[1])
        if any(len(each) != 4 for each in self.config.input_shapes(shape)):
            raise UsageError(f"'{self.preset}' reads point tracks, which this picture has not", where=where, fix="name a method of pixels")
        if frames.shape[:2] != (shape.frames, shape.resolution):
            reads = f"{shape.frames} frames of {shape.resolution} x {shape.resolution} pixels"
            what = f"'{self.preset}' reads {reads} for such a clip, and this picture shows the clip's own"
            raise UsageError(what, where=where, fix="see 'benchctl visualize features', or change the preset's option 'grid' to 1")

    def colours(self, frames_TCHW: Tensor) -> Tensor:
        """Normalised frames as colours, 0 to 1 where they are those of a video."""
        mean, std = self._scale()
        return frames_TCHW * std + mean

    def _scale(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, to be used with (T, C, H, W)."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in self.statistics)
        return (mean.mean(), std.mean()) if self.config.clip_modality() == "depth" else (mean, std)


def load_model(
    preset: str,
    *,
    frames: int,
    resolution: int,
    pretrained: bool = False,
    checkpoint: Path | None = None,
    changes: Mapping[str, object] | None = None,
    attention: Attention = "auto",
    pretraining: bool = False,
    where: str = "--method",
    changed: str = "--set {}",
) -> LoadedModel:
    """Build `preset` for clips of `frames` frames of `resolution` x `resolution` pixels.

    Args:
        preset: a method preset.
        frames: T.
        resolution: R, pixels a side.
        pretrained: published weights for what has some; otherwise all weights are random, the same each time.
        checkpoint: weights of a training of the same preset, with the options that it had.
        changes: other values of the preset's options.
        attention: backend; what the method does not offer is replaced by its own default.
        pretraining: the model that learns by reconstruction, in place of the one that classifies; a checkpoint is then one of its own.
        where: the option that named the preset, for errors.
        changed: the option that changed the preset's option `{}`, for errors.

    Raises:
        UnknownName: no such preset.
        UsageError: it has no such options, or cannot take such clips, or no weights are published, or it does not pre-train; or both kinds
            of weights are asked for, or the checkpoint is of another method or task.
        WeightsMissing: the weights cannot be had or do not fit.
    """
    if pretrained and checkpoint:
        raise UsageError("a checkpoint has all weights", where="--pretrained", fix="leave out --pretrained or --checkpoint")
    if preset not in lookup.entries("method"):
        raise unknown("method", preset, lookup.entries("method"), where=where)
    module = lookup.load("method", preset)
    asked = dict(changes or {})
    trained = _trained_config(checkpoint, preset, where, pretraining=pretraining) if checkpoint else {}
    config = _config(module, preset, {**trained, **asked}, {key: changed.format(key) for key in asked}, where)
    if pretrained and config.weights is None:
        raise UsageError(f"no weights are published for '{preset}'", where="--pretrained", fix="leave it out: weights are then random")
    shape = _shape(config, preset, ClipShape(frames=frames, resolution=resolution), where)
    make: Callable[[ModelSpec], nn.Module] = _pretraining(module, config, preset, where) if pretraining else module.build
    backend = config.attention(attention if attention in config.backends() else "auto")

    def build(classes: int) -> nn.Module:
        return make(ModelSpec(config, shape, classes, backend, pretrained=pretrained))

    model, weights = _with_weights(build, preset, checkpoint, pretrained=pretrained)
    said = "random weights" if weights == RANDOM else f"weights: {weights}"
    estimator = _estimator(config, shape, f"{where} {preset}")
    if estimator:
        said += f", flow by {estimator_words(estimator)}"
    statistics = config.statistics() or (module.MEAN, module.STD)
    return LoadedModel(model.eval(), config, preset, said, statistics, estimator, config.pixels(shape))


def _pretraining(module: ModuleType, config: MethodConfig, preset: str, where: str) -> Any:
    """What builds the model that learns by reconstruction."""
    if not config.pretrains():
        able = []
        for name in lookup.entries("method"):
            other = lookup.load("method", name)
            if other.Config.model_validate(other.PRESETS[name]).pretrains():
                able.append(name)
        raise UsageError(f"'{preset}' does not learn by reconstruction", where=f"{where} {preset}", fix=f"such are {', '.join(able)}")
    return module.build_pretraining


def _with_weights(build: Callable[[int], nn.Module], preset: str, checkpoint: Path | None, *, pretrained: bool) -> tuple[nn.Module, str]:
    """What `build` makes for the classes of its weights, with these, and where they come from."""
    state = read(checkpoint) if checkpoint else {}
    classes = _classes(build, state) if checkpoint else _PUBLISHED_CLASSES if pretrained else _RANDOM_CLASSES
    torch.manual_seed(0)
    model = build(classes)
    if checkpoint is None:
        return model, str(getattr(model, "weights", RANDOM))
    _load(model, state, checkpoint, preset)
    return model, checkpoint.name


def _trained_config(checkpoint: Path, preset: str, where: str, *, pretraining: bool) -> dict[str, object]:
    """The options that a training had, where its checkpoint says them."""
    content = contents(checkpoint)
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
        return {}
    if pretraining != (content.get("task") == "pretrain"):
        found, fix = ("classifies", "a pre-training") if pretraining else ("was pre-trained by reconstruction", "a training")
        raise UsageError(f"holds a model that {found}", where=str(checkpoint), fix=f"name a checkpoint that {fix} left")
    if content.get("method") != preset:
        raise UsageError(f"a checkpoint of '{content.get('method')}'", where=str(checkpoint), fix=f"use {where} {content.get('method')}")
    return dict(content["config"])


def _config(module: ModuleType, preset: str, changes: dict[str, Any], asked: Mapping[str, str], where: str) -> MethodConfig:
    """The preset's config with `changes`; `asked` says by which option each of the user's own was asked for."""
    try:
        config: MethodConfig = module.Config.model_validate({**module.PRESETS[preset], **changes})
    except ValidationError as invalid:
        problem = invalid.errors(include_url=False)[0]
        option = asked.get(str(problem["loc"][0]), where) if problem["loc"] else where
        what = "has no such option" if problem["type"] == "extra_forbidden" else f"cannot be built so: {problem['msg']}"
        raise UsageError(f"'{preset}' {what}", where=option, fix="leave it out for the preset's own") from None
    return config


def _shape(config: MethodConfig, preset: str, shape: ClipShape, where: str) -> ClipShape:
    if shape.resolution % config.patch_size:
        raise UsageError(
            f"{shape.resolution} is not a multiple of the patch size {config.patch_size} of '{preset}'",
            where="--resolution",
            fix=f"use {config.padded(shape.resolution)}",
        )
    try:
        config.check(shape, pad=False)
    except ShapeError as error:
        raise UsageError(error.what, where=f"{where} {preset}", fix=error.fix) from None
    return shape


def _classes(build: Callable[[int], nn.Module], state: State) -> int:
    """The classes that the weights `state` are for: the length, in it, of what is longer in a model for one class more."""
    with torch.device("meta"):
        fewer, more = (build(classes).state_dict() for classes in (_RANDOM_CLASSES, _RANDOM_CLASSES + 1))
    for name, tensor in fewer.items():
        grown = [axis for axis, (a, b) in enumerate(zip(tensor.shape, more[name].shape)) if a != b]
        if grown and name in state and state[name].ndim == tensor.ndim:
            return state[name].shape[grown[0]]
    return _RANDOM_CLASSES


def _load(model: nn.Module, state: State, checkpoint: Path, preset: str) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:200]
        raise WeightsMissing(problem, where=str(checkpoint), fix=f"name a checkpoint of {preset}") from None


def _estimator(config: MethodConfig, shape: ClipShape, where: str) -> flow.FlowEstimator | None:
    """What estimates the flow that the method reads with each clip; where a data set would carry it, the one without weights."""
    wanted = config.clip_flow()
    if wanted is None:
        return None
    name = "dis" if wanted.estimator == "exact" else wanted.estimator
    try:
        flow.check_shape(name, shape.frames, shape.resolution)
    except ShapeError as error:
        raise UsageError(error.what, where=where, fix=error.fix) from None
    return flow.FlowEstimator(name, weights=wanted.weights if wanted.estimator != "exact" else None)
