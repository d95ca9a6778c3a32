from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchctl.data.decode import decode
from benchctl.data.encode import write_mp4
from benchctl.errors import ClipUnreadable, UsageError
from benchctl.visualize import clip as clips
from benchctl.visualize.clip import Query


@pytest.fixture(scope="module")
def moving_square(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 frames of 96 x 64 in which a white square goes right, 3 pixels a frame."""
    frames = np.full((20, 64, 96, 3), 40, np.uint8)
    for t in range(20):
        frames[t, 40:52, 10 + 3 * t : 22 + 3 * t] = 230
    file = tmp_path_factory.mktemp("square") / "square.mp4"
    write_mp4(file, frames, fps=10)
    return file


def test_frames_are_the_centre_of_the_decoded_ones(moving_square):
    shown = clips.read(str(moving_square), frames=5, resolution=64)
    assert shown.frames.shape == (5, 64, 64, 3)
    # segment sampling: the middle of each four frames; the short side is 64 already, so 16 pixels go at each side
    assert np.array_equal(shown.frames, decode(moving_square, [2, 6, 10, 14, 18])[:, :, 16:80])
    assert shown.name == "square.mp4"


def test_a_stride_takes_frames_around_the_middle(moving_square):
    shown = clips.read(str(moving_square), frames=4, resolution=64, stride=2)
    first = (20 - 1 - 3 * 2) // 2
    assert np.array_equal(shown.frames, decode(moving_square, [first, first + 2, first + 4, first + 6])[:, :, 16:80])


def test_the_suggested_query_is_on_what_moves(moving_square):
    shown = clips.read(str(moving_square), frames=8, resolution=64)
    (query,) = shown.suggested
    assert query.frame == 4
    change = np.abs(np.diff(shown.frames[3:6].astype(int), axis=0)).sum(axis=(0, 3))
    assert change[query.y, query.x] > 100


def test_one_frame_has_a_suggestion_too(moving_square):
    shown = clips.read(str(moving_square), frames=1, resolution=32)
    shown.check(shown.suggested[0])


@pytest.mark.parametrize("query", [Query(8, 0, 0), Query(-1, 0, 0), Query(0, 64, 0), Query(0, 0, 64), Query(0, -1, 0)])
def test_a_query_outside_names_itself_and_the_limits(query):
    shown = clips.read("toy", frames=8, resolution=64)
    with pytest.raises(
        UsageError, match=f"^--query {query.frame},{query.x},{query.y}: outside the clip; FRAME is 0 to 7, X and Y are 0 to 63"
    ):
        shown.check(query)


def test_the_toy_clip_suggests_its_green_cubes():
    shown = clips.read("toy", frames=8, resolution=64)
    assert len(shown.suggested) == 2
    for query in shown.suggested:
        assert shown.frames[query.frame, query.y, query.x].argmax() == 1


def test_the_toy_clip_refuses_what_it_cannot_be():
    with pytest.raises(UsageError, match="--resolution 16"):
        clips.read("toy", frames=8, resolution=16)
    with pytest.raises(UsageError, match="--stride 2"):
        clips.read("toy", frames=8, resolution=64, stride=2)


def test_what_is_not_a_video_is_unreadable(tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"not a video")
    with pytest.raises(ClipUnreadable):
        clips.read(str(tmp_path / "x.mp4"), frames=8, resolution=64)


def test_a_real_clip_is_read(real_data):
    file = real_data / "clips" / "x_portrait.mp4"
    if not file.is_file():
        pytest.skip(f"no {file.name} in {file.parent}")
    shown = clips.read(str(file), frames=3, resolution=64)
    assert shown.frames.shape == (3, 64, 64, 3)
    assert shown.frames.std() > 5
