"""Frames to network input: resize, crop, flip, normalise.

Training draws the short side between 256 and 320 pixels for a crop of 224, and in that proportion for other crops (Simonyan and
Zisserman, 2014; SlowFast). Testing resizes the short side to the crop, as TimeSformer's and VideoMAE's published protocols do, and
takes the centre, or three crops along the longer side. Resizing is bilinear with antialiasing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from benchctl.data.decode import Frames

if TYPE_CHECKING:
    import torch

#: short side over crop side, smallest and largest, in training
_JITTER = (256 / 224, 320 / 224)


@dataclass(frozen=True)
class Normalisation:
    """Per-channel mean and standard deviation of RGB values between 0 and 1. The default is ImageNet's."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0, not {self.std}")


def train_view(
    frames: Frames, resolution: int, normalisation: Normalisation, rng: np.random.Generator, *, flip: bool = False
) -> torch.Tensor:
    """A random crop at a random scale, flipped half the time where `flip`: uint8 (T, H, W, 3) to float32 (T, 3, R, R).

    One crop, scale and flip for all frames of the clip.
    """
    low, high = (round(resolution * ratio) for ratio in _JITTER)
    clip = _resized(frames, int(rng.integers(low, high, endpoint=True)))
    top = int(rng.integers(clip.shape[2] - resolution, endpoint=True))
    left = int(rng.integers(clip.shape[3] - resolution, endpoint=True))
    view = clip[:, :, top : top + resolution, left : left + resolution]
    if flip and rng.random() < 0.5:
        view = view.flip(-1)
    return _normalised(view, normalisation)


def eval_views(frames: Frames, resolution: int, normalisation: Normalisation, crops: Literal[1, 3]) -> torch.Tensor:
    """The centre crop, or three along the longer side: uint8 (T, H, W, 3) to float32 (crops, T, 3, R, R)."""
    import torch

    clip = _resized(frames, resolution)
    spare_rows, spare_columns = clip.shape[2] - resolution, clip.shape[3] - resolution  # one of them is 0
    fractions = (1,) if crops == 1 else (0, 1, 2)
    views = [
        clip[:, :, top : top + resolution, left : left + resolution]
        for top, left in ((spare_rows * f // 2, spare_columns * f // 2) for f in fractions)
    ]
    return torch.stack([_normalised(view, normalisation) for view in views])


def _resized(frames: Frames, short_side: int) -> torch.Tensor:
    """float32 (T, 3, h, w) with values 0 to 255 and min(h, w) = `short_side`, aspect ratio kept."""
    import torch

    height, width = frames.shape[1:3]
    scale = short_side / min(height, width)
    size = (max(short_side, round(height * scale)), max(short_side, round(width * scale)))
    clip = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    if size == (height, width):
        return clip
    return torch.nn.functional.interpolate(clip, size=size, mode="bilinear", align_corners=False, antialias=True)


def _normalised(clip: torch.Tensor, normalisation: Normalisation) -> torch.Tensor:
    import torch

    mean = torch.tensor(normalisation.mean).view(3, 1, 1) * 255
    std = torch.tensor(normalisation.std).view(3, 1, 1) * 255
    return (clip - mean) / std
