"""The saliency of tracks against its definition, and the figure."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchctl.data.encode import write_mp4
from benchctl.errors import UsageError
from benchctl.methods.movt import Config
from benchctl.visualize import clip as clips
from benchctl.visualize import tracks_figure
from benchctl.visualize.model import LoadedModel, load_model
from benchctl.visualize.tracks import saliency

T, N = 4, 20


class Weighted(nn.Module):
    """The logit of class k is k times the sum of all values of point n, n times: the gradient at point n is k n everywhere."""

    def forward(self, tracks_BTN3: Tensor) -> Tensor:
        by_point = (tracks_BTN3.sum((1, 3)) * torch.arange(N)).sum(1)
        return torch.stack([0 * by_point, by_point, 2 * by_point], dim=1)


def toy() -> LoadedModel:
    statistics = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return LoadedModel(Weighted().eval(), Config(points=N), "toy", "no weights", statistics)


def tracks(points: int = N, frames: int = 9) -> np.ndarray:
    found = np.random.default_rng(0).uniform(0, 0.5, (frames, points, 3)).astype(np.float32)
    found[..., 2] = 1
    return found


def test_it_is_the_norm_of_the_gradient():
    found = saliency(toy(), tracks(), T, label=1)
    assert found.scores == pytest.approx(np.arange(N) / (N - 1))
    assert found.top.tolist() == [19, 18], "a tenth of twenty"
    assert (found.label, found.classes, found.predicted) == (1, 3, False)
    assert found.tracks.shape == (T, N, 3)
    own = saliency(toy(), tracks(), T)
    assert (own.label, own.predicted) == (2, True)
    nothing = saliency(toy(), tracks(), T, label=0)
    assert nothing.scores.tolist() == [0] * N, "a class that depends on nothing"


def test_wrong_turns():
    with pytest.raises(UsageError, match="--class 3: there is no such class; use 0 to 2"):
        saliency(toy(), tracks(), T, label=3)
    with pytest.raises(UsageError, match="'pixt-tiny' does not read tracks alone; name movt or movt-tiny"):
        saliency(load_model("pixt-tiny", frames=T, resolution=8), tracks(), T)


def test_the_figure_shows_all_of_it(tmp_path: Path):
    frame = np.full((48, 64, 3), 90, np.uint8)
    plain = tracks_figure.Picture("c.mp4", frame, tracks(), "by lucas-kanade")
    tracks_figure.save(plain, tmp_path / "plain.png")
    judged = tracks_figure.Picture("c.mp4", frame, tracks(), "by lucas-kanade", saliency(toy(), tracks(), T, label=1), "toy")
    tracks_figure.save(judged, tmp_path / "judged.png")
    sizes = [matplotlib.image.imread(tmp_path / name).shape for name in ("plain.png", "judged.png")]
    assert sizes[1][1] > 3 * sizes[0][1], "four panels beside one"
    colours = matplotlib.image.imread(tmp_path / "plain.png")[..., :3]
    assert (colours.max(-1) - colours.min(-1) > 0.5).any(), "tracks are coloured, the frame is grey"


def test_a_clip_and_its_middle_frame(tmp_path: Path):
    frames = np.stack([np.full((48, 64, 3), 20 * t, np.uint8) for t in range(9)])
    write_mp4(tmp_path / "clip.mp4", frames, fps=9)
    assert abs(int(clips.middle_frame(tmp_path / "clip.mp4").mean()) - 80) <= 3
