"""Optical flow: known motions, memory that does not grow with pairs, and weights that are found or named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchctl.errors import ShapeError, UsageError, WeightsMissing
from benchctl.layers import flow, torchvision_weights
from benchctl.layers.flow import FlowEstimator, best_available, check_shape, check_weights
from benchctl.probes.hollow import Hollow, empty_build
from benchctl.probes.memory import live_bytes
from benchctl.spec import FlowEstimatorName

OPENCV: tuple[FlowEstimatorName, ...] = ("dis", "farneback")
RAFT: tuple[FlowEstimatorName, ...] = ("raft-large", "raft-small")


def moving(x: int, y: int, frames: int = 3, side: int = 96) -> Tensor:
    """(1, T, 3, side, side): a random texture that moves by (x, y) pixels a frame."""
    texture = torch.rand(1, 3, 2 * side, 2 * side, generator=torch.Generator().manual_seed(0))
    smooth = F.avg_pool2d(F.avg_pool2d(texture, 5, 1, 2), 5, 1, 2)
    smooth = (smooth - smooth.amin()) / (smooth.amax() - smooth.amin())
    start = side // 2
    views = [smooth[..., start - t * y : start - t * y + side, start - t * x : start - t * x + side] for t in range(frames)]
    return torch.stack(views, dim=1)


@pytest.mark.parametrize("name", OPENCV)
@pytest.mark.parametrize(("x", "y"), [(3, 0), (-2, 0), (0, 3), (0, -3), (2, -1)])
def test_a_translation_is_found(name: FlowEstimatorName, x: int, y: int) -> None:
    found = FlowEstimator(name)(moving(x, y))
    assert (found.shape, found.dtype) == ((1, 2, 2, 96, 96), torch.float32)
    inner = found[..., 16:-16, 16:-16].flatten(3).median(dim=-1).values
    torch.testing.assert_close(inner, torch.tensor([float(x), float(y)]).expand(1, 2, 2), atol=0.1, rtol=0)


@pytest.mark.parametrize("name", OPENCV)
def test_clips_of_a_batch_and_threads_do_not_matter(name: FlowEstimatorName) -> None:
    import cv2

    clips = torch.cat([moving(3, 0), moving(0, -2)])
    together = FlowEstimator(name)(clips)
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(4)
        assert torch.equal(FlowEstimator(name)(clips[1:]), together[1:])
        assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(threads)


@pytest.mark.parametrize("name", RAFT)
def test_raft_is_torchvisions(name: FlowEstimatorName) -> None:
    """Its padding aside: the same model, the same flow, though only the last mask is made and pairs are taken in turns."""
    from torchvision.models import optical_flow

    torch.manual_seed(0)
    ours = FlowEstimator(name, load=False)
    torch.manual_seed(0)
    theirs = getattr(optical_flow, name.replace("-", "_"))(weights=None).eval()
    frames = torch.rand(1, 3, 3, 128, 136, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(2 * frames[0, :-1] - 1, 2 * frames[0, 1:] - 1)[-1]
    torch.testing.assert_close(ours(frames)[0], expected, atol=1e-3, rtol=1e-4)
    assert ours.weights == "random"


def test_raft_pads_to_whole_eighths() -> None:
    assert FlowEstimator("raft-small", load=False)(torch.rand(1, 2, 3, 131, 129)).shape == (1, 1, 2, 131, 129)


def test_pairs_are_taken_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    original = flow._raft_flow

    def noting(raft: object, first: Tensor, second: Tensor) -> Tensor:
        taken.append(len(first))
        return original(raft, first, second)

    monkeypatch.setattr(flow, "_raft_flow", noting)
    monkeypatch.setattr(flow, "PAIRS_AT_ONCE", 1)
    frames = torch.rand(2, 3, 3, 160, 160, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    estimator = FlowEstimator("raft-small", load=False)
    in_turns = estimator(frames)
    assert taken == [1, 1, 1, 1]
    monkeypatch.setattr(flow, "PAIRS_AT_ONCE", 100)
    torch.testing.assert_close(estimator(frames), in_turns, atol=1e-4, rtol=1e-4)
    assert taken[4:] == [4]


def test_memory_does_not_grow_with_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = FlowEstimator("raft-small", load=False)

    def peak(frames: int, at_once: int) -> int:
        monkeypatch.setattr(flow, "PAIRS_AT_ONCE", at_once)
        taken = live_bytes(lambda: estimator(torch.rand(1, frames, 3, 160, 160))).value_bytes
        assert taken is not None
        return taken

    few, many, together = peak(3, 1), peak(7, 1), peak(7, 100)
    # frames and flow grow, each held a few times over; what is estimated at a time does not
    assert many - few < 4 * 160 * 160 * (3 + 2) * 4 * 4
    assert together > 2 * many


def test_it_is_frozen_and_keeps_no_graph() -> None:
    estimator = FlowEstimator("raft-small", load=False).train()
    assert not any(p.requires_grad for p in estimator.parameters())
    assert not any(m.training for m in estimator.modules())
    assert not FlowEstimator("dis")(moving(1, 0).requires_grad_()).requires_grad


@pytest.mark.parametrize("name", [*OPENCV, *RAFT])
def test_it_can_be_traced_without_values(name: FlowEstimatorName) -> None:
    with torch.device("meta"):
        assert FlowEstimator(name, load=False)(torch.empty(2, 3, 3, 128, 128)).shape == (2, 2, 2, 128, 128)
    estimator = empty_build(lambda: FlowEstimator(name, load=False))
    with Hollow():
        assert estimator(torch.empty(1, 2, 3, 512, 512)).shape == (1, 1, 2, 512, 512)


def test_half_precision_does_not_reach_it() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert FlowEstimator("raft-small", load=False)(torch.rand(1, 2, 3, 128, 128)).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "frames", "side", "what"), [("dis", 1, 64, "one frame"), ("raft-large", 8, 112, "needs frames of 128"), ("dis", 2, 8, "of 12")]
)
def test_bad_shapes(name: FlowEstimatorName, frames: int, side: int, what: str) -> None:
    with pytest.raises(ShapeError, match=what):
        check_shape(name, frames, side)
    with pytest.raises(ShapeError, match=what):
        FlowEstimator(name, load=False)(torch.rand(1, frames, 3, side, side))


@pytest.fixture
def weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of the user's own; nothing else is there, and no server."""

    def no_server(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setenv("BENCHCTL_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "none"))
    monkeypatch.setattr(torchvision_weights.urllib.request, "urlopen", no_server)
    return tmp_path


def test_weights_by_name_and_by_file(weights_folder: Path) -> None:
    from torchvision.models import optical_flow

    state = optical_flow.raft_small(weights=None).state_dict()
    name = optical_flow.Raft_Small_Weights.C_T_V2.url.rpartition("/")[2]
    (weights_folder / "torchvision").mkdir()
    torch.save(state, weights_folder / "torchvision" / name)
    torch.save(state, weights_folder / "mine.pth")
    for weights in (None, "C_T_V2", str(weights_folder / "mine.pth")):
        check_weights("raft-small", weights)
        estimator = FlowEstimator("raft-small", weights=weights)
        assert estimator.raft is not None
        assert all(torch.equal(tensor, state[key]) for key, tensor in estimator.raft.state_dict().items())
        assert estimator.weights == f"raft-small {name if weights in (None, 'C_T_V2') else 'mine.pth'}"


def test_missing_weights(weights_folder: Path) -> None:
    for call in (lambda: check_weights("raft-large", None), lambda: FlowEstimator("raft-large")):
        with pytest.raises(WeightsMissing, match="no network") as missing:
            call()
        assert str(weights_folder / "torchvision") in missing.value.fix
    with pytest.raises(WeightsMissing, match="no such file"):
        check_weights("raft-large", str(weights_folder / "none.pth"))
    assert best_available()[0] == "dis"
    assert "no network" in best_available()[1]


def test_random_weights_only_when_asked_for(weights_folder: Path) -> None:
    check_weights("raft-large", "random")
    assert FlowEstimator("raft-small", weights="random").weights == "random"


def test_weights_that_do_not_fit(weights_folder: Path) -> None:
    torch.save({"other": torch.zeros(1)}, weights_folder / "other.pth")
    with pytest.raises(WeightsMissing, match="does not fit raft-small"):
        FlowEstimator("raft-small", weights=str(weights_folder / "other.pth"))
    with pytest.raises(UsageError, match="no weights 'C_T_V9' of raft-small"):
        FlowEstimator("raft-small", weights="C_T_V9")
    with pytest.raises(UsageError, match="'dis' has no weights"):
        FlowEstimator("dis", weights="C_T_V2")
