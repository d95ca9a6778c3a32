"""MOOSE: its fusions against masked attention written out, its counts, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from benchctl.errors import MissingError, ShapeError, WeightsMissing
from benchctl.methods.moose import PRESETS, Config, CrossModalFusion, Looked, Moose
from benchctl.probes.flops import count, parameters
from benchctl.probes.hollow import empty_build
from benchctl.spec import ClipFlow
from benchctl.vocabulary import ClipShape

Build = Callable[..., nn.Module]
FUSIONS = ("bidirectional", "flow-prior", "visual-prior")


def tiny(**options: Any) -> Config:
    return Config(**{**PRESETS["moose-tiny"], **options})


def fusion(**options: Any) -> CrossModalFusion:
    torch.manual_seed(0)
    return CrossModalFusion(96, 48, tiny(**options), "sdpa").double()


def tokens(width: int, seed: int, patches: int = 6) -> Tensor:
    return torch.randn(2, 1 + patches, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def definition(model: CrossModalFusion, visual: Tensor, motion: Tensor) -> Tensor:
    """Equations 1 to 3, one unit, one head and one query at a time, with the arrow mask as a table."""
    given, units = {"visual": visual, "motion": motion}, []
    for n in range(len(visual)):
        sides = []
        for side in model.sides:
            other = "motion" if side == "visual" else "visual"
            q, k = (getattr(model.query_key, name)(given[name][n]) for name in (side, other))
            v = getattr(model.value, other)(given[other][n])
            Q, inner = q.shape
            W = inner // model.heads
            seen = torch.zeros(Q, inner, dtype=visual.dtype)
            for head in range(model.heads):
                part = slice(head * W, (head + 1) * W)
                for i in range(Q):
                    allowed = [j for j in range(Q) if not model.arrow or i == 0 or j in (0, i)]
                    weights = torch.stack([q[i, part] @ k[j, part] / W**0.5 for j in allowed]).softmax(0)
                    seen[i, part] = sum(w * v[j, part] for w, j in zip(weights, allowed))
            fused = given[side][n] + getattr(model.out, side)(seen)
            sides.append(fused[0] if model.readout == "class" else fused.mean(0))
        units.append(torch.cat(sides))
    return torch.stack(units)


@pytest.mark.parametrize("kind", FUSIONS)
@pytest.mark.parametrize(("arrow", "readout"), [(True, "class"), (True, "mean"), (False, "mean")])
def test_fusion_is_its_definition(kind: str, arrow: bool, readout: str) -> None:
    model = fusion(fusion=kind, arrow=arrow, readout=readout)
    visual, motion = tokens(96, 1), tokens(48, 2)
    torch.testing.assert_close(model(visual, motion), definition(model, visual, motion), atol=1e-10, rtol=1e-10)


def test_a_patch_reaches_its_counterpart_and_the_class_tokens_only() -> None:
    model = fusion(readout="mean")
    visual, motion = tokens(96, 1), tokens(48, 2).requires_grad_()
    query_key = model._query_keys({"visual": visual, "motion": motion})
    seen = model._along_arrows(query_key["visual"], query_key["motion"], model._split(model.value["motion"](motion)))
    (gradient,) = torch.autograd.grad(seen[0, :, 2].sum(), motion)
    reached = (gradient[0].abs().sum(-1) > 0).tolist()
    assert reached == [True, False, False, True, False, False, False]


@pytest.mark.parametrize("arrow", [True, False])
def test_what_patches_give_the_class_token(arrow: bool) -> None:
    model = fusion(arrow=arrow, readout="mean")
    visual, motion = tokens(96, 1), tokens(48, 2)
    weights = model.to_class(visual, motion)["visual"]
    q, k = model.query_key["visual"](visual)[0, 4, :48], model.query_key["motion"](motion)[0, :, :48]
    allowed = k[[0, 4]] if arrow else k
    expected = (allowed @ q / 48**0.5).softmax(0)[0]
    torch.testing.assert_close(weights[0, 0, 3], expected)


def test_nine_frames_are_eight_units(build: Build) -> None:
    model = build("moose-tiny", "9x64").eval()
    assert isinstance(model, Moose)
    seen: list[tuple[int, ...]] = []
    model.aggregation.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape)))
    model(torch.randn(2, 9, 3, 64, 64))
    assert seen == [(2, 8, 144)]
    assert tiny().counted_frames(9) == 8


def test_only_flow_tells_of_the_last_frame(build: Build) -> None:
    model = build("moose-tiny", "3x64", flow="exact").eval()
    clip = torch.randn(1, 3, 5, 64, 64)
    changed = clip.clone()
    changed[:, -1] += 1
    torch.testing.assert_close(model(changed), model(clip), atol=0, rtol=0)
    changed = clip.clone()
    changed[:, -2, 3:] += 4
    assert not torch.allclose(model(changed), model(clip))


def test_given_flow_is_estimated_flow(build: Build) -> None:
    inside, beside = (build("moose-tiny", "4x64", **options).eval() for options in ({}, {"precomputed": True}))
    assert isinstance(inside, Moose)
    beside.load_state_dict(inside.state_dict())
    clip = torch.rand(2, 4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert inside.flow is not None
    flow = inside.flow(clip * inside.std + inside.mean)
    given = torch.cat([clip, torch.cat([flow, torch.zeros(2, 1, 2, 64, 64)], dim=1)], dim=2)
    torch.testing.assert_close(beside(given), inside(clip))


def test_the_order_of_units_matters_to_causal_and_mamba(build: Build) -> None:
    for aggregation, matters in (("mean", False), ("causal", True), ("mamba", True)):
        model = build("moose-tiny", "5x64", aggregation=aggregation).double().eval()
        assert isinstance(model, Moose)
        units = torch.randn(1, 4, 144, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        same = torch.allclose(model.aggregation(units.flip(1)), model.aggregation(units), atol=1e-9)
        assert same is not matters


def test_look(build: Build) -> None:
    model = build("moose-tiny", "4x64").eval()
    assert isinstance(model, Moose)
    looked = model.look(torch.randn(1, 4, 3, 64, 64))
    assert isinstance(looked, Looked)
    assert looked.flow.shape == (3, 2, 64, 64)
    for found in (looked.spatial, looked.temporal):
        assert found is not None
        assert found.shape == (3, 3, 8, 8)
        assert ((found > 0) & (found < 1)).all()
    one_sided = build("moose-tiny", "4x64", fusion="flow-prior").eval()
    assert isinstance(one_sided, Moose)
    assert one_sided.look(torch.randn(1, 4, 3, 64, 64)).temporal is None


def counted(build: Build, resolution: int = 224, **options: Any) -> nn.Module:
    return empty_build(lambda: build("moose-b", f"9x{resolution}", classes=400, **options))


def test_the_printed_parameters(build: Build) -> None:
    """Table 3 with DINOv2 at its native resolution and flow at 224: 101.01 M, 104.70 M with causal attention."""
    model = counted(build)
    assert isinstance(model, Moose)
    assert parameters(model.motion).total / 1e6 == pytest.approx(5.47, rel=0.002)
    assert parameters(model.visual).trainable == 0
    assert model.flow is not None
    assert parameters(model.flow).total / 1e6 == pytest.approx(5.26, rel=0.002)
    mean, native = (parameters(counted(build, aggregation="mean", resolution=r)).total for r in (224, 518))
    causal = parameters(model).total
    assert (causal - mean) / 1e6 == pytest.approx(3.69, abs=0.005)
    # the flow encoder's own table of positions grows with the resolution too, which the paper's does not
    position_tables = 192 * (37**2 - 16**2)
    assert (native - position_tables) / 1e6 == pytest.approx(101.01, abs=0.005)
    assert (native - position_tables + causal - mean) / 1e6 == pytest.approx(104.70, abs=0.005)


def test_costs_with_and_without_flow(build: Build) -> None:
    clip = torch.empty(1, 9, 3, 224, 224)
    inside = count(counted(build), clip)
    beside = count(counted(build, precomputed=True), torch.empty(1, 9, 5, 224, 224))
    assert inside.macs_without_flow == beside.macs == beside.macs_without_flow
    # one pair of frames at 224 x 224 through RAFT-large
    assert (inside.macs - inside.macs_without_flow) / 8e9 == pytest.approx(35.98, rel=0.005)


@pytest.mark.parametrize("fusion_kind", FUSIONS)
@pytest.mark.parametrize("aggregation", ["mean", "causal", "mamba"])
def test_every_combination_learns(build: Build, fusion_kind: str, aggregation: str) -> None:
    model = build("moose-tiny", "3x64", fusion=fusion_kind, aggregation=aggregation).train()
    loss = nn.functional.cross_entropy(model(torch.randn(2, 3, 3, 64, 64)), torch.tensor([0, 1]))
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_channels() -> None:
    assert (tiny().frame_channels, tiny().clip_flow()) == (3, None)
    assert tiny(flow="exact").clip_flow() == ClipFlow(estimator="exact")
    given = Config(flow="raft-small", flow_weights="C_T_V1", precomputed=True)
    assert (given.frame_channels, given.clip_flow()) == (5, ClipFlow(estimator="raft-small", weights="C_T_V1"))


@pytest.mark.parametrize(
    ("options", "frames", "resolution", "kind", "what"),
    [
        ({}, 1, 64, ShapeError, "no optical flow in one frame"),
        ({"flow": "exact"}, 1, 64, ShapeError, "no optical flow in one frame"),
        ({"flow": "raft-large"}, 9, 64, ShapeError, "raft-large needs frames of 128"),
        ({"patch_size": 14}, 9, 64, ShapeError, "not a multiple of the patch size 14"),
        ({"aggregation": "mamba", "scan": "mamba-ssm"}, 9, 64, MissingError, "mamba-ssm is not installed"),
    ],
)
def test_shapes_that_cannot_be(options: dict[str, Any], frames: int, resolution: int, kind: type[Exception], what: str) -> None:
    with pytest.raises(kind, match=what):
        tiny(**options).check(ClipShape(frames=frames, resolution=resolution), pad=False)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"flow": "dis", "flow_weights": "C_T_V2"}, "'dis' has no weights"),
        ({"flow": "exact", "precomputed": True}, "leave precomputed out"),
        ({"arrow": False}, "only readout: mean reads"),
        ({"fusion_heads": 5}, "fusion_width 144"),
        ({"aggregation_heads": 5}, "units are 144 wide"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        tiny(**options)


def test_raft_without_weights_cannot_learn() -> None:
    with pytest.raises(WeightsMissing, match="raft-large would have random weights"):
        Config().check_weights("train", pretrained=False)
    Config().check_weights("profile", pretrained=False)
    Config(flow_weights="random").check_weights("train", pretrained=False)
    tiny().check_weights("train", pretrained=False)
