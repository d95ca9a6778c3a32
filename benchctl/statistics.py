"""What a handful of repetitions says about a mean: Student's t without SciPy, whose import costs more than a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

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
