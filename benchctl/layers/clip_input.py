"""The front of every method: the clip's shape is checked, and its frames are padded to whole patches."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from benchctl.errors import ShapeError
from benchctl.spec import ModelSpec


class ClipInput(nn.Module):
    """Passes clips of one shape on, zero-padded at the right and the bottom of each frame to whole patches.

    Args:
        spec: its shape and its config's patch and tubelet size decide what is accepted.

    Raises:
        ShapeError: at construction, the frames are not whole tubelets; in `forward`, the clip has another shape.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        spec.config.check(spec.shape, pad=True)
        self.frames = spec.shape.frames
        self.resolution = spec.shape.resolution
        self.channels = spec.config.frame_channels
        self.padding = spec.padded_resolution - spec.shape.resolution

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """(B, T, C, H, W) to (B, T, C, padded H, padded W); C is 3, or 5 where flow comes with the clip."""
        expected = (self.frames, self.channels, self.resolution, self.resolution)
        if clip_BTCHW.ndim != 5 or clip_BTCHW.shape[1:] != expected:
            got = "x".join(str(n) for n in clip_BTCHW.shape)
            raise ShapeError(
                f"a clip batch of shape {got} was given to a model built for Bx{'x'.join(str(n) for n in expected)}",
                fix="build the model for the shape it is fed",
            )
        return F.pad(clip_BTCHW, (0, self.padding, 0, self.padding)) if self.padding else clip_BTCHW

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"frames={self.frames}, resolution={self.resolution}, padding={self.padding}"
