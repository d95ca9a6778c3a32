"""Predicted CPU bytes against those that torch's allocator reported while the same steps really ran.

One watches storages of fake tensors, the other the profiler's allocation events of the whole step. They share one thing: the scratch
of half-precision matrix products and of patch embeddings, which prediction asks of single operators of that shape.
"""

import gc
from collections.abc import Callable

import pytest
import torch
from probe_models import SMALL, batch, run_for_real, step, timesformer, timm_model, videomae
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchctl.probes.memory import live_bytes
from benchctl.probes.prediction import CPU, predict
from benchctl.probes.prediction.layouts import as_kernels_return

TOLERANCE = 0.005
BF16 = torch.bfloat16
VIT = {"img_size": 64, "depth": 2, "drop_rate": 0.1, "drop_path_rate": 0.1, "attn_drop_rate": 0.1, "proj_drop_rate": 0.1}


def residual(
    build: Callable[[], nn.Module], shape: tuple[int, ...], dtype: torch.dtype | None, optimizer: str = "sgd", attention: str = "sdpa"
) -> float:
    make_step, make_batch = step(dtype=dtype, optimizer=optimizer), batch(*shape)
    predicted = predict(build, make_step, make_batch, attention=attention, device=CPU).peak().allocated_bytes
    gc.collect()
    real = live_bytes(lambda: run_for_real(build, make_step, make_batch)).value_bytes
    assert real is not None
    return predicted / real - 1


FAMILIES = {
    "timesformer": (timesformer(**SMALL, num_frames=4, image_size=64), (2, 4, 3, 64, 64)),
    "videomae-sdpa": (videomae(**SMALL, num_frames=8, image_size=64, attn_implementation="sdpa"), (4, 8, 3, 64, 64)),
    "videomae-eager": (videomae(**SMALL, num_frames=8, image_size=64, attn_implementation="eager"), (4, 8, 3, 64, 64)),
    "resnet-bottleneck": (timm_model("resnet26"), (4, 3, 64, 64)),
    "vit": (timm_model("vit_tiny_patch16_224", **VIT), (4, 3, 64, 64)),
}


@pytest.mark.parametrize("dtype", [None, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_predicted_is_real(family: str, dtype: torch.dtype | None):
    build, shape = FAMILIES[family]
    assert abs(residual(build, shape, dtype)) < TOLERANCE


@pytest.mark.parametrize(("family", "dtype"), [("timesformer", None), ("videomae-sdpa", BF16)])
def test_predicted_is_real_where_activations_dominate(family: str, dtype: torch.dtype | None):
    build, (_, *clip) = FAMILIES[family]
    assert abs(residual(build, (12, *clip), dtype, optimizer="adamw")) < TOLERANCE


class TwoConvolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, stride=2, padding=1)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x)).mean((2, 3)))


def test_reordered_convolutions():
    """Activations outweigh weights here, so the peak is inside a convolution: its blocked copies must be right."""
    assert abs(residual(TwoConvolutions, (8, 3, 64, 64), None)) < TOLERANCE


@pytest.mark.parametrize("permutation", [(0, 1, 2), (0, 2, 1), (2, 1, 0)])
def test_layouts_are_those_of_the_kernels(permutation: tuple[int, ...]):
    """Batch normalisation of a permuted sequence, forward and backward; the fakes' own rule keeps the permuted strides."""
    aten = torch.ops.aten
    sizes = [0, 0, 0]
    for place, size in zip(permutation, (4, 6, 5), strict=True):
        sizes[place] = size
    c = torch.ones(6)

    def results(x: torch.Tensor, kernel: Callable[..., torch.Tensor]) -> list[tuple[int, ...]]:
        forward = kernel(aten.native_batch_norm.default, (x, c, c, c, c, True, 0.1, 1e-5))
        backward = kernel(aten.native_batch_norm_backward.default, (x, x, c, c, c, c, c, True, 1e-5, [True, True, True]))
        return [forward[0].stride(), backward[0].stride()]

    real = results(torch.rand(sizes).permute(permutation), lambda operator, args: operator(*args))
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.rand(sizes).permute(permutation)
        assert results(x, lambda operator, args: as_kernels_return(operator, args, operator(*args))) == real


def test_a_wrong_prediction_is_noticed():
    """The measurement is not the prediction in disguise: a step that keeps one more activation is off by its size."""
    build, shape = FAMILIES["timesformer"]
    make_step, make_batch = step(), batch(*shape)
    predicted = predict(build, make_step, make_batch, attention="sdpa", device=CPU).peak().allocated_bytes

    def hoarding() -> None:
        kept = torch.zeros(8 * 2**20)
        run_for_real(build, make_step, make_batch)
        del kept

    real = live_bytes(hoarding).value_bytes
    assert real is not None
    assert real - predicted == pytest.approx(32 * 2**20, rel=0.01)
