"""Names in figures: beside their lines, or around their points, and never over each other."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchctl.report.labels import Box, apart, arrange, within


@given(st.lists(st.floats(0, 1), max_size=12).map(sorted))
def test_labels_are_movedapart_and_no_further(heights: list[float]) -> None:
    gap = 0.1
    placed = apart(heights, gap)
    assert len(placed) == len(heights)
    assert all(b - a >= gap - 1e-9 for a, b in itertools.pairwise(placed))
    assert sum(placed) == pytest.approx(sum(heights)), "as much up as down"
    if all(b - a >= gap for a, b in itertools.pairwise(heights)):
        assert placed == pytest.approx(heights)


@given(st.lists(st.floats(-1, 2), max_size=9).map(sorted))
def test_labels_stay_inside_where_there_is_room(levels: list[float]) -> None:
    gap = 0.1
    placed = within(apart(levels, gap), gap)
    assert all(-1e-9 <= level <= 1 + 1e-9 for level in placed)
    assert all(b - a >= gap - 1e-9 for a, b in itertools.pairwise(placed))


def test_without_room_labels_are_as_they_were() -> None:
    levels = [0.1 * i for i in range(13)]
    assert within(levels, 0.1) == levels


def test_boxes() -> None:
    box = Box(0, 0, 4, 2)
    assert (box.overlap(Box(3, 1, 9, 9)), box.overlap(Box(4, 0, 5, 1)), box.overlap(Box(5, 5, 6, 6))) == (1, 0, 0)
    assert box.outside(Box(1, 0, 3, 5)) == 2
    assert (box.nearest((9, 1)), box.holds((4, 2)), box.holds((4.1, 2))) == ((4, 1), True, False)


def test_a_name_stands_right_of_its_mark_where_nothing_is_in_its_way() -> None:
    room = Box(0, 0, 500, 500)
    placed = arrange({"a": (250, 250)}, {"a": (40, 8)}, room, [])["a"]
    assert placed.left > 250
    assert (placed.bottom + placed.top) / 2 == pytest.approx(250)
    moved = arrange({"a": (250, 250)}, {"a": (40, 8)}, room, [Box(252, 200, 300, 300)])["a"]
    assert moved.right < 252


@given(st.lists(st.tuples(st.integers(60, 240), st.integers(60, 240)), min_size=1, max_size=6, unique=True))
def test_few_names_find_room(points: list[tuple[int, int]]) -> None:
    marks = {str(i): (float(x), float(y)) for i, (x, y) in enumerate(points)}
    room = Box(0, 0, 300, 300)
    placed = list(arrange(marks, dict.fromkeys(marks, (30.0, 8.0)), room, []).values())
    assert sum(a.overlap(b) for i, a in enumerate(placed) for b in placed[:i]) == 0
    assert all(box.outside(room) < 1e-9 for box in placed)
