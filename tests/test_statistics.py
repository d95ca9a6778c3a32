"""Against printed tables, closed forms, SciPy, many draws, and definitions by integration and by counting."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchctl.statistics import (
    contrast,
    incomplete_beta,
    mann_whitney,
    mcnemar,
    paired_shares,
    ratio_of_medians,
    sample,
    slope,
    student_t_quantile,
    student_t_tail,
    welch,
)

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


def test_comparing_two_means_is_what_scipy_has() -> None:
    from scipy import stats

    for before, after in (((0.5, 0.6, 0.55), (0.7, 0.8, 0.9, 0.75)), ((1.0, 2.0), (1.5, 1.6)), ((3.0, 3.1, 2.9), (3.0, 3.1, 2.9))):
        found, theirs = welch(sample(before), sample(after), 0.95), stats.ttest_ind(after, before, equal_var=False)
        interval = theirs.confidence_interval(0.95)
        assert found.p == pytest.approx(theirs.pvalue)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    same = welch(sample((0.5, 0.5)), sample((0.5, 0.5)))
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
    with pytest.raises(ValueError, match="no spread"):
        welch(sample((1.0,)), sample((1.0, 2.0)))


def test_a_contrast_of_four_means_is_the_difference_of_two_falls() -> None:
    rng = random.Random(1)
    samples = [sample([rng.gauss(mean, 0.02) for _ in range(4)]) for mean in (0.8, 0.3, 0.9, 0.9)]
    found = contrast(list(zip((1.0, -1.0, -1.0, 1.0), samples)))
    means = [each.mean for each in samples]
    assert found.difference == pytest.approx((means[0] - means[2]) - (means[1] - means[3]))
    # all samples alike: Welch's degrees of freedom are then those of the pooled variance
    alike = contrast([(factor, sample((0.1, 0.2, 0.3))) for factor in (1.0, -1.0, -1.0, 1.0)])
    assert alike.high == pytest.approx(student_t_quantile(0.975, 8) * math.sqrt(4 * 0.01 / 3))


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (5, 0), (6, 0), (7, 3), (400, 200), (30, 30)])
def test_mcnemar_is_the_exact_binomial_test(lost: int, gained: int) -> None:
    from scipy import stats

    expected = stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert mcnemar(lost, gained) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("lost", "gained", "clips"), [(400, 200, 20_000), (60, 10, 1_000), (3, 1, 77), (0, 5, 100), (0, 0, 10), (10, 0, 10)]
)
def test_the_interval_of_paired_shares_is_that_of_many_draws(lost: int, gained: int, clips: int) -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    draws = rng.multinomial(clips, [lost / clips, gained / clips, 1 - (lost + gained) / clips], size=100_000)
    low, high = np.quantile((draws[:, 1] - draws[:, 0]) / clips, [0.01, 0.99])
    found = paired_shares(lost, gained, clips, 0.98)
    # a clip more or less: quantiles of draws are themselves drawn
    assert (found.low, found.high) == pytest.approx((low, high), abs=3 / clips)
    assert found.difference == (gained - lost) / clips


def test_mann_and_whitney_are_scipys() -> None:
    from scipy import stats

    rng = random.Random(2)
    for m, n, ties in ((4, 5, False), (15, 20, False), (30, 40, True), (25, 30, False), (1, 1, False)):
        before = [round(rng.gauss(0, 2), 0 if ties else 9) for _ in range(m)]
        after = [round(rng.gauss(1, 2), 0 if ties else 9) for _ in range(n)]
        method = "exact" if m * n <= 400 else "asymptotic"
        assert mann_whitney(before, after) == pytest.approx(stats.mannwhitneyu(before, after, method=method).pvalue, rel=1e-9)
    assert mann_whitney([1.0, 1.0], [1.0]) == 1.0


def test_the_exact_distribution_of_ranks_is_that_of_all_orders() -> None:
    before, after = [1.0, 4.0, 2.5], [3.0, 5.0, 0.5, 6.0]
    values = before + after
    seen = sum((a > b) for a in after for b in before)
    centre = len(before) * len(after) / 2
    orders = [sum(a > b for a in values if a not in chosen for b in chosen) for chosen in itertools.combinations(values, len(before))]
    as_far = sum(abs(each - centre) >= abs(seen - centre) for each in orders) / len(orders)
    assert mann_whitney(before, after) == pytest.approx(as_far)


def test_ratios_of_medians() -> None:
    ratio, low, high = ratio_of_medians([1.0, 1.1, 0.9, 1.0, 1.05], [2.0, 2.2, 1.8, 2.1, 1.95])
    assert ratio == 2.0
    assert 1.6 < low <= ratio <= high < 2.5
    assert ratio_of_medians([1.0], [3.0]) == (3.0, 3.0, 3.0)


def test_slopes_are_exponents() -> None:
    assert slope([(x, 3 * x**1.7) for x in (2.0, 5.0, 9.0, 31.0)]) == pytest.approx(1.7)
    for points in ([(1.0, 2.0)], [(1.0, 2.0), (1.0, 3.0)], [(1.0, 0.0), (2.0, 1.0)]):
        with pytest.raises(ValueError, match="two different sizes"):
            slope(points)
