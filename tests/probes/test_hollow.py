import pytest
import torch
from probe_models import SMALL, timesformer, timm_model
from torch import nn

from benchctl.errors import TraceFailed
from benchctl.probes.hollow import Hollow, empty_build
from benchctl.probes.memory import resident_bytes


def test_a_hollow_model_has_the_real_one_s_shapes():
    for build in (timesformer(**SMALL, num_frames=4, image_size=64), timm_model("swin_tiny_patch4_window7_224")):
        real, hollow = build().state_dict(), empty_build(build).state_dict()
        assert {k: (v.shape, v.stride(), v.dtype) for k, v in real.items()} == {
            k: (v.shape, v.stride(), v.dtype) for k, v in hollow.items()
        }


def test_a_hollow_model_takes_no_pages():
    def build() -> nn.Module:
        return nn.Linear(16384, 16384)  # 1 GiB

    held: list[nn.Module] = []
    peak = resident_bytes(lambda: held.append(empty_build(build)))
    assert peak.value_bytes is not None
    assert peak.value_bytes < 64 * 2**20


def test_small_tensors_are_real():
    def build() -> nn.Module:
        model = nn.Linear(4, 4)
        model.register_buffer("schedule", torch.linspace(0, 1, 5))
        model.register_buffer("index", torch.arange(300)[:, None] - torch.arange(300)[None, :] + 299)
        nn.init.constant_(model.bias, 3.0)
        return model

    made = empty_build(build)
    assert made.schedule.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert made.bias.tolist() == [3.0] * 4
    # too large to be computed; zero is a valid index
    assert made.index.unique().tolist() == [0]


def test_building_leaves_the_random_state():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    empty_build(lambda: nn.Linear(8, 8))
    assert torch.equal(torch.get_rng_state(), state)


def test_results_have_the_real_shape_stride_and_type():
    x = torch.randn(64, 3, 40, 40)
    layer = nn.Conv2d(3, 32, 3).eval()
    cases = [
        lambda: layer(x),
        lambda: x.permute(0, 2, 3, 1).contiguous().softmax(-1),
        lambda: x.topk(2, dim=-1).indices,
        lambda: x.to(torch.bfloat16).transpose(1, 3) * 2,
        lambda: torch.cat([x, x], 1).mean((2, 3)),
        lambda: x.unfold(2, 8, 8).sum(-1),
    ]
    for case in cases:
        real = case()
        with Hollow():
            hollow = case()
        assert (hollow.shape, hollow.stride(), hollow.dtype) == (real.shape, real.stride(), real.dtype)


def test_an_operator_in_place_returns_its_argument():
    x = torch.ones(200, 200)
    with Hollow():
        assert x.mul_(2) is x
        assert torch.add(x, x, out=x) is x
    assert x[0, 0] == 1


def test_a_shape_that_depends_on_values_cannot_be_imitated():
    with Hollow(), pytest.raises(TraceFailed, match="nonzero has no shape rule"):
        torch.ones(200, 200).nonzero()
    with Hollow():
        assert torch.ones(2, 2).nonzero().shape == (4, 2)
