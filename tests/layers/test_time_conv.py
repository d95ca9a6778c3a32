from __future__ import annotations

import pytest
import torch

from benchctl.layers.time_conv import TimeConv


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (5, 1), (2, 2), (3, 3)])
def test_each_position_by_itself(kernel: int, stride: int, depthwise: bool) -> None:
    torch.manual_seed(0)
    conv = TimeConv(4, 4 if depthwise else 6, kernel=kernel, stride=stride, depthwise=depthwise).double()
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    given = kernel // 2 if stride == 1 else 0
    assert conv.bias is not None
    expected = conv.bias.expand(2, 6 // stride, 5, -1).clone()
    for t in range(6 // stride):
        for tap in range(kernel):
            frame = t * stride + tap - given
            if 0 <= frame < 6:
                weight = conv.weight[:, :, tap, 0]
                expected[:, t] += x[:, frame] * weight[:, 0] if depthwise else x[:, frame] @ weight.T
    torch.testing.assert_close(conv(x), expected, atol=1e-12, rtol=0)
