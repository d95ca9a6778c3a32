"""Blocks over clips: kernels in time go where they are said to, and a block is what it is by definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchctl.layers.resnet3d import Bottleneck3d, ConvNorm, Pathway, TemporalKernels, convert, initialise

KERNELS = TemporalKernels(stem=5, stages=((3,), (3, 1), (1,), (1, 3)))


@pytest.fixture
def pathway() -> Pathway:
    torch.manual_seed(0)
    return Pathway((1, 3, 1, 2), (4, 6, 8, 10), KERNELS, joined=(2, 0, 0, 1))


def test_kernels_in_time_repeat_over_the_blocks_of_a_stage(pathway: Pathway) -> None:
    spanned = [[block.reduce.conv.kernel_size for block in stage] for stage in pathway.stages]
    assert spanned == [[(3, 1, 1)], [(3, 1, 1), (1, 1, 1), (3, 1, 1)], [(1, 1, 1)], [(1, 1, 1), (3, 1, 1)]]
    assert pathway.stem.first.conv.kernel_size == (5, 7, 7)


def test_space_is_halved_and_time_is_not(pathway: Pathway) -> None:
    x = pathway.stem(torch.randn(1, 3, 6, 64, 64))
    assert x.shape == (1, 4, 6, 16, 16)
    for stage, extra, shape in zip(pathway.stages, (2, 0, 0, 1), ((16, 16), (24, 8), (32, 4), (40, 2))):
        x = stage(torch.cat([x, x[:, :extra]], dim=1))
        assert x.shape == (1, shape[0], 6, shape[1], shape[1])
    assert pathway.outputs == 40


def convolved(part: ConvNorm, x: Tensor) -> Tensor:
    """In float64, a sum over each kernel's positions, then the normalisation of evaluation."""
    kernel, stride = part.conv.weight.double(), part.conv.stride
    sizes = kernel.shape[2:]
    padded = F.pad(x, [n for size in reversed(sizes) for n in (size // 2, size // 2)])
    lengths = [(n - 1) // s + 1 for n, s in zip(x.shape[2:], stride)]
    total = torch.zeros(x.shape[0], kernel.shape[0], *lengths, dtype=torch.float64)
    for t, h, w in ((t, h, w) for t in range(sizes[0]) for h in range(sizes[1]) for w in range(sizes[2])):
        moved = padded[:, :, t :: stride[0], h :: stride[1], w :: stride[2]][:, :, : lengths[0], : lengths[1], : lengths[2]]
        total += torch.einsum("bithw,oi->bothw", moved, kernel[:, :, t, h, w])
    norm = part.norm
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return (total - norm.running_mean.double().view(-1, 1, 1, 1)) * scale.view(-1, 1, 1, 1) + norm.bias.double().view(-1, 1, 1, 1)


@pytest.mark.parametrize(("inputs", "stride"), [(8, 1), (8, 2), (5, 1)])
def test_a_block_is_its_definition(inputs: int, stride: int) -> None:
    torch.manual_seed(0)
    block = Bottleneck3d(inputs, 2, frames=3, stride=stride).eval()
    for part in block.modules():
        if isinstance(part, nn.BatchNorm3d):
            for tensor in (part.weight, part.bias, part.running_mean, part.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    x = torch.randn(2, inputs, 3, 4, 5)
    with torch.no_grad():
        inner = convolved(block.spatial, convolved(block.reduce, x.double()).relu()).relu()
        skipped = x.double() if block.shortcut is None else convolved(block.shortcut, x.double())
        torch.testing.assert_close(block(x).double(), (convolved(block.expand, inner) + skipped).relu(), atol=1e-5, rtol=1e-5)
    assert (block.shortcut is None) == (inputs == 8 and stride == 1)


def test_blocks_begin_as_what_came_in() -> None:
    block = Bottleneck3d(8, 2, frames=3, stride=1)
    initialise(block)
    x = torch.rand(1, 8, 3, 4, 4)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("name", ["blocks.2.res_blocks.0.branch2.conv_a.weight", "blocks.6.other.weight", "classifier.weight", "blocks.0"])
def test_a_tensor_that_no_file_has_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="unexpected tensor"):
        convert({name: torch.zeros(1)})
