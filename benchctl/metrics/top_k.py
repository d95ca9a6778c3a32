"""Top-k accuracy: the fraction of clips whose true class is among the k highest scores (MOOSE, equations 5 and 6)."""

from __future__ import annotations

import torch
from torch import Tensor


def correct(scores_BC: Tensor, labels_B: Tensor, k: int) -> Tensor:
    """Whether each clip's class is among its k highest scores: (B,) bool.

    A class that ties with the k-th score counts by its position, as a stable descending sort puts it: a constant output is
    then right for k of the classes, not for all.
    """
    order = torch.sort(scores_BC, dim=-1, descending=True, stable=True).indices[:, :k]
    return (order == labels_B[:, None]).any(-1)


def accuracy(scores_BC: Tensor, labels_B: Tensor, k: int) -> float:
    """The fraction of clips that `correct` counts.

    Raises:
        ValueError: there is no clip.
    """
    if len(labels_B) == 0:
        raise ValueError("the accuracy of no clips is not a number")
    return correct(scores_BC, labels_B, k).double().mean().item()
