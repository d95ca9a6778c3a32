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
        pad: whether frames are padded here.

    Raises:
        ShapeError: at construction, the frames are not whole tubelets; in `forward`, the clip has another shape.
    """

    def __init__(self, spec: ModelSpec, *, pad: bool = True) -> None:
        super().__init__()
        spec.config.check(spec.shape, pad=True)
        self.expected = spec.config.input_shapes(spec.shape)[0]
        self.padding = spec.padded_resolution - spec.shape.resolution if pad else 0

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """(B, T, C, H, W) to (B, T, C, padded H, padded W); C is 3, or 1 for depth, and 2 more where flow comes with the clip."""
        check_input(clip_BTCHW, self.expected, "clip")
        return F.pad(clip_BTCHW, (0, self.padding, 0, self.padding)) if self.padding else clip_BTCHW

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"expected={'x'.join(map(str, self.expected))}, padding={self.padding}"


def check_input(given: Tensor, expected: tuple[int, ...], what: str) -> None:
    """Raise ShapeError unless `given` is a batch of tensors of the shape `expected`."""
    if given.ndim != len(expected) + 1 or given.shape[1:] != expected:
        got = "x".join(str(n) for n in given.shape)
        raise ShapeError(
            f"a {what} batch of shape {got} was given to a model built for Bx{'x'.join(str(n) for n in expected)}",
            fix="build the model for the shape it is fed",
        )
