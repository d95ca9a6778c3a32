"""Frames to network input: resize, crop, flip, normalise.

Training draws the short side between 256 and 320 pixels for a crop of 224, and in that proportion for other crops (Simonyan and
Zisserman, 2014; SlowFast), or, with `crop_scale`, a box of a random area and aspect ratio that is resized to the crop (Szegedy et al.,
2015). Testing resizes the short side to the crop, as TimeSformer's and VideoMAE's published protocols do, and takes the centre, or
three crops along the longer side. Resizing is bilinear with antialiasing, in whole grey levels (`benchctl.data.scaling`).

Frames of depth have one channel, and are normalised by the means of the three that RGB is normalised by.

Optical flow that comes with a clip goes the way of its frames, as two more channels of the same tensor: resizing multiplies x by the
horizontal scale and y by the vertical one, a mirror negates x. It may be stored at another size than the frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from benchctl.data.pyav_file import Frames
from benchctl.data.scaling import Scaling

if TYPE_CHECKING:
    import torch

Flow = npt.NDArray[np.float32]

#: short side over crop side, smallest and largest, in training
_JITTER = (256 / 224, 320 / 224)
#: width over height of boxes that are resized, smallest and largest, and how often one that does not fit is drawn again
_ASPECTS, _ATTEMPTS = (3 / 4, 4 / 3), 10


@dataclass(frozen=True)
class Normalisation:
    """Per-channel mean and standard deviation of RGB values between 0 and 1. The default is ImageNet's."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0, not {self.std}")


@dataclass(frozen=True)
class TrainView:
    """What was drawn for one clip: the same for all its frames, and for its flow."""

    #: what each frame goes through as it is decoded
    scaling: Scaling
    #: the square that is then cut out
    top: int
    left: int
    resolution: int
    mirrored: bool
    #: height and width of the frames before scaling
    source: tuple[int, int]

    def cut(self, frames: Frames) -> Frames:
        """Scaled frames, uint8 (T, h, w, C), to (T, R, R, C)."""
        view = frames[:, self.top : self.top + self.resolution, self.left : self.left + self.resolution]
        return np.ascontiguousarray(view[:, :, ::-1] if self.mirrored else view)

    def flow(self, flow: Flow) -> torch.Tensor:
        """float32 (T, 2, h, w) in pixels of h x w, of the whole frames, to (T, 2, R, R) in pixels of the view."""
        import torch

        found, height, width = torch.from_numpy(np.ascontiguousarray(flow)).float(), *self.scaling.size
        if self.scaling.box is not None:
            # boxes are in pixels of the frames
            found = _flow_at(found, self.source)
            y, x, rows, columns = self.scaling.box
            found = found[:, :, y : y + rows, x : x + columns]
        found = _flow_at(found, (height, width))[:, :, self.top : self.top + self.resolution, self.left : self.left + self.resolution]
        # what moves to the right moves to the left in a mirror
        return found.flip(-1) * torch.tensor([-1.0, 1.0]).view(2, 1, 1) if self.mirrored else found


def drawn_view(
    source: tuple[int, int], resolution: int, rng: np.random.Generator, *, flip: bool = False, crop_scale: float | None = None
) -> TrainView:
    """A random crop at a random scale, flipped half the time where `flip`, of frames of size `source` (height, width)."""
    if crop_scale is None:
        low, high = (round(resolution * ratio) for ratio in _JITTER)
        scaling = Scaling(scaled_size(*source, int(rng.integers(low, high, endpoint=True))))
        top = int(rng.integers(scaling.size[0] - resolution, endpoint=True))
        left = int(rng.integers(scaling.size[1] - resolution, endpoint=True))
    else:
        scaling, top, left = Scaling((resolution, resolution), _box(source, crop_scale, rng)), 0, 0
    return TrainView(scaling, top, left, resolution, flip and bool(rng.random() < 0.5), source)


def _box(source: tuple[int, int], smallest: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a box with a share of the area between `smallest` and 1.

    Where ten draws of area and aspect ratio do not fit into the picture, it is the largest box in the middle with an aspect ratio in range.
    """
    height, width = source
    for _ in range(_ATTEMPTS):
        area = height * width * rng.uniform(smallest, 1)
        ratio = np.exp(rng.uniform(*np.log(_ASPECTS)))
        rows, columns = round(float(np.sqrt(area / ratio))), round(float(np.sqrt(area * ratio)))
        if 0 < rows <= height and 0 < columns <= width:
            return int(rng.integers(height - rows, endpoint=True)), int(rng.integers(width - columns, endpoint=True)), rows, columns
    rows, columns = min(height, round(width / _ASPECTS[0])), min(width, round(height * _ASPECTS[1]))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


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
    view = drawn_view((frames.shape[1], frames.shape[2]), resolution, rng, flip=flip)
    pixels = normalised(as_channels(view.cut(view.scaling.frames(frames))), normalisation)
    return pixels if flow is None else with_flow(pixels, view.flow(flow))


def eval_views(
    frames: Frames, resolution: int, normalisation: Normalisation, crops: Literal[1, 3], *, flow: Flow | None = None
) -> torch.Tensor:
    """The centre crop, or three along the longer side: uint8 (T, H, W, C) to float32 (crops, T, C, R, R); C + 2 channels with `flow`.

    Frames that went through `eval_scaling` when they were decoded give the same.
    """
    import torch

    scaling = eval_scaling((frames.shape[1], frames.shape[2]), resolution)
    clip = normalised(as_channels(scaling.frames(frames)), normalisation)
    if flow is not None:
        clip = with_flow(clip, _flow_at(torch.from_numpy(np.ascontiguousarray(flow)).float(), scaling.size))
    spare_rows, spare_columns = clip.shape[2] - resolution, clip.shape[3] - resolution  # one of them is 0
    fractions = (1,) if crops == 1 else (0, 1, 2)
    return torch.stack(
        [
            clip[:, :, top : top + resolution, left : left + resolution]
            for top, left in ((spare_rows * f // 2, spare_columns * f // 2) for f in fractions)
        ]
    )


def eval_scaling(source: tuple[int, int], resolution: int) -> Scaling:
    """What frames of size `source` (height, width) go through to be tested on."""
    return Scaling(scaled_size(*source, resolution))


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


def _flow_at(flow_T2HW: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Flow at another size, in pixels of that size."""
    import torch

    scale = torch.tensor([size[1] / flow_T2HW.shape[3], size[0] / flow_T2HW.shape[2]]).view(2, 1, 1)
    return interpolated(flow_T2HW, size) * scale


def as_channels(frames: Frames) -> torch.Tensor:
    """uint8 (T, H, W, C) to float32 (T, C, H, W), values 0 to 255."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))).float()


def normalised(clip_TCHW: torch.Tensor, normalisation: Normalisation) -> torch.Tensor:
    """Values 0 to 255 normalised, in place. One channel takes the mean of the means, and that of the deviations."""
    import torch

    mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (normalisation.mean, normalisation.std))
    if clip_TCHW.shape[1] == 1:
        mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
    return clip_TCHW.sub_(mean).div_(std)


def with_flow(pixels_TCHW: torch.Tensor, flow_T2HW: torch.Tensor) -> torch.Tensor:
    """Pixels, then flow, as channels of one tensor."""
    import torch

    return torch.cat([pixels_TCHW, flow_T2HW], dim=1)
