"""Pictures cut and scaled, in whole grey levels.

Scaling is bilinear with antialiasing, as in `benchctl.data.transforms.interpolated`, and its result is rounded to whole grey levels: at
most one level from the unrounded result, 0.3 of one on average. torch's kernel for 8-bit pictures does it in a tenth of the time
that floats take, and the decoders' own scaler (swscale, area, bilinear or bicubic) was both slower and further away: one to two grey
levels on average, since it scales before the colours are converted. So frames are converted at full size and scaled right after that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchctl.data.pyav_file import Frames


@dataclass(frozen=True)
class Scaling:
    """What is kept of a frame, and the size it is brought to."""

    #: height and width of the result
    size: tuple[int, int]
    #: top, left, height and width of what is kept, in pixels of the frame; None: all of it
    box: tuple[int, int, int, int] | None = None

    def frame(self, frame: Frames) -> Frames:
        """uint8 (H, W, C) to (h, w, C). A frame that is not scaled keeps its bytes."""
        import torch

        if self.box is not None:
            top, left, height, width = self.box
            frame = frame[top : top + height, left : left + width]
        frame = np.ascontiguousarray(frame)
        if frame.shape[:2] == self.size:
            return frame
        picture = torch.from_numpy(frame)[None].permute(0, 3, 1, 2)
        scaled = torch.nn.functional.interpolate(picture, size=self.size, mode="bilinear", align_corners=False, antialias=True)
        return np.ascontiguousarray(scaled[0].permute(1, 2, 0).numpy())

    def frames(self, frames: Frames) -> Frames:
        """uint8 (T, H, W, C) to (T, h, w, C), one after the other: what is held is the small ones."""
        if self.box is None and frames.shape[1:3] == self.size:
            return frames
        return np.stack([self.frame(frame) for frame in frames])
