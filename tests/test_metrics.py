import torch
from hypothesis import given
from hypothesis import strategies as st

from benchctl.metrics import top_k


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
