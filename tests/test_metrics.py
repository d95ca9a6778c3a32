import statistics

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from benchctl.metrics import pearson, rmse, top_k


def by_hand(scores: list[list[float]], labels: list[int], k: int) -> float:
    right = 0
    for row, label in zip(scores, labels, strict=True):
        order = sorted(range(len(row)), key=lambda c: (-row[c], c))
        right += label in order[:k]
    return right / len(labels)


@given(st.integers(1, 8), st.integers(2, 9), st.integers(1, 9), st.randoms(use_true_random=False))
def test_against_the_definition(clips: int, classes: int, k: int, random):
    # few different values, so that ties are common
    scores = [[float(random.randint(0, 3)) for _ in range(classes)] for _ in range(clips)]
    labels = [random.randrange(classes) for _ in range(clips)]
    ours = top_k.accuracy(torch.tensor(scores), torch.tensor(labels), k)
    assert abs(ours - by_hand(scores, labels, k)) < 1e-12


def test_a_constant_output_is_not_always_right():
    labels = torch.arange(10)
    assert top_k.accuracy(torch.zeros(10, 10), labels, 1) == 0.1
    assert top_k.accuracy(torch.zeros(10, 10), labels, 5) == 0.5


NUMBERS = st.lists(st.tuples(st.integers(-1000, 1000), st.integers(-1000, 1000)), min_size=2, max_size=12)


@given(NUMBERS)
def test_correlation_against_the_definition(pairs: list[tuple[int, int]]):
    x, y = zip(*pairs)
    assume(len(set(x)) > 1 and len(set(y)) > 1)
    ours = pearson.correlation(np.array(x, np.float64), np.array(y, np.float64))
    assert ours == pytest.approx(statistics.correlation(x, y), abs=1e-12)


def test_correlation_knows_neither_slope_nor_height():
    x, y = np.array([1.0, 2.0, 4.0, 3.0]), np.array([2.0, 1.0, 5.0, 4.0])
    # by hand: centred, (-1.5, -0.5, 1.5, 0.5) and (-1, -2, 2, 1) give 6 over the root of 5 x 10
    assert pearson.correlation(x, y) == pytest.approx(6 / 50**0.5)
    assert pearson.correlation(1e-200 * x - 1e-199, 1e200 * y) == pytest.approx(6 / 50**0.5)
    assert pearson.correlation(-x, y) == pytest.approx(-6 / 50**0.5)
    assert pearson.correlation(x, 3 * x + 1) == pytest.approx(1)


def test_a_constant_has_no_correlation():
    x, same = np.array([1.0, 2.0, 4.0]), np.full(3, 0.1)
    assert pearson.correlation(same, x) is None
    assert pearson.correlation(x, same) is None
    assert pearson.correlation(x[:1], x[:1]) is None


@given(NUMBERS)
def test_error_against_the_definition(pairs: list[tuple[int, int]]):
    by_hand = (sum((x - y) ** 2 for x, y in pairs) / len(pairs)) ** 0.5
    x, y = (np.array(each, np.float64) for each in zip(*pairs))
    assert rmse.error(x, y) == pytest.approx(by_hand)


@pytest.mark.parametrize("metric", [pearson.correlation, rmse.error])
def test_nothing_or_other_clips_are_refused(metric):
    for x, y in [(np.zeros(0), np.zeros(0)), (np.zeros(3), np.zeros(2)), (np.zeros((2, 2)), np.zeros((2, 2)))]:
        with pytest.raises(ValueError, match="and values"):
            metric(x, y)
