"""Reconstructions: what pre-training hides of a clip, and what the model makes of it.

Source: "When Spatial meets Temporal in Action Recognition" (Chen, Wang, Chen, Gedeon and Koniusz), section G and Figures 28 to 37: VideoMAE
behind the TIME layer, for mask ratios of 50, 75 and 90 %.

Reading. VideoMAE learns each patch normalised by its own mean and standard deviation. What it rebuilds is put back on those of the hidden
patch, as its authors' pictures do; so the brightness and the contrast of a rebuilt patch are given, and its structure alone is the model's.
That is why the error stands beside that of filling each hidden patch with its own mean.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor

from benchctl.data.decode import Frames
from benchctl.errors import UsageError
from benchctl.layers.pretrained import contents
from benchctl.layers.videomae import MaskedVideoMAE, hidden_tubes
from benchctl.visualize.model import LoadedModel
from benchctl.vocabulary import ClipShape

# T frames that the network works on, R pixels a side

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Reconstruction:
    """One clip at one mask ratio, as the network is given it: behind a TIME layer, grids of small frames."""

    #: (T, R, R, 3), 0 to 1
    given: Floats
    #: (T, R, R): whether a pixel is hidden
    hidden: npt.NDArray[np.bool_]
    #: (T, R, R, 3): what is hidden as the model has it, which may lie outside 0 to 1
    rebuilt: Floats
    #: patches of a frame that are hidden, and all
    tubes: tuple[int, int]
    #: mean squared error over the hidden pixels, of colours from 0 to 1
    error: float
    #: of each hidden patch's own mean colour in place of what the model has
    error_of_means: float


@dataclass(frozen=True)
class Rebuilt:
    """What one model rebuilds."""

    method: str
    #: where its weights come from, as the figure says it
    weights: str
    #: at each mask ratio
    at: tuple[Reconstruction, ...]


def named(preset: str | None, checkpoints: Sequence[Path]) -> list[tuple[str, Path | None]]:
    """The models that are asked for: each checkpoint with its method preset, or a preset with random weights.

    Args:
        preset: that of all of them; None: what each checkpoint says.
        checkpoints: what pre-trainings left.

    Raises:
        WeightsMissing: a checkpoint cannot be read.
        UsageError: there is no model, or a checkpoint does not say its preset.
    """
    if checkpoints:
        return [(preset or _preset(file), file) for file in checkpoints]
    if preset is None:
        fix = "name what a pre-training left, or a --method with random weights"
        raise UsageError("whose reconstruction?", where="--checkpoint", fix=fix)
    return [(preset, None)]


def _preset(checkpoint: Path) -> str:
    content = contents(checkpoint)
    preset = content.get("method") if isinstance(content, dict) else None
    if not isinstance(preset, str):
        raise UsageError("does not say whose weights it has", where=str(checkpoint), fix="name the preset with --method")
    return preset


def clip_shape(loaded: LoadedModel) -> ClipShape:
    """Frames, and their size, to be read of a video for `loaded`, which must be a model that rebuilds clips.

    Raises:
        UsageError: it is not.
    """
    if loaded.read is None or not isinstance(loaded.model, MaskedVideoMAE):
        raise UsageError(f"how '{loaded.preset}' rebuilds is not known here", where="--method", fix="name videomae-b, or a preset like it")
    return loaded.read


def check_ratio(mask_ratio: float) -> None:
    """Raise UsageError unless `mask_ratio` is above 0 and below 1."""
    if not 0 < mask_ratio < 1:
        raise UsageError("some patches must be hidden, and not all", where=f"--mask-ratio {mask_ratio:g}", fix="use a share such as 0.75")


def reconstruction(loaded: LoadedModel, frames: Frames, mask_ratio: float | None = None) -> Reconstruction:
    """What `loaded` rebuilds of the clip `frames`, uint8 RGB, of the shape that `clip_shape` says; the same tubes are hidden each time.

    Args:
        loaded: built for pre-training.
        frames: as they are read of the clip.
        mask_ratio: share of the patches that is hidden; None: as it was trained.
    """
    assert isinstance(loaded.model, MaskedVideoMAE), "clip_shape refuses others"
    # shallow: its weights are the same, the number of hidden tubes is its own
    model = copy.copy(loaded.model)
    if mask_ratio is not None:
        model.hidden = hidden_tubes(model.side**2, mask_ratio)
    seen = model.reconstruct(loaded.prepare(frames))
    given, rebuilt = (loaded.colours(each).clone() for each in (seen.frames, seen.rebuilt))
    means = _patch_means(given, (model.tubelet, model.patch, model.patch))

    def error(guess_TCHW: Tensor) -> float:
        squares = ((guess_TCHW - given) ** 2).double().mean(dim=1)
        return float(squares[seen.hidden].mean())

    def shown(frames_TCHW: Tensor) -> Floats:
        colours: Floats = frames_TCHW.permute(0, 2, 3, 1).numpy()
        return colours

    return Reconstruction(shown(given), seen.hidden.numpy(), shown(rebuilt), (model.hidden, model.side**2), error(rebuilt), error(means))


def _patch_means(frames_TCHW: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """Every pixel as the mean of its patch (frames, rows, columns)."""
    means = F.avg_pool3d(frames_TCHW.transpose(0, 1), patch)
    return F.interpolate(means[None], size=frames_TCHW[:, 0].shape, mode="nearest")[0].transpose(0, 1)
