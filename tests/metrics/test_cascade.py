"""The cascade against its definition, and scores as cells leave them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchctl.errors import BenchctlError, UsageError
from benchctl.metrics.cascade import at_coverage, best, cascade
from benchctl.metrics.scores import Scores, aligned, read


def scores(rows: list[list[float]], labels: list[int], ids: str | None = None) -> Scores:
    return Scores(tuple(ids or "abcdefghij"[: len(rows)]), np.array(labels), np.array(rows, np.float64))


def test_worked_example():
    """Four clips, all of class 0. The first method is right about a (0.9) and c (0.6), wrong about b (0.8) and d (0.6); the host is
    right about b and d."""
    first = scores([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.4, 0.6]], [0, 0, 0, 0])
    host = scores([[0, 1], [1, 0], [0, 1], [1, 0]], [0, 0, 0, 0])
    found = [(s.threshold, s.coverage, s.answered_accuracy, s.accuracy, s.macs) for s in cascade(first, host, 1.0, 100.0)]
    assert found == [
        (float("inf"), 0.0, None, 0.5, 101.0),
        (0.9, 0.25, 1.0, 0.75, 76.0),
        (0.8, 0.5, 0.5, 0.5, 51.0),
        # clips of one confidence pass together
        (0.6, 1.0, 0.5, 0.5, 1.0),
    ]


def test_it_is_the_definition():
    """For each threshold, clip by clip."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    both = [rng.dirichlet(np.ones(3), 60).round(1) + 1e-9 for _ in range(2)]
    first, host = (Scores(tuple(map(str, range(60))), labels, each) for each in both)
    steps = cascade(first, host, 2.0, 7.0)
    assert {s.threshold for s in steps[1:]} == set(first.scores.max(1).tolist())
    for step in steps:
        answered = right = answered_right = 0
        macs = 0.0
        for clip in range(60):
            macs += 2.0
            if first.scores[clip].max() >= step.threshold:
                answered += 1
                hit = first.scores[clip].argmax() == labels[clip]
                answered_right += hit
            else:
                macs += 7.0
                hit = host.scores[clip].argmax() == labels[clip]
            right += hit
        assert (step.coverage, step.accuracy) == (answered / 60, right / 60)
        assert step.answered_accuracy == (answered_right / answered if answered else None)
        assert step.macs == pytest.approx(macs / 60)


def test_the_best_step_and_steps_at_a_coverage():
    first = scores([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 0, 0])
    host = scores([[0, 1], [1, 0], [0, 1]], [0, 0, 0])
    steps = cascade(first, host, 1.0, 100.0)
    # as accurate as answering only a, and cheaper
    assert (best(steps).coverage, best(steps).accuracy) == (1, 2 / 3)
    assert [at_coverage(steps, share).coverage for share in (0, 0.3, 0.5, 1)] == [0, 1 / 3, 2 / 3, 1]


def test_cells_are_put_in_one_order():
    first = scores([[0.9, 0.1], [0.2, 0.8]], [0, 1], "ab")
    other = scores([[0.3, 0.7], [0.6, 0.4]], [1, 0], "ba")
    _, moved = aligned(first, other)
    assert moved.ids == ("a", "b")
    assert moved.scores.tolist() == [[0.6, 0.4], [0.3, 0.7]]
    with pytest.raises(UsageError, match="2 clips were judged by one of the two cells only"):
        aligned(first, scores([[1, 0], [1, 0]], [0, 1], "ac"))
    with pytest.raises(UsageError, match="the two cells tell other classes apart"):
        aligned(first, scores([[1, 0], [1, 0]], [0, 0], "ab"))


def test_torn_scores(tmp_path: Path):
    (tmp_path / "torn.npz").write_bytes(b"PK")
    for file in ("torn.npz", "gone.npz"):
        with pytest.raises(BenchctlError, match=r"no readable scores .*; run its suite again with --fresh"):
            read(tmp_path / file)
    np.savez(tmp_path / "values.npz", ids=np.array(["a"]), labels=np.zeros((1, 2)), scores=np.zeros((1, 2)))
    with pytest.raises(BenchctlError, match="scores of numbers, not of classes"):
        read(tmp_path / "values.npz")
