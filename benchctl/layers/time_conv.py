"""Convolution over time only: each patch position by itself, channels last."""

from __future__ import annotations

from torch import Tensor, nn

# B batch, T frames, N positions of a frame, D channels


class TimeConv(nn.Conv2d):
    """A kernel x 1 x 1 convolution over the frames of (B, T, N, D).

    Args:
        width_in: channels read.
        width_out: channels written.
        kernel: frames that one output reads.
        stride: frames between two outputs. With stride 1 the frame count stays as it is (zeros stand around the clip, `kernel` must
            be odd); with a larger one no frame is added.
        depthwise: each channel by itself; `width_in` and `width_out` must be equal.
    """

    def __init__(self, width_in: int, width_out: int, *, kernel: int = 3, stride: int = 1, depthwise: bool = False) -> None:
        # N stands for the frame's two sides: no kernel reaches across positions
        super().__init__(
            width_in,
            width_out,
            kernel_size=(kernel, 1),
            stride=(stride, 1),
            padding=(kernel // 2 if stride == 1 else 0, 0),
            groups=width_in if depthwise else 1,
        )

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """(B, T, N, width_in) to (B, T / stride, N, width_out)."""
        return super().forward(input.movedim(-1, 1)).movedim(1, -1)
