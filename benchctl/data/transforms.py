"""Frames to network input: resize, crop, flip, normalise.

Training draws the short side between 256 and 320 pixels for a crop of 224, and in that proportion for other crops (Simonyan and
Zisserman, 2014; SlowFast). Testing resizes the short side to the crop, as TimeSformer's and VideoMAE's published protocols do, and
takes the centre, or three crops along the longer side. Resizing is bilinear with antialiasing.

Frames of depth have one channel, and are normalised by the means of the three that RGB is normalised by.

Optical flow that comes with a clip goes the way of its frames, as two more channels of the same tensor: resizing multiplies x by the
horizontal scale and y by the vertical one, a mirror negates x. It may be stored at another size than the frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from benchctl.data.decode import Frames

if TYPE_CHECKING:
    import torch

Flow = npt.NDArray[np.float32]

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
    frames: Frames,
    resolution: int,
    normalisation: Normalisation,
    rng: np.random.Generator,
    *,
    flip: bool = False,
    flow: Flow | None = None,
) -> torch.Tensor:
    """A random crop at a random scale, flipped half the time where `flip`: uint8 (T, H, W, C) to float32 (T, C, R, R).

    C is 3 for RGB, 1 for depth. One crop, scale and flip for all frames of the clip. With `flow` (T, 2, h, w), in pixels of h x w,
    it is (T, C + 2, R, R): the last two channels are the flow in pixels of the view. What is drawn from `rng` is the same with and without.
    """
    low, high = (round(resolution * ratio) for ratio in _JITTER)
    clip = _resized(frames, int(rng.integers(low, high, endpoint=True)), flow)
    top = int(rng.integers(clip.shape[2] - resolution, endpoint=True))
    left = int(rng.integers(clip.shape[3] - resolution, endpoint=True))
    view = clip[:, :, top : top + resolution, left : left + resolution]
    if flip and rng.random() < 0.5:
        view = _mirrored(view, frames.shape[-1])
    return _normalised(view, frames.shape[-1], normalisation)


def eval_views(
    frames: Frames, resolution: int, normalisation: Normalisation, crops: Literal[1, 3], *, flow: Flow | None = None
) -> torch.Tensor:
    """The centre crop, or three along the longer side: uint8 (T, H, W, C) to float32 (crops, T, C, R, R); C + 2 channels with `flow`."""
    import torch

    clip = _resized(frames, resolution, flow)
    spare_rows, spare_columns = clip.shape[2] - resolution, clip.shape[3] - resolution  # one of them is 0
    fractions = (1,) if crops == 1 else (0, 1, 2)
    views = [
        clip[:, :, top : top + resolution, left : left + resolution]
        for top, left in ((spare_rows * f // 2, spare_columns * f // 2) for f in fractions)
    ]
    return torch.stack([_normalised(view, frames.shape[-1], normalisation) for view in views])


def scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) with a short side of `short_side` pixels, aspect ratio kept."""
    scale = short_side / min(height, width)
    return max(short_side, round(height * scale)), max(short_side, round(width * scale))


def interpolated(clip_TCHW: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(T, C, H, W) at `size` (height, width), bilinear with antialiasing."""
    import torch

    if size == tuple(clip_TCHW.shape[2:]):
        return clip_TCHW
    return torch.nn.functional.interpolate(clip_TCHW, size=size, mode="bilinear", align_corners=False, antialias=True)


def _resized(frames: Frames, short_side: int, flow: Flow | None) -> torch.Tensor:
    """float32 (T, C, h, w) with values 0 to 255 and min(h, w) = `short_side`; C + 2 channels with `flow`."""
    import torch

    size = scaled_size(frames.shape[1], frames.shape[2], short_side)
    clip = interpolated(torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float(), size)
    if flow is None:
        return clip
    scale = torch.tensor([size[1] / flow.shape[3], size[0] / flow.shape[2]]).view(2, 1, 1)
    return torch.cat([clip, interpolated(torch.from_numpy(np.ascontiguousarray(flow)).float(), size) * scale], dim=1)


def _mirrored(clip_TCHW: torch.Tensor, pixels: int) -> torch.Tensor:
    """Left and right exchanged; what moves to the right then moves to the left. The first `pixels` channels are not flow."""
    import torch

    clip = clip_TCHW.flip(-1)
    if clip.shape[1] == pixels:
        return clip
    return torch.cat([clip[:, :pixels], -clip[:, pixels : pixels + 1], clip[:, pixels + 1 :]], dim=1)


def _normalised(clip_TCHW: torch.Tensor, pixels: int, normalisation: Normalisation) -> torch.Tensor:
    """The first `pixels` channels normalised; flow as it is. One channel takes the mean of the means, and that of the deviations."""
    import torch

    mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (normalisation.mean, normalisation.std))
    if pixels == 1:
        mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
    seen = (clip_TCHW[:, :pixels] - mean) / std
    return seen if clip_TCHW.shape[1] == pixels else torch.cat([seen, clip_TCHW[:, pixels:]], dim=1)
