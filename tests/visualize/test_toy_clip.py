from __future__ import annotations

import numpy as np
import pytest

from benchctl.errors import ShapeError
from benchctl.visualize.toy_clip import BACKGROUND, SHAPES, toy_clip


@pytest.fixture(scope="module")
def clip():
    return toy_clip(frames=8, size=96)


def test_it_holds_two_groups_of_the_same_three_shapes():
    for group in (0, 1):
        assert sorted(shape.outline for shape in SHAPES if shape.group == group) == ["circle", "cube", "heart"]


def test_group_0_moves_to_the_right_and_group_1_upwards_all_alike():
    movements = [(np.subtract(shape.last, shape.first), shape.group) for shape in SHAPES]
    for moved, group in movements:
        x, y = moved
        assert (x > 0 and y == 0) if group == 0 else (x == 0 and y < 0)
        assert abs(x) + abs(y) == pytest.approx(abs(movements[0][0]).sum())


def test_no_shape_meets_another_or_the_edge(clip):
    areas = np.stack([(clip.owners == index).sum(axis=(1, 2)) for index in range(len(SHAPES))])
    # whatever is covered or cut off would make an area smaller in some frame
    assert (areas.max(axis=1) - areas.min(axis=1) <= 0.06 * areas.mean(axis=1)).all(), areas
    edges = np.concatenate([clip.owners[:, [0, -1]].ravel(), clip.owners[:, :, [0, -1]].ravel()])
    assert (edges == BACKGROUND).all()


def test_shapes_are_where_their_centres_are_and_have_their_colours(clip):
    colours = {"circle": 2, "heart": 0, "cube": 1}
    for index, shape in enumerate(SHAPES):
        for frame in (0, 5, 7):
            x, y = clip.centre(index, frame)
            assert clip.owners[frame, y, x] == index
            assert clip.frames[frame, y, x].argmax() == colours[shape.outline]
            seen_y, seen_x = np.nonzero(clip.owners[frame] == index)
            assert abs(seen_x.mean() - x) < 1.5
            assert abs(seen_y.mean() - y) < 2.5  # a heart's centre of mass is not in its middle


def test_the_background_is_one_grey(clip):
    # pixels at the rim of a shape are mixtures, and belong to the background where it covers most of them
    plain = clip.frames[(clip.frames == 128).all(axis=-1)]
    assert len(plain) > 0.75 * clip.owners.size
    assert (clip.owners[(clip.frames == 128).all(axis=-1)] == BACKGROUND).all()


@pytest.mark.parametrize(("frames", "size"), [(0, 96), (8, 31)])
def test_what_cannot_hold_it_is_refused(frames, size):
    with pytest.raises(ShapeError, match="cannot hold the toy clip"):
        toy_clip(frames, size)


def test_one_frame_is_a_clip():
    assert toy_clip(1, 32).frames.shape == (1, 32, 32, 3)
