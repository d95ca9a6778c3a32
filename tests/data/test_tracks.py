"""Point tracks: Lucas-Kanade against exact motion, lost points, CoTracker3's interface."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch

from benchctl.data import tracks
from benchctl.errors import ClipUnreadable, MissingError


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth random grey, with corners everywhere."""
    noise = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.uint8(255 * (blurred - blurred.min()) / (blurred.max() - blurred.min()))


def panning(frames: int, step: tuple[int, int], seed: int = 0) -> np.ndarray:
    """RGB frames of 48 x 64 over a large texture: what is seen moves by minus `step` (x, y) a frame."""
    large = texture(400, 400, seed)
    views = [large[150 + t * step[1] :][:48, 150 + t * step[0] :][:, :64] for t in range(frames)]
    return np.repeat(np.stack(views)[..., None], 3, axis=3)


@pytest.mark.parametrize("step", [(1, 0), (-2, 1), (3, -2)])
def test_lucas_kanade_follows_what_moves(step: tuple[int, int]):
    frames = panning(9, step)
    grey = tracks.greys(frames)
    found = tracks.lucas_kanade(grey, tracks.corners(grey))
    assert found.shape[1] > 20
    for before, after in pairwise(found):
        seen = (before[:, 2] > 0) & (after[:, 2] > 0)
        assert seen.sum() > 10
        assert np.median(np.abs(after[seen, :2] - before[seen, :2] + np.array(step)), axis=0).max() < 0.1


def test_points_are_tracked_to_both_ends_from_where_they_were_found():
    grey = tracks.greys(panning(9, (1, 0)))
    queries = tracks.corners(grey)
    assert [frame for frame, _ in queries] == [1, 4, 7]
    found = tracks.lucas_kanade(grey, queries)
    first = len(queries[0][1])
    assert found[1, :first, 2].all()
    assert found[4, first : first + len(queries[1][1]), 2].all()
    assert found[0, :, 2].sum() > 5
    assert found[-1, :, 2].sum() > 5


def test_a_point_that_leaves_is_lost_for_good():
    grey = tracks.greys(panning(16, (5, 0)))
    found = tracks.lucas_kanade(grey, [(0, np.array([[20.0, 20.0]], np.float32))])[:, 0]
    lost = np.flatnonzero(found[:, 2] == 0)
    assert 0 < lost[0] < 6
    assert not found[lost[0] :, 2].any()
    assert (found[lost[0] :, :2] == found[lost[0] - 1, :2]).all(), "it stays at its last place"


def test_points_that_move_by_themselves_come_first():
    """A camera that pans, and one point of ten that does not go with it; another, hidden, does nothing."""
    places = np.zeros((6, 10, 3), np.float32)
    places[..., 0] = np.arange(6)[:, None] * 3.0
    places[..., 2] = 1
    places[:, 7, 1] = np.arange(6) * 2
    places[:, 3, 2] = 0
    ordered = tracks.by_own_motion(places)
    assert (ordered[:, 0] == places[:, 7]).all()
    assert ordered[0, :, 2].sum() == 9


def test_scaled_worked_example():
    """The centre of the first of four pixels is an eighth of the way from edge to edge."""
    found = tracks.scaled(np.array([[[0.0, 0.0, 1.0], [3.0, 1.0, 0.0], [1.5, 0.5, 1.0]]]), height=2, width=4)
    assert found.tolist() == [[[-0.75, -0.5, 1.0], [0.75, 0.5, 0.0], [0.0, 0.0, 1.0]]]


def test_no_points_and_all_points_lost():
    with pytest.raises(ClipUnreadable, match="no point to track was found: no frame has a corner"):
        tracks.estimate(np.full((5, 48, 64, 3), 128, np.uint8), "lucas-kanade")
    flash = np.full((6, 48, 64, 3), 128, np.uint8)
    flash[1::2] = panning(3, (0, 0))
    with pytest.raises(ClipUnreadable, match=r"all \d+ points were lost: none is seen in two frames after each other"):
        tracks.estimate(flash, "lucas-kanade")
    assert tracks.estimate(flash[1:2], "lucas-kanade").shape[0] == 1, "one frame has nothing to lose"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, object]]:
    """A package with CoTracker3's documented interface that answers with the queries, moved by a pixel a frame; and what it was asked."""
    asked: list[dict[str, object]] = []

    class CoTrackerPredictor(torch.nn.Module):
        def __init__(self, checkpoint: str) -> None:
            super().__init__()
            asked.append({"checkpoint": checkpoint})

        def forward(self, video: torch.Tensor, queries: torch.Tensor, backward_tracking: bool) -> tuple[torch.Tensor, torch.Tensor]:
            asked.append({"video": video.shape, "range": float(video.max()), "queries": queries, "backward": backward_tracking})
            steps = torch.arange(video.shape[1], dtype=torch.float32)[None, :, None, None]
            return queries[:, None, :, 1:] + steps, torch.ones(1, video.shape[1], queries.shape[1], dtype=torch.bool)

    package, predictor = ModuleType("cotracker"), ModuleType("cotracker.predictor")
    predictor.CoTrackerPredictor = CoTrackerPredictor
    package.__spec__ = predictor.__spec__ = __import__("importlib.machinery", fromlist=["ModuleSpec"]).ModuleSpec("cotracker", None)
    monkeypatch.setitem(sys.modules, "cotracker", package)
    monkeypatch.setitem(sys.modules, "cotracker.predictor", predictor)
    monkeypatch.setenv("BENCHCTL_WEIGHTS", str(tmp_path))
    return asked


def test_cotracker_is_asked_as_it_is_documented(stand_in: list[dict[str, object]], tmp_path: Path):
    assert tracks.cotracker_missing() == f"put CoTracker3's weights at $BENCHCTL_WEIGHTS/{tracks.COTRACKER_WEIGHTS}"
    with pytest.raises(MissingError, match="or use the estimator lucas-kanade"):
        tracks.cotracker(panning(6, (1, 0)), [])
    file = tmp_path / tracks.COTRACKER_WEIGHTS
    file.parent.mkdir(parents=True)
    file.touch()
    found = tracks.estimate(panning(6, (1, 0)), "cotracker3")
    assert found.shape[0] == 6
    assert found.dtype == np.float32
    assert stand_in[0] == {"checkpoint": str(file)}
    call = stand_in[1]
    assert (call["video"], call["backward"]) == ((1, 6, 3, 48, 64), True)
    assert call["range"] > 100, "values from 0 to 255"
    assert set(call["queries"][0, :, 0].tolist()) == {1.0, 3.0, 5.0}


def test_without_the_package_it_is_named():
    assert tracks.cotracker_missing() == "the package cotracker is not installed (github.com/facebookresearch/co-tracker)"
