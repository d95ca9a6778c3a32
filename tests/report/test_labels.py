"""Names in figures: beside their lines, or around their points, and never over each other."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchctl.report.labels import apart


@given(st.lists(st.floats(0, 1), max_size=12).map(sorted))
def test_labels_are_movedapart_and_no_further(heights: list[float]) -> None:
    gap = 0.1
    placed = apart(heights, gap)
    assert len(placed) == len(heights)
    assert all(b - a >= gap - 1e-9 for a, b in itertools.pairwise(placed))
    assert sum(placed) == pytest.approx(sum(heights)), "as much up as down"
    if all(b - a >= gap for a, b in itertools.pairwise(heights)):
        assert placed == pytest.approx(heights)
