"""Frames to look at: of a video file, or of the toy clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchctl.data.decode import Frames, decode, probe
from benchctl.data.sampling import eval_indices
from benchctl.data.transforms import Normalisation, eval_views
from benchctl.errors import ShapeError, UsageError
from benchctl.visualize.toy_clip import SHAPES, toy_clip

#: asks for the toy clip where a file is asked for
TOY = "toy"
#: values 0 ... 1, as they are
_UNCHANGED = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Query:
    """A point of the clip: frame as shown, from 0, and pixel (x, y) of the shown frame."""

    frame: int
    x: int
    y: int

    def __str__(self) -> str:
        return f"frame {self.frame}, x {self.x}, y {self.y}"


@dataclass(frozen=True)
class Clip:
    """Frames as they are shown and fed: uint8 RGB (T, R, R, 3)."""

    name: str
    frames: Frames
    #: queries that show something, where the user names none
    suggested: tuple[Query, ...]

    @property
    def resolution(self) -> int:
        """R, in pixels."""
        return int(self.frames.shape[1])

    def check(self, query: Query) -> None:
        """Raise UsageError when `query` lies outside."""
        count, side = self.frames.shape[:2]
        if not (0 <= query.frame < count and 0 <= query.x < side and 0 <= query.y < side):
            raise UsageError(
                "outside the clip",
                where=f"--query {query.frame},{query.x},{query.y}",
                fix=f"FRAME is 0 to {count - 1}, X and Y are 0 to {side - 1}, in the frames as they are shown",
            )


def read(source: str, *, frames: int, resolution: int, stride: int | None = None) -> Clip:
    """`frames` frames of the file `source`, or of the toy clip where it is the word `toy`.

    A file's frames are scaled until their short side is `resolution`, and their centre is taken: what the methods see in evaluation.

    Args:
        source: path, or `toy`.
        frames: T.
        resolution: R, pixels a side.
        stride: frames of the file from one to the next, around its middle; None: spread over all of it.

    Raises:
        ClipUnreadable: the file cannot be decoded.
        UsageError: too small for the toy clip, or a stride for it.
    """
    if source == TOY:
        if stride is not None:
            raise UsageError("the toy clip has no frames to leave out", where=f"--stride {stride}", fix="leave it out")
        try:
            toy = toy_clip(frames, resolution)
        except ShapeError as error:
            raise UsageError(error.what, where=f"--resolution {resolution}", fix=error.fix) from None
        middle = frames // 2
        cubes = [index for index, shape in enumerate(SHAPES) if shape.outline == "cube"]
        return Clip("toy clip", toy.frames, tuple(Query(middle, *toy.centre(cube, middle)) for cube in cubes))
    info = probe(Path(source))
    indices = eval_indices("segment" if stride is None else "dense", info.frames, frames, stride or 1, 1)[0]
    # depth, one channel, is shown as grey
    view = eval_views(decode(info.path, indices, info=info), resolution, _UNCHANGED, 1)[0].expand(-1, 3, -1, -1)
    shown = (255 * view).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return Clip(info.path.name, np.ascontiguousarray(shown), (_most_changing(shown),))


def middle_frame(path: Path) -> npt.NDArray[np.uint8]:
    """The frame in the middle of a video, as it is: uint8 RGB (H, W, 3).

    Raises:
        ClipUnreadable: the file cannot be decoded.
    """
    info = probe(path)
    frame: npt.NDArray[np.uint8] = decode(info.path, np.array([info.frames // 2]), info=info)[0]
    return frame


def _most_changing(frames: Frames) -> Query:
    """In the middle frame, away from its edge, the point around which pixels differ most from the frames before and after."""
    middle = len(frames) // 2
    grey = frames.mean(axis=3)
    neighbours = [grey[t] for t in (middle - 1, middle + 1) if 0 <= t < len(frames)]
    side = grey.shape[1]
    change = sum((np.abs(grey[middle] - other) for other in neighbours), np.zeros((side, side)))
    # means over squares of a sixteenth of the side: one noisy pixel is not a moving thing
    reach = max(1, side // 16)
    sums = np.pad(change, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    boxes = sums[reach:, reach:] - sums[:-reach, reach:] - sums[reach:, :-reach] + sums[:-reach, :-reach]
    # at the edge, most of the window would lie outside
    margin = side // 6
    inner = boxes[margin : len(boxes) - margin, margin : len(boxes) - margin]
    y, x = np.unravel_index(int(inner.argmax()), inner.shape)
    return Query(middle, margin + int(x) + reach // 2, margin + int(y) + reach // 2)
