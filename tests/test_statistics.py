"""Student's t against printed tables, closed forms, SciPy, and the definition by integration."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchctl.statistics import incomplete_beta, sample, student_t_quantile, student_t_tail

#: as printed in every textbook: degrees of freedom -> t at 97.5 % and at 99.5 %
PRINTED = {1: (12.706, 63.657), 2: (4.303, 9.925), 3: (3.182, 5.841), 4: (2.776, 4.604), 9: (2.262, 3.250), 30: (2.042, 2.750)}


@pytest.mark.parametrize("freedom", sorted(PRINTED))
def test_quantiles_are_those_of_printed_tables(freedom: int) -> None:
    assert tuple(round(student_t_quantile(p, freedom), 3) for p in (0.975, 0.995)) == PRINTED[freedom]


def test_closed_forms() -> None:
    for p in (0.001, 0.2, 0.5, 0.6, 0.975, 0.9999):
        assert student_t_quantile(p, 1) == pytest.approx(math.tan(math.pi * (p - 0.5)), rel=1e-10, abs=1e-15), "Cauchy"
        assert student_t_quantile(p, 2) == pytest.approx((2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p))), rel=1e-10, abs=1e-15)


def test_scipy_agrees() -> None:
    from scipy import special, stats

    for freedom in (1, 2, 3, 4, 7, 19, 99, 1000, 2.5, 100_000):
        for p in (0.005, 0.1, 0.51, 0.9, 0.975, 0.995, 0.99999):
            assert student_t_quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-9)
        for t in (-3.0, -0.1, 0.0, 1e-6, 0.5, 2.0, 40.0):
            assert student_t_tail(t, freedom) == pytest.approx(stats.t.sf(t, freedom), rel=1e-9, abs=1e-300)
    for a, b, x in ((0.5, 0.5, 0.3), (2, 3, 0.9), (30, 0.5, 0.999), (500, 0.5, 0.99), (1, 1, 0.25)):
        assert incomplete_beta(a, b, x) == pytest.approx(special.betainc(a, b, x), rel=1e-11)
    assert (incomplete_beta(2, 3, 0), incomplete_beta(2, 3, 1)) == (0, 1)


def test_the_tail_is_the_area_under_the_density() -> None:
    freedom, start, end, steps = 5, 1.5, 400.0, 100_000
    scale = math.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))
    # equal steps of the logarithm, by the midpoint rule
    ratio = (end / start) ** (1 / steps)
    area = 0.0
    for i in range(steps):
        left = start * ratio**i
        area += scale * (1 + (left * math.sqrt(ratio)) ** 2 / freedom) ** (-(freedom + 1) / 2) * left * (ratio - 1)
    assert student_t_tail(start, freedom) == pytest.approx(area, rel=1e-6)


@given(st.floats(0.001, 0.999), st.integers(1, 200))
def test_quantile_and_tail_undo_each_other(p: float, freedom: int) -> None:
    assert 1 - student_t_tail(student_t_quantile(p, freedom), freedom) == pytest.approx(p, rel=1e-9)


def test_there_is_no_quantile_of_nothing() -> None:
    for p, freedom in ((0.0, 3), (1.0, 3), (0.5, 0), (math.nan, 3), (0.5, math.nan)):
        with pytest.raises(ValueError, match="no quantile"):
            student_t_quantile(p, freedom)


def test_a_sample_worked_by_hand() -> None:
    of = sample([0.60, 0.62, 0.67])
    assert of.mean == pytest.approx(0.63)
    assert of.deviation == pytest.approx(math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2))
    assert of.half_width() == pytest.approx(4.302653 * of.deviation / math.sqrt(3), rel=1e-6)
    assert of.half_width(0.99) == pytest.approx(9.924843 * of.deviation / math.sqrt(3), rel=1e-6)
    assert (sample([0.1, 0.1, 0.1]).mean, sample([0.1] * 3).half_width()) == (0.1, 0.0)


def test_one_value_says_nothing_of_the_spread() -> None:
    assert (sample([0.5]).mean, sample([0.5]).deviation, sample([0.5]).half_width()) == (0.5, None, None)
    with pytest.raises(ValueError, match="no mean"):
        _ = sample([]).mean
