"""Which points of a clip decide (MovT, section 6, Figures 10 and 11): a saliency of each track.

A track's saliency is the norm of the gradient of a class's logit with respect to all its values, over the largest of the clip: 0 to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchctl.data.sampling import eval_indices
from benchctl.data.track_views import chosen
from benchctl.data.tracks import Tracks
from benchctl.errors import UsageError
from benchctl.visualize.model import LoadedModel
from benchctl.vocabulary import ClipShape

#: of the points, the share that is shown alone
TOP_SHARE = 0.1


@dataclass(frozen=True)
class Saliency:
    """How much each track matters for one class."""

    #: (T, N, 3): what the model was given
    tracks: Tracks
    #: (N,), 0 to 1
    scores: npt.NDArray[np.float64]
    label: int
    classes: int
    probability: float
    #: whether the class is the model's own answer
    predicted: bool

    @property
    def top(self) -> npt.NDArray[np.int64]:
        """The tenth of the tracks that matters most, at least one."""
        return np.argsort(-self.scores, kind="stable")[: max(1, math.ceil(TOP_SHARE * len(self.scores)))]


def saliency(loaded: LoadedModel, tracks_FN3: Tracks, frames: int, label: int | None = None) -> Saliency:
    """The saliency of the tracks that the model reads of a clip, sampled as in evaluation.

    Args:
        loaded: a method that reads tracks alone.
        tracks_FN3: of all frames of the clip.
        frames: T, as the model was built.
        label: index of the class; None: the model's own answer.

    Raises:
        UsageError: the method reads something else, or there is no such class.
    """
    wanted = loaded.config.input_shapes(ClipShape(frames=frames, resolution=loaded.config.patch_size))
    if len(wanted) != 1 or wanted[0][-1] != 3 or len(wanted[0]) != 3:
        raise UsageError(f"'{loaded.preset}' does not read tracks alone", where="--method", fix="name movt or movt-tiny")
    indices = eval_indices("segment", len(tracks_FN3), frames, 1, 1)[0]
    given = chosen(tracks_FN3[indices], wanted[0][1], None)
    tracks_1TN3 = torch.from_numpy(given)[None].requires_grad_()
    logits: Tensor = loaded.model(tracks_1TN3)[0]
    answer = int(logits.argmax())
    if label is not None and not 0 <= label < len(logits):
        raise UsageError("there is no such class", where=f"--class {label}", fix=f"use 0 to {len(logits) - 1}")
    asked = answer if label is None else label
    (gradient,) = torch.autograd.grad(logits[asked], tracks_1TN3)
    norms = gradient[0].double().square().sum((0, 2)).sqrt().numpy()
    largest = norms.max()
    probability = float(logits.detach().softmax(-1)[asked])
    return Saliency(given, norms / largest if largest > 0 else norms, asked, len(logits), probability, asked == answer)
