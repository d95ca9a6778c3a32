"""Grad-CAM of a clip: which places of a feature grid raise the logit of a class (Selvaraju et al. 2017; EMIM, Figure 4).

With A the features of a grid and y the logit, the weight of channel c is the mean of dy / dA_c over all positions, and the map is
ReLU(sum over c of weight_c A_c).

Methods announce no grid: it is looked for in what their modules give, see `grad_cam`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchctl.data.decode import Frames
from benchctl.errors import UsageError
from benchctl.visualize.grids import FeatureGrid, candidates, first_tensor, locate
from benchctl.visualize.model import LoadedModel

Floats = npt.NDArray[np.float64]

# t frames of the grid, h rows and w columns of it, C channels; T frames of the clip, R pixels a side

#: leaf modules whose output is a state of the network; those of others, such as projections, are steps inside a block
_STATES = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True)
class GradCam:
    """The map of one clip and class."""

    #: the module that gave the features, as `named_modules` calls it
    layer: str
    #: the class, and how many there are
    label: int
    classes: int
    #: softmax of the class
    probability: float
    #: whether the class is the one that the model predicts
    predicted: bool
    #: (t, h, w), at least 0; in units of the logit times the number of positions, so only comparable within the clip
    cells: Floats

    def over(self, frames: int, resolution: int) -> Floats:
        """The map over the clip's pixels: (t, h, w) to (T, R, R), trilinear.

        Where there is one grid frame for each pair of neighbours, it is shown on the first of the two, and the last frame has that of
        the frame before.
        """
        cells = torch.from_numpy(self.cells)
        if 1 < frames == len(cells) + 1:
            cells = torch.cat([cells, cells[-1:]])
        size = (frames, resolution, resolution)
        shown: Floats = F.interpolate(cells[None, None], size=size, mode="trilinear", align_corners=False)[0, 0].numpy()
        return shown


def grad_cam(loaded: LoadedModel, frames: Frames, *, label: int | None = None, layer: str | None = None) -> GradCam:
    """Grad-CAM of the clip `frames`, uint8 RGB (T, R, R, 3).

    Args:
        loaded: the method.
        frames: the clip that it was built for.
        label: index of the class; None: the predicted one.
        layer: name of a module; None: the last one whose output is a grid of the clip on which the logit depends. That is a block, a
            normalisation or a convolution, since a layer inside a block, such as a projection to values, holds no state of the network.
            Where a class token alone is read, it is what the last attention is given.

    Raises:
        UsageError: there is no such class or module, or its output is no grid, or the logit does not depend on it.
    """
    clip_BTCHW = loaded.prepare(frames)
    outputs, logits_BK = _run(loaded.model, clip_BTCHW)
    classes = logits_BK.shape[1]
    predicted = int(logits_BK[0].argmax())
    if label is not None and not 0 <= label < classes:
        raise UsageError("there is no such class", where=f"--class {label}", fix=f"use 0 to {classes - 1}")
    label = predicted if label is None else label
    found = {
        name: grids for name, tensor in outputs.items() if (grids := candidates(tensor.shape, loaded.config, len(frames), frames.shape[1]))
    }
    if layer is None:
        found = {name: grids for name, grids in found.items() if _is_state(loaded.model.get_submodule(name))}
    else:
        found = {layer: found[_checked(layer, loaded, outputs, found)]}
    name = _last_with_gradient(outputs, found, logits_BK[0, label], loaded.preset, layer)
    grid = locate(loaded.model, clip_BTCHW, name, found[name])
    (gradient,) = torch.autograd.grad(logits_BK[0, label], [outputs[name]])
    cells = weighted(grid.arrange(outputs[name].detach()), grid.arrange(gradient))
    probability = float(logits_BK[0].detach().softmax(-1)[label])
    return GradCam(name, label, classes, probability, label == predicted, cells.double().numpy())


def weighted(features_thwC: Tensor, gradient_thwC: Tensor) -> Tensor:
    """ReLU of the features' sum over channels, each weighted by its mean gradient: (t, h, w)."""
    return (features_thwC * gradient_thwC.mean(dim=(0, 1, 2))).sum(-1).relu()


def _run(model: nn.Module, clip_BTCHW: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """What each module gave, in the order in which they ended, and the logits, all in one graph."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: nn.Module, _given: object, output: object) -> None:
            tensor = first_tensor(output)
            outputs.pop(name, None)
            if tensor is not None and tensor.requires_grad:
                outputs[name] = tensor

        return hook

    with ExitStack() as watched, torch.enable_grad():
        for name, module in model.named_modules():
            if name:
                watched.enter_context(module.register_forward_hook(keep(name)))
        # a clip that asks for its gradient gives a graph to frozen layers too; it is copied since a leaf cannot be changed in place
        logits: Tensor = model(clip_BTCHW.detach().requires_grad_().clone())
    return outputs, logits


def _is_state(module: nn.Module) -> bool:
    return isinstance(module, _STATES) or next(module.children(), None) is not None


def _checked(layer: str, loaded: LoadedModel, outputs: Mapping[str, Tensor], found: Mapping[str, object]) -> str:
    """`layer`, or the error that says what it lacks."""
    if layer in found:
        return layer
    where = f"--layer {layer}"
    if layer not in dict(loaded.model.named_modules()):
        near = difflib.get_close_matches(layer, found, n=3, cutoff=0.3)
        raise UsageError(f"'{loaded.preset}' has no such module", where=where, fix=f"such are {', '.join(near)}" if near else None)
    if layer not in outputs:
        raise UsageError("no gradient reaches this module", where=where, fix="name one that is not frozen")
    shape = " x ".join(map(str, outputs[layer].shape))
    raise UsageError(f"gives {shape}, which has no feature grid", where=where, fix="name a block, a normalisation or a convolution")


def _last_with_gradient(
    outputs: Mapping[str, Tensor], found: Mapping[str, Sequence[FeatureGrid]], logit: Tensor, preset: str, layer: str | None
) -> str:
    """The last of `found` on whose grid positions, and not on a class token alone, `logit` depends."""
    names = list(found)
    tensors = [outputs[name] for name in names]
    gradients = torch.autograd.grad(logit, tensors, retain_graph=True, allow_unused=True) if tensors and logit.requires_grad else ()
    for name, gradient in reversed(list(zip(names, gradients))):
        # in every arrangement: in a wrong one, a class token may stand where the right one has a place
        if gradient is not None and all(bool(grid.arrange(gradient).any()) for grid in found[name]):
            return name
    if layer is not None:
        raise UsageError(
            "the class does not depend on the grid that this module gives", where=f"--layer {layer}", fix="name an earlier one"
        )
    raise UsageError(f"'{preset}' has no feature grid on which its classes depend", where="--method", fix="name a module with --layer")
