from collections.abc import Callable

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from probe_models import SMALL, Attending, timesformer, timm_model, videomae
from torch import nn
from torch.nn import functional as F

from benchctl.errors import TraceFailed
from benchctl.probes import flops
from benchctl.probes.flops import count, parameters
from benchctl.probes.hollow import empty_build
from benchctl.probes.memory import resident_bytes


def test_parameters_count_shared_ones_once():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 3))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    assert parameters(model) == (16 + 15, 16)


# T: torch's counter; F: fvcore without attention; MACs in G
PUBLISHED_SIZES = {
    "timesformer-b": (timesformer(num_frames=8), (1, 8, 3, 224, 224), 121.566, 196.05, 196.05, 195.83),
    "videomae-b": (videomae(attn_implementation="sdpa"), (1, 16, 3, 224, 224), 86.53, 180.49, 135.17, 180.34),
}


@pytest.mark.parametrize("name", PUBLISHED_SIZES)
def test_published_sizes(name: str):
    build, shape, params, macs, without_attention, counter = PUBLISHED_SIZES[name]
    model = empty_build(build)
    found = count(model, torch.empty(shape))
    assert parameters(model).total / 1e6 == pytest.approx(params, abs=0.01)
    assert found.macs / 1e9 == pytest.approx(macs, abs=0.01)
    assert found.macs_without_attention / 1e9 == pytest.approx(without_attention, abs=0.01)
    assert found.torch_counter_macs / 1e9 == pytest.approx(counter, abs=0.01)
    assert found.flops == 2 * found.torch_counter_macs
    assert found.uncounted["aten::gelu"] == 12


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (timesformer(**SMALL, num_frames=2, image_size=32), (1, 2, 3, 32, 32)),
        (videomae(**SMALL, num_frames=4, image_size=32, attn_implementation="sdpa"), (1, 4, 3, 32, 32)),
        (timm_model("resnet18"), (1, 3, 96, 96)),
        (timm_model("swin_tiny_patch4_window7_224", img_size=112, window_size=7), (1, 3, 112, 112)),
    ],
)
def test_counting_without_running_is_counting_while_running(build: Callable[[], nn.Module], shape: tuple[int, ...]):
    model = build().eval()
    analysis = FlopCountAnalysis(model, torch.randn(shape)).unsupported_ops_warnings(False).tracer_warnings("none")
    with torch.no_grad():
        real = sum(macs for name, macs in analysis.by_operator().items() if "attention" not in name)
    assert count(empty_build(build), torch.empty(shape)).macs_without_attention == round(real)


def test_worked_example():
    """256-wide projection to 3 x 256 and to 10 outputs over 50 tokens; 4 heads of 64: 2 x 4 x 50 x 50 x 64."""
    found = count(Attending(), torch.empty(1, 50, 256))
    assert found.macs_without_attention == 50 * 256 * 768 + 256 * 10
    assert found.macs - found.macs_without_attention == 2 * 4 * 50 * 50 * 64
    assert found.flops == 2 * found.macs


class Direct(nn.Module):
    """An operator called by its own name, as compiled or exported models do."""

    def __init__(self, call: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.call(x, y)


@pytest.mark.parametrize(
    ("call", "shapes", "macs"),
    [
        (lambda q, k: torch.ops.aten._scaled_dot_product_attention_math(q, k, k)[0], ((2, 3, 5, 7), (2, 3, 11, 7)), 2 * 3 * 5 * 11 * 14),
        (lambda q, k: F.scaled_dot_product_attention(q, k, k, is_causal=True), ((2, 3, 5, 7), (2, 3, 11, 7)), 2 * 3 * 5 * 11 * 14),
        (lambda a, b: torch.baddbmm(torch.zeros(1), a, b), ((2, 3, 5), (2, 5, 7)), 2 * 3 * 5 * 7),
        (lambda a, b: torch.einsum("bij,bjk->bik", a, b), ((2, 3, 5), (2, 5, 7)), 2 * 3 * 5 * 7),
    ],
)
def test_single_operators(call: Callable[..., torch.Tensor], shapes: tuple[tuple[int, ...], tuple[int, ...]], macs: int):
    found = count(Direct(call), tuple(torch.empty(s) for s in shapes))
    assert (found.macs, found.flops) == (macs, 2 * macs)


def test_multi_head_attention_is_counted_in_evaluation_mode():
    """Its fused evaluation path would hide everything: 4 projections of 64 x 64 and two products over 10 tokens."""
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), 1).eval()
    expected = 10 * (4 * 64 * 64 + 2 * 64 * 128) + 2 * 10 * 10 * 64
    assert count(model, torch.empty(1, 10, 64)).torch_counter_macs == expected


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout())
    model[1].eval()
    count(model, torch.empty(1, 4))
    assert (model.training, model[0].training, model[1].training) == (True, True, False)
    assert torch.backends.mha.get_fastpath_enabled()


def test_an_attention_operator_without_a_formula_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(flops._HANDLES, "scaled_dot_product_attention")
    with pytest.raises(TraceFailed, match="attention operator aten::scaled_dot_product_attention would be counted as zero"):
        count(Attending(), torch.empty(1, 50, 256))


def test_products_that_one_counter_misses_are_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(flops._HANDLES, "baddbmm")
    with pytest.raises(TraceFailed, match=r"fvcore counts 0 .* torch 210"):
        count(Direct(lambda a, b: torch.baddbmm(torch.zeros(1), a, b)), (torch.empty(2, 3, 5), torch.empty(2, 5, 7)))


def test_a_model_that_fails_is_one_line_and_counting_goes_on_after_it():
    with pytest.raises(TraceFailed) as raised:
        count(nn.Linear(4, 4), torch.empty(1, 5))
    assert "\n" not in str(raised.value)
    assert count(nn.Conv2d(3, 4, 3), torch.empty(1, 3, 8, 8)).macs == 4 * 36 * 27


def test_nothing_of_size_is_computed():
    """One product of 8192 x 8192 matrices is 550 G multiply-accumulates, and each result is 256 MiB."""
    model = empty_build(lambda: nn.Sequential(nn.Linear(8192, 8192, bias=False), nn.Linear(8192, 8192, bias=False)))
    peak = resident_bytes(lambda: count(model, torch.empty(8192, 8192)))
    assert peak.value_bytes is not None
    assert peak.value_bytes < 64 * 2**20


class Comparing(nn.Module):
    """A product of positions with positions, which some papers do not count."""

    counted_as = "correlation"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ x.transpose(1, 2)


def test_correlations_are_counted_and_told_apart():
    model = nn.Sequential(nn.Linear(8, 4, bias=False), Comparing(), nn.Linear(6, 2, bias=False), Comparing())
    found = count(model, torch.empty(1, 6, 8))
    linear, correlation = 6 * 8 * 4 + 6 * 6 * 2, 6 * 4 * 6 + 6 * 2 * 6
    assert (found.macs, found.macs_without_correlation) == (linear + correlation, linear)
    assert found.macs_without_attention == found.macs


class Flow(Comparing):
    counted_as = "flow"


class Window(Comparing):
    """A product of all positions, of which three for each are asked for."""

    counted_as = "window"
    window_macs = 6 * 3 * 4


def test_flow_is_told_apart_and_windows_count_as_asked_for():
    model = nn.Sequential(nn.Linear(8, 4, bias=False), Window(), nn.Linear(6, 2, bias=False), Flow())
    found = count(model, torch.empty(1, 6, 8))
    linear, window, flow = 6 * 8 * 4 + 6 * 6 * 2, 6 * 4 * 6, 6 * 2 * 6
    assert found.macs == linear + window + flow
    assert found.macs_without_flow == linear + window
    assert found.macs_windowed == linear + Window.window_macs + flow
    assert found.macs_without_correlation == found.macs


class Given(nn.Module):
    """A parameter that is handed to a module."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, 3, 8))
        self.linear = nn.Linear(8, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.query) @ x


def test_a_parameter_may_be_given_to_a_module():
    model = Given()
    assert count(model, torch.empty(1, 4, 5)).macs == 3 * 8 * 4 + 3 * 4 * 5
    assert all(p.requires_grad for p in model.parameters())
