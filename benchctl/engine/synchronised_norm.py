"""Batch normalisation by the statistics of the whole batch where ranks share it, so that a step is that of one process.

torch's own conversion replaces modules of the class, and loses what a subclass does beside it (channels at the end, an activation); and it
refuses CPUs. Here every call of the function that all of them come to is answered otherwise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as summed
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules._functions import SyncBatchNorm

from benchctl.engine.ranks import Ranks


@contextlib.contextmanager
def whole_batch_norm(ranks: Ranks) -> Iterator[None]:
    """Inside the block, batch normalisation that trains sees what all ranks see. All of them must come to the same calls."""
    if ranks.alone:
        yield
        return
    own = F.batch_norm

    def together(
        input: Tensor,  # noqa: A002 - torch's name
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return own(input, running_mean, running_var, weight, bias, training, momentum, eps)
        if input.is_cuda:
            group, ranked = dist.group.WORLD, dist.get_world_size()
            found: Tensor = SyncBatchNorm.apply(input, weight, bias, running_mean, running_var, eps, momentum, group, ranked)
            return found
        return batch_norm(input, running_mean, running_var, weight, bias, momentum, eps)

    with mock.patch.object(F, "batch_norm", together):
        yield


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """(B, C, ...) to the same shape, by mean and variance over the B of all ranks and all other axes (Ioffe and Szegedy 2015).

    Every rank has the same B. The running statistics are brought up to date in place, alike on every rank.
    """
    axes = [axis for axis in range(x.ndim) if axis != 1]
    shape = [1, -1, *([1] * (x.ndim - 2))]
    count = x.numel() // x.shape[1] * dist.get_world_size()
    # in fp32 or better, also under autocast, and the variance around the mean: sums of squares would cancel
    wide = x if x.element_size() > 2 else x.float()
    mean = summed.all_reduce(wide.sum(axes)) / count
    centred = wide - mean.view(shape)
    variance = summed.all_reduce((centred * centred).sum(axes)) / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * (count / max(1, count - 1))).to(running_var.dtype), momentum)
    found = centred * torch.rsqrt(variance + eps).view(shape)
    if weight is not None:
        found = found * weight.view(shape)
    if bias is not None:
        found = found + bias.view(shape)
    return found.to(x.dtype)
