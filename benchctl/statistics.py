"""What repetitions, pairs and times can tell apart, without SciPy, whose import costs more than a report.

A mean over a few seeds (Student's t, Welch's comparison of two), which clips two evaluations were right about (McNemar's exact test and
the bootstrap over clips), and two sets of times (Mann and Whitney's test).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median

_LEVEL = 0.95
#: the continued fraction meets this in some ten terms, and never needs more than these for what a double can tell apart
_PRECISION = 1e-16
_MOST_TERMS = 10_000
_TINY = 1e-300


@dataclass(frozen=True)
class Sample:
    """A few values of one quantity, such as an accuracy over seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Arithmetic mean.

        Raises:
            ValueError: there is no value.
        """
        if not self.values:
            raise ValueError("no values have no mean")
        # a mean outside of its own values would be a rounding error
        return min(max(math.fsum(self.values) / len(self.values), min(self.values)), max(self.values))

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the population that they are drawn from (n - 1); None: one value says nothing of it."""
        if len(self.values) < 2:
            return None
        mean = self.mean
        return math.sqrt(math.fsum((value - mean) ** 2 for value in self.values) / (len(self.values) - 1))

    def half_width(self, level: float = _LEVEL) -> float | None:
        """Half the confidence interval of the mean, by Student's t; None where there is no deviation."""
        deviation, count = self.deviation, len(self.values)
        if deviation is None:
            return None
        return student_t_quantile((1 + level) / 2, count - 1) * deviation / math.sqrt(count)


def sample(values: Sequence[float]) -> Sample:
    """A sample of `values`."""
    return Sample(tuple(values))


@lru_cache(maxsize=1024)
def student_t_quantile(probability: float, freedom: float) -> float:
    """The t below which Student's distribution with `freedom` degrees of freedom has `probability`.

    Raises:
        ValueError: a probability outside of (0, 1), or no degree of freedom.
    """
    if not 0 < probability < 1 or not freedom > 0:
        raise ValueError(f"no quantile at probability {probability} with {freedom} degrees of freedom")
    if probability < 0.5:
        return -student_t_quantile(1 - probability, freedom)
    if probability == 0.5:
        return 0.0
    above = 1 - probability
    low, high = 0.0, 1.0
    while student_t_tail(high, freedom) > above:
        low, high = high, 2 * high
    # halving until neighbours: the tail falls steadily, and nothing here is called often enough for more
    while low < (middle := (low + high) / 2) < high:
        if student_t_tail(middle, freedom) > above:
            low = middle
        else:
            high = middle
    return high


def student_t_tail(t: float, freedom: float) -> float:
    """The probability of a value above `t`, by Student's distribution with `freedom` degrees of freedom."""
    if t < 0:
        return 1 - student_t_tail(-t, freedom)
    # Abramowitz and Stegun (1964), 26.7.1 in terms of the incomplete beta function. Both shares are given, because near 1 their
    # difference from it is what counts
    square = t * t
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + square), square / (freedom + square)) / 2


def incomplete_beta(a: float, b: float, x: float, rest: float | None = None) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (Abramowitz and Stegun 1964, 26.5.8).

    Args:
        a: first parameter, above 0.
        b: second parameter, above 0.
        x: where, from 0 to 1.
        rest: 1 - x, where it is known more exactly than the subtraction gives.
    """
    rest = 1 - x if rest is None else rest
    if x <= 0 or rest <= 0:
        return 0.0 if x <= 0 else 1.0
    # the fraction converges fast on this side of the mean; on the other side, I_x(a, b) = 1 - I_(1-x)(b, a)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, rest, x)
    factor = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest))
    return factor / a / _fraction(a, b, x)


def _fraction(a: float, b: float, x: float) -> float:
    """1 + d1/(1 + d2/(1 + ...)), from the top down (the modified Lentz method, Thompson and Barnett 1986)."""
    value = upper = 1.0
    lower = 0.0
    for term in range(1, _MOST_TERMS):
        half = term // 2
        if term % 2:
            d = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        else:
            d = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        upper = 1 + d / upper or _TINY
        lower = 1 / (1 + d * lower or _TINY)
        change = upper * lower
        value *= change
        if abs(change - 1) <= _PRECISION:
            break
    return value


@dataclass(frozen=True)
class Comparison:
    """How far one mean or share lies above another, and what chance can do."""

    difference: float
    low: float
    high: float
    #: probability of a difference this large in either direction if there were none
    p: float


def welch(before: Sample, after: Sample, level: float = _LEVEL) -> Comparison:
    """The mean of `after` minus that of `before`, whose spreads may differ (Welch 1947), with its confidence interval.

    Args:
        before: two values or more.
        after: two values or more.
        level: of the interval.

    Raises:
        ValueError: one value alone says nothing of a spread.
    """
    return contrast([(-1.0, before), (1.0, after)], level)


def contrast(parts: Sequence[tuple[float, Sample]], level: float = _LEVEL) -> Comparison:
    """A sum of means with factors, for example one fall minus another, as Welch (1947) has it for any number of means.

    Raises:
        ValueError: a sample of one value.
    """
    difference = math.fsum(factor * sample.mean for factor, sample in parts)
    variances = []
    for factor, each in parts:
        if each.deviation is None:
            raise ValueError("a mean of one value has no spread")
        variances.append((factor * each.deviation) ** 2 / len(each.values))
    error = math.sqrt(math.fsum(variances))
    if error == 0:
        return Comparison(difference, difference, difference, 1.0 if difference == 0 else 0.0)
    # shares of the variance, because the squares of tiny variances would be 0
    shares = [variance / math.fsum(variances) for variance in variances]
    freedom = 1 / math.fsum(share**2 / (len(each.values) - 1) for share, (_, each) in zip(shares, parts))
    half = student_t_quantile((1 + level) / 2, freedom) * error
    return Comparison(difference, difference - half, difference + half, min(1.0, 2 * student_t_tail(abs(difference) / error, freedom)))


def mcnemar(lost: int, gained: int) -> float:
    """Two-sided probability of so uneven a split of `lost + gained` clips if each were as likely the one as the other (McNemar 1947)."""
    if lost + gained == 0:
        return 1.0
    return min(1.0, 2 * _at_most(min(lost, gained), lost + gained, 0.5))


def paired_shares(lost: int, gained: int, clips: int, level: float = _LEVEL) -> Comparison:
    """The change in the share of right clips, with its bootstrap interval over clips and McNemar's probability.

    Drawing clips with replacement draws how many of them were lost, gained or neither from a multinomial distribution, so the bootstrap's
    own distribution is computed in place of some thousand draws from it: the interval is the same every time.

    Args:
        lost: clips that only the earlier evaluation was right about.
        gained: clips that only the later one was right about.
        clips: all clips.
        level: of the interval.
    """
    difference = (gained - lost) / clips
    tail = (1 - level) / 2
    if lost + gained == 0:
        return Comparison(difference, difference, difference, 1.0)
    low = _quantile(lost, gained, clips, tail)
    high = -_quantile(gained, lost, clips, tail)
    return Comparison(difference, low / clips, high / clips, mcnemar(lost, gained))


def _quantile(lost: int, gained: int, clips: int, tail: float) -> int:
    """The smallest number d of `gained - lost` clips that a draw of `clips` does not exceed with a probability above `tail`."""
    changed = lost + gained
    # how many of the drawn clips are among the changed ones, as far as that has any probability
    share = changed / clips
    around = 8 * math.sqrt(clips * share * (1 - share)) + 8
    counts = range(max(0, math.floor(changed - around)), min(clips, math.ceil(changed + around)) + 1)
    weights = [_binomial(count, clips, share) for count in counts]

    def at_most(difference: int) -> float:
        # of `count` changed clips, g gained: g - (count - g) <= difference
        return math.fsum(
            weight * _at_most((count + difference) // 2, count, gained / changed) for count, weight in zip(counts, weights) if weight > 0
        )

    low, high = -clips, clips
    while low < high:
        middle = (low + high) // 2
        if at_most(middle) > tail:
            high = middle
        else:
            low = middle + 1
    return low


def _binomial(successes: int, trials: int, share: float) -> float:
    """Probability of exactly that many."""
    if share in (0, 1):
        return float(successes == trials * share)
    ways = math.lgamma(trials + 1) - math.lgamma(successes + 1) - math.lgamma(trials - successes + 1)
    return math.exp(ways + successes * math.log(share) + (trials - successes) * math.log1p(-share))


def _at_most(successes: int, trials: int, share: float) -> float:
    """Probability of that many or fewer."""
    if successes < 0 or successes >= trials:
        return float(successes >= trials)
    return incomplete_beta(trials - successes, successes + 1, 1 - share, share)


#: below this many orders of two samples every one of them is counted
_COUNTED_ORDERS = 400


def mann_whitney(before: Sequence[float], after: Sequence[float]) -> float:
    """Probability that two samples of one distribution are as far apart in rank as these, two-sided (Mann and Whitney 1947).

    Exact for up to 20 values each without ties; else by the normal distribution, with the correction for ties.

    Raises:
        ValueError: a sample is empty.
    """
    m, n = len(before), len(after)
    if not m or not n:
        raise ValueError("no values have no ranks")
    above = math.fsum((a > b) + (a == b) / 2 for a in after for b in before)
    counts: dict[float, int] = {}
    for value in (*before, *after):
        counts[value] = counts.get(value, 0) + 1
    if m * n <= _COUNTED_ORDERS and all(count == 1 for count in counts.values()):
        ways = _orders(m, n)
        fewer = int(min(above, m * n - above))
        return min(1.0, 2 * sum(ways[: fewer + 1]) / sum(ways))
    total = m + n
    ties = sum(count**3 - count for count in counts.values()) / (total * (total - 1))
    variance = m * n / 12 * (total + 1 - ties)
    if variance <= 0:
        return 1.0
    distance = max(0.0, abs(above - m * n / 2) - 0.5) / math.sqrt(variance)
    return math.erfc(distance / math.sqrt(2))


@lru_cache(maxsize=64)
def _orders(m: int, n: int) -> tuple[int, ...]:
    """In how many orders of `m` and `n` values the second ones are above the first ones 0, 1, ... m * n times."""
    # the generating function is the Gaussian binomial coefficient: a product of (1 - q^(n+i)) / (1 - q^i)
    ways = [1] + [0] * (m * n)
    for i in range(1, m + 1):
        for place in range(m * n, n + i - 1, -1):
            ways[place] -= ways[place - n - i]
        for place in range(i, m * n + 1):
            ways[place] += ways[place - i]
    return tuple(ways)


def ratio_of_medians(
    before: Sequence[float], after: Sequence[float], level: float = _LEVEL, draws: int = 2_000
) -> tuple[float, float, float]:
    """The median of `after` as a multiple of that of `before`, and its bootstrap interval: percentiles of `draws`, always the same ones."""

    def ratio(first: Sequence[float], second: Sequence[float]) -> float:
        return median(second) / median(first)

    chance = random.Random(0)
    drawn = sorted(ratio(chance.choices(before, k=len(before)), chance.choices(after, k=len(after))) for _ in range(draws))
    tail = (1 - level) / 2
    return ratio(before, after), drawn[math.floor(tail * draws)], drawn[math.ceil((1 - tail) * draws) - 1]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The exponent of the power of x that y grows with: least squares over logarithms.

    Raises:
        ValueError: fewer than two different x, or a number that is not above 0.
    """
    logs = [(math.log(x), math.log(y)) for x, y in points if x > 0 and y > 0]
    if len(logs) < len(points) or len({x for x, _ in logs}) < 2:
        raise ValueError("an exponent needs two different sizes, and numbers above 0")
    middle_x, middle_y = (math.fsum(values) / len(logs) for values in zip(*logs))
    return math.fsum((x - middle_x) * (y - middle_y) for x, y in logs) / math.fsum((x - middle_x) ** 2 for x, _ in logs)
