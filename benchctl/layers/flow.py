"""Optical flow: how far what each pixel shows has moved in the next frame, as (x, y) in pixels, x to the right and y downwards.

One interface, four estimators:

    raft-large, raft-small   RAFT (Teed and Deng 2020) as torchvision has it, 12 updates; needs its published weights
    dis, farneback           OpenCV's DIS (Kroeger et al. 2016, medium preset) and Farneback (2003): on the CPU, nothing to load

Estimators are frozen: they have no trainable parameter, keep no graph and run in fp32. Pairs of frames are taken a few at a time, so
that memory does not grow with the number of pairs: all at once, RAFT-large would need 73 GiB for 16 clips of 128 frames at 224 x 224.

OpenCV's estimators are one operator with a rule for its shape, so that a model with them in it can be traced without values. They run
on one thread: DIS cuts a frame into as many stripes as there are threads, and its result depends on the stripes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchctl.errors import ShapeError, UsageError, WeightsMissing
from benchctl.layers import torchvision_weights
from benchctl.layers.full_precision import full_precision
from benchctl.layers.pretrained import RANDOM, contents
from benchctl.spec import FlowEstimatorName

# B batch, T frames, N pairs of frames

#: what needs weights: name -> torchvision's builder, its weights by default (those fine-tuned for Sintel, where there are such)
_RAFT: dict[FlowEstimatorName, tuple[str, str]] = {"raft-large": ("raft_large", "C_T_SKHT_V2"), "raft-small": ("raft_small", "C_T_V2")}
#: pairs of 224 x 224 pixels that are estimated at a time; larger frames, fewer
PAIRS_AT_ONCE = 32
#: RAFT works on an eighth of the resolution, and needs 16 positions there for its four levels of correlation
RAFT_STRIDE, RAFT_SMALLEST = 8, 128
#: OpenCV's DIS fails on frames of 8 pixels and less
OPENCV_SMALLEST = 12
RAFT_UPDATES = 12
#: Farneback: scale of the pyramid, its levels, side of the window, iterations, neighbourhood and its Gaussian (OpenCV's example values)
_FARNEBACK = (0.5, 3, 15, 3, 5, 1.2, 0)
#: of red, green and blue (ITU-R BT.601)
_LUMA = (0.299, 0.587, 0.114)


#: what can be used without weights, for messages
_OTHERWISE = "the estimator dis"


class FlowEstimator(nn.Module):
    """Flow from each frame to the next.

    Args:
        name: which estimator.
        weights: of RAFT: a name out of torchvision's list, a file, `random`, or None for the default of that list.
        load: whether published weights are loaded; without, RAFT's are random.

    Attributes:
        weights: where they come from, for the result; None where the estimator has none.

    Raises:
        UsageError: weights for an estimator that has none, or of an unknown name.
        WeightsMissing: they cannot be had or do not fit.
    """

    #: under which name its operations are counted by themselves
    counted_as = "flow"

    def __init__(self, name: FlowEstimatorName, *, weights: str | None = None, load: bool = True) -> None:
        super().__init__()
        self.name = name
        self.raft: nn.Module | None = None
        self.weights: str | None = None
        if name in _RAFT:
            self.raft, self.weights = _raft(name, weights, load=load)
        elif weights is not None:
            raise UsageError(f"flow estimator '{name}' has no weights", fix="leave them out")
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        """As torch's, but for that an estimator stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, frames_BTCHW: Tensor) -> Tensor:
        """(B, T, 3, H, W) of values 0 ... 1 to float32 (B, T - 1, 2, H, W).

        Raises:
            ShapeError: fewer than two frames, or frames too small.
        """
        B, T, _, H, W = frames_BTCHW.shape
        check_shape(self.name, T, min(H, W))
        with full_precision(frames_BTCHW.device.type):
            frames = frames_BTCHW.float()
            if self.raft is None:
                return _opencv(frames, self.name)
            pairs = max(1, PAIRS_AT_ONCE * 224 * 224 // (H * W))
            first, second = frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1)
            found = [_raft_flow(self.raft, a, b) for a, b in zip(first.split(pairs), second.split(pairs))]
            return torch.cat(found).unflatten(0, (B, T - 1))

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return self.name


def check_shape(name: FlowEstimatorName, frames: int, resolution: int) -> None:
    """Raise ShapeError where `name` cannot estimate the flow of `frames` frames with a short side of `resolution` pixels."""
    if frames < 2:
        raise ShapeError("there is no optical flow in one frame", fix="use 2 frames or more")
    smallest, otherwise = (RAFT_SMALLEST, ", or the estimator dis") if name in _RAFT else (OPENCV_SMALLEST, "")
    if resolution < smallest:
        raise ShapeError(f"{name} needs frames of {smallest} pixels, not {resolution}", fix=f"use {smallest} or more{otherwise}")


def check_weights(name: FlowEstimatorName, weights: str | None) -> None:
    """Raise WeightsMissing where the weights of `name` are neither here nor on the server that publishes them; loads nothing."""
    if name in _RAFT and weights != RANDOM:
        entry = _published(name, weights)
        if isinstance(entry, Path):
            if not entry.is_file():
                raise WeightsMissing("no such file", where=str(entry), fix="name a file of weights, or another 'flow' estimator")
        else:
            torchvision_weights.require(entry, otherwise=_OTHERWISE)


def best_available() -> tuple[FlowEstimatorName, str]:
    """`raft-large` where its published weights can be had, else `dis`, and in one line why."""
    try:
        check_weights("raft-large", None)
    except WeightsMissing as missing:
        return "dis", f"RAFT's weights are not here ({missing.what})"
    return "raft-large", "RAFT's weights are here"


def _raft(name: FlowEstimatorName, weights: str | None, *, load: bool) -> tuple[nn.Module, str]:
    from torchvision.models import optical_flow

    model: nn.Module = getattr(optical_flow, _RAFT[name][0])(weights=None)
    if not load or weights == RANDOM:
        return _LastMaskOnly.within(model), RANDOM
    entry = _published(name, weights)
    file = entry if isinstance(entry, Path) else torchvision_weights.located(entry, otherwise=_OTHERWISE)
    try:
        model.load_state_dict(contents(file))
    except (RuntimeError, TypeError, AttributeError) as error:
        problem = " ".join(str(error).split())[:160]
        raise WeightsMissing(f"does not fit {name}: {problem}", where=str(file), fix="name weights of this estimator") from None
    return _LastMaskOnly.within(model), f"{name} {file.name}"


def _published(name: FlowEstimatorName, weights: str | None) -> Any:
    """A member of torchvision's list of weights, or the path of a file.

    Raises:
        UsageError: neither.
    """
    from torchvision.models import optical_flow

    listed = getattr(optical_flow, {"raft-large": "Raft_Large_Weights", "raft-small": "Raft_Small_Weights"}[name])
    wanted = weights or _RAFT[name][1]
    if wanted in listed.__members__:
        return listed[wanted]
    if "/" in wanted or "." in wanted:
        return Path(wanted).expanduser()
    known = ", ".join(listed.__members__)
    raise UsageError(f"no weights '{wanted}' of {name}", fix=f"choose from {known}, name a file, or say random")


class _LastMaskOnly(nn.Module):
    """RAFT's mask for upsampling, made after the last update alone: torchvision makes one after each, of flow that nobody asked for."""

    def __init__(self, predictor: nn.Module) -> None:
        super().__init__()
        self.predictor = predictor
        self.left = 0

    @classmethod
    def within(cls, raft: Any) -> nn.Module:
        """`raft` with its predictor replaced; RAFT-small has none."""
        if raft.mask_predictor is not None:
            raft.mask_predictor = cls(raft.mask_predictor)
        model: nn.Module = raft
        return model

    def forward(self, hidden: Tensor) -> Tensor | None:
        """None, upon which RAFT interpolates, before the last update."""
        self.left -= 1
        mask: Tensor | None = None if self.left else self.predictor(hidden)
        return mask


def _raft_flow(raft: Any, first_N3HW: Tensor, second_N3HW: Tensor) -> Tensor:
    """Both (N, 3, H, W) of values 0 ... 1 to (N, 2, H, W)."""
    height, width = first_N3HW.shape[-2:]
    padding = (0, -width % RAFT_STRIDE, 0, -height % RAFT_STRIDE)
    first, second = (F.pad(2 * frame - 1, padding, mode="replicate") for frame in (first_N3HW, second_N3HW))
    if raft.mask_predictor is not None:
        raft.mask_predictor.left = RAFT_UPDATES
    flow: Tensor = raft(first, second, num_flow_updates=RAFT_UPDATES)[-1]
    return flow[..., :height, :width]


def _opencv(frames_BTCHW: Tensor, name: str) -> Tensor:
    red, green, blue = (255 * frames_BTCHW.clamp(0, 1)).unbind(2)
    grey = (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue).round().to(torch.uint8)
    flow: Tensor = opencv_flow(grey, name)
    return flow


@torch.library.custom_op("benchctl::opencv_flow", mutates_args=())
def opencv_flow(grey_BTHW: Tensor, name: str) -> Tensor:
    """uint8 (B, T, H, W) on any device to float32 (B, T - 1, 2, H, W) there, by OpenCV on the CPU."""
    import cv2
    import numpy as np

    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    B, T, H, W = grey_BTHW.shape
    frames = np.ascontiguousarray(grey_BTHW.cpu().numpy())
    flow = np.empty((B, T - 1, H, W, 2), np.float32)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for b in range(B):
            for t in range(T - 1):
                a, c = frames[b, t], frames[b, t + 1]
                none: Any = None
                flow[b, t] = dis.calc(a, c, none) if name == "dis" else cv2.calcOpticalFlowFarneback(a, c, none, *_FARNEBACK)
    finally:
        cv2.setNumThreads(threads)
    return torch.from_numpy(flow).permute(0, 1, 4, 2, 3).contiguous().to(grey_BTHW.device)


@opencv_flow.register_fake
def _(grey_BTHW: Tensor, name: str) -> Tensor:  # noqa: ARG001
    B, T, H, W = grey_BTHW.shape
    return grey_BTHW.new_empty((B, T - 1, 2, H, W), dtype=torch.float32)
