"""Features and STSS encoders of a method, as it computes them at the position of its MOSS module."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from benchctl import lookup
from benchctl.data.decode import Frames
from benchctl.errors import UsageError, unknown
from benchctl.layers.multi_order_similarity import MultiOrderSelfSimilarity
from benchctl.layers.stss import SelfSimilarity, Window
from benchctl.visualize.model import load_model
from benchctl.visualize.pixels import NAME as PIXELS
from benchctl.visualize.stss import Source


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
    if preset not in lookup.entries("method"):
        raise unknown("method", preset, [*lookup.entries("method"), PIXELS], where="--encoder")
    changes: dict[str, object] = {"window": window} if window else {}
    if checkpoint is None and "orders" in lookup.load("method", preset).Config.model_fields:
        changes["orders"] = tuple(range(1, max(orders) + 1))
    loaded = load_model(
        preset,
        frames=len(frames),
        resolution=int(frames.shape[1]),
        pretrained=pretrained,
        checkpoint=checkpoint,
        changes=changes,
        where="--encoder",
        changed="--{}",
    )
    moss = next((part for part in loaded.model.modules() if isinstance(part, MultiOrderSelfSimilarity)), None)
    if moss is None:
        raise UsageError(f"'{preset}' computes no self-similarity", where="--encoder", fix="name pixels or a MOSS preset, such as moss-s")
    features = _fed(loaded.model, moss, loaded.prepare(frames))
    windows = tuple(part.window for part in moss.similarities if isinstance(part, SelfSimilarity))
    return Source(preset, loaded.said, features, windows, moss.each_order)


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
