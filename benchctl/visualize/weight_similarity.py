"""How alike two models are, layer by layer: the cosine between their weights.

Source: "When Spatial meets Temporal in Action Recognition" (Chen, Wang, Chen, Gedeon and Koniusz), section 4.2 and Figures 5 and 7 to 12,
which compare models with and without the TIME layer, and its two arrangements.

Reading. A layer is one tensor with two axes or more, flattened: kernels and matrices, and with them class tokens and position tables that
are learned. Biases and normalisations are left out, as they are in the paper's figures; a bias is too short for its cosine to say much.

Two models that were trained from different random weights have a cosine of about 0 in every layer (its deviation is 1 / sqrt(elements)),
whatever they learned; so only models that started from the same weights, published ones or those of one seed, tell by a low cosine that a
layer moved.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

#: what a layer's tensor is called, where it is what every layer has
_USUAL = ".weight"


@dataclass(frozen=True)
class LayerSimilarity:
    """One layer of both models."""

    #: the tensor's name, without `.weight`
    layer: str
    #: of the first model's tensor, or of the second's where only that has it
    elements: int
    #: from -1 to 1; None: there is none
    cosine: float | None
    #: why there is none
    reason: str = ""

    @property
    def group(self) -> str:
        """The block that the layer is part of: its name as far as its first number; empty outside of blocks."""
        found = re.match(r"(?:[^.]+\.)*?\d+(?=\.)", self.layer)
        return found.group() if found else ""


def layer_similarities(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> tuple[LayerSimilarity, ...]:
    """Every layer of two models, in the order in which the first one has them, and after them what only the second one has.

    Args:
        first: tensors by name, as `state_dict` gives them.
        second: the same of the other model.
    """
    layers = {name: tensor for name, tensor in first.items() if _is_layer(tensor)}
    others = {name: tensor for name, tensor in second.items() if _is_layer(tensor)}
    rows = [_compared(name, tensor, others.get(name)) for name, tensor in layers.items()]
    rows += [_without(name, tensor, "only in the second") for name, tensor in others.items() if name not in layers]
    return tuple(rows)


def cosine(first: Tensor, second: Tensor) -> float:
    """The cosine between two tensors of one shape, flattened, in float64: their dot product over the product of their norms.

    Raises:
        ValueError: there is none, since a tensor is zero or not finite.
    """
    a, b = first.flatten().double(), second.flatten().double()
    for name, tensor in (("first", a), ("second", b)):
        if not tensor.isfinite().all():
            raise ValueError(f"not finite in the {name}")
        if not tensor.any():
            raise ValueError(f"all zero in the {name}")
    # rounding may put that of equal tensors above 1
    return min(1.0, max(-1.0, float(a @ b / (a.norm() * b.norm()))))


def _is_layer(tensor: Tensor) -> bool:
    return tensor.ndim > 1 and tensor.is_floating_point()


def _compared(name: str, first: Tensor, second: Tensor | None) -> LayerSimilarity:
    if second is None:
        return _without(name, first, "only in the first")
    if first.shape != second.shape:
        shapes = (" x ".join(map(str, tensor.shape)) for tensor in (first, second))
        return _without(name, first, f"shapes differ: {' and '.join(shapes)}")
    try:
        return LayerSimilarity(name.removesuffix(_USUAL), first.numel(), cosine(first, second))
    except ValueError as problem:
        return _without(name, first, str(problem))


def _without(name: str, tensor: Tensor, reason: str) -> LayerSimilarity:
    return LayerSimilarity(name.removesuffix(_USUAL), tensor.numel(), None, reason)


def common_prefix(layers: tuple[LayerSimilarity, ...]) -> str:
    """What all layers' names begin with, in whole parts, with the dot: `video.`; a figure says it once."""
    parts = [row.layer.split(".")[:-1] for row in layers]
    shared: list[str] = []
    for level in zip(*parts):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return "".join(f"{part}." for part in shared)
