"""The share of a step that collectives take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchctl.engine.communication import covered

LENGTH = 50


def test_what_overlaps_counts_once_and_what_is_outside_not_at_all():
    assert covered([(0, 10), (5, 15), (30, 40)], (0, 50)) == pytest.approx(25 / 50)
    assert covered([(-5, 5), (45, 60), (70, 80)], (0, 50)) == pytest.approx(10 / 50)
    assert covered([], (0, 50)) == 0
    assert covered([(0, 1)], (7, 7)) == 0


@given(st.lists(st.tuples(st.integers(-10, 60), st.integers(-10, 60)).map(sorted).map(tuple)))
def test_it_is_the_share_of_moments(parts):
    moments = {moment for begin, end in parts for moment in range(begin, end) if 0 <= moment < LENGTH}
    assert covered(parts, (0, LENGTH)) == pytest.approx(len(moments) / LENGTH)
