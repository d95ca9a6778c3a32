from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchctl.data.sampling import Sampling, eval_indices, train_indices

samplings = st.sampled_from(["segment", "uniform", "dense"])
lengths = st.integers(1, 2000)
counts = st.integers(1, 64)
strides = st.integers(1, 40)


@given(samplings, lengths, counts, strides, st.integers(0, 2**32))
def test_a_training_view_is_in_range_in_order_and_repeatable(
    sampling: Sampling, available: int, frames: int, stride: int, seed: int
) -> None:
    view = train_indices(sampling, available, frames, stride, np.random.default_rng(seed))
    assert view.shape == (1, frames)
    assert view.dtype == np.int64
    assert view.min() >= 0
    assert view.max() < available
    assert (np.diff(view) >= 0).all()
    assert np.array_equal(view, train_indices(sampling, available, frames, stride, np.random.default_rng(seed)))


@given(samplings, lengths, counts, strides, st.integers(1, 10))
def test_test_views_are_in_range_in_order_and_fixed(sampling: Sampling, available: int, frames: int, stride: int, clips: int) -> None:
    views = eval_indices(sampling, available, frames, stride, clips)
    assert views.shape == (clips, frames)
    assert views.dtype == np.int64
    assert views.min() >= 0
    assert views.max() < available
    assert (np.diff(views, axis=1) >= 0).all()
    assert (np.diff(views, axis=0) >= 0).all()  # later views are not earlier in time
    assert np.array_equal(views, eval_indices(sampling, available, frames, stride, clips))


@given(lengths, counts, st.integers(0, 2**32))
def test_segment_draws_one_frame_in_each_segment(available: int, frames: int, seed: int) -> None:
    edges = [segment * available / frames for segment in range(frames + 1)]
    for view in (
        train_indices("segment", available, frames, 1, np.random.default_rng(seed))[0],
        eval_indices("segment", available, frames, 1, 1)[0],
    ):
        for index, low, high in zip(view, edges, edges[1:]):
            assert int(low) <= index <= max(int(low), int(np.ceil(high)) - 1)


def test_segment_worked_examples() -> None:
    # segments 0-3, 4-7, 8-11, 12-15
    assert eval_indices("segment", 16, 4, 1, 1).tolist() == [[2, 6, 10, 14]]
    assert eval_indices("segment", 16, 4, 1, 2).tolist() == [[1, 5, 9, 13], [3, 7, 11, 15]]
    assert eval_indices("segment", 3, 6, 1, 1).tolist() == [[0, 0, 1, 1, 2, 2]]  # short: repeats evenly


def test_segment_training_reaches_every_frame_alike() -> None:
    rng = np.random.default_rng(0)
    seen = np.bincount(np.concatenate([train_indices("segment", 12, 4, 1, rng)[0] for _ in range(3000)]), minlength=12)
    assert seen.min() > 900  # 1000 expected of each
    assert seen.max() < 1100


def slowfast(available: int, frames: int, pick: object) -> list[int]:
    """The published loop: a frame between both ends of each segment."""
    length = float(available - 1) / frames
    chosen = []
    for segment in range(frames):
        start, end = int(np.round(length * segment)), int(np.round(length * (segment + 1)))
        chosen.append(pick(start, end) if callable(pick) else (start + end) // 2)
    return chosen


@given(lengths, counts)
def test_uniform_test_view_is_that_of_the_slow_loop(available: int, frames: int) -> None:
    assert eval_indices("uniform", available, frames, 1, 1)[0].tolist() == slowfast(available, frames, None)


def test_uniform_training_has_the_distribution_of_the_slow_loop() -> None:
    rng, slow = np.random.default_rng(0), random.Random(0)
    ours = np.array([train_indices("uniform", 23, 4, 1, rng)[0] for _ in range(4000)])
    theirs = np.array([slowfast(23, 4, slow.randint) for _ in range(4000)])
    assert np.array_equal(ours.min(0), theirs.min(0))
    assert np.array_equal(ours.max(0), theirs.max(0))
    assert np.abs(ours.mean(0) - theirs.mean(0)).max() < 0.15  # four standard errors


def test_dense_worked_examples() -> None:
    assert eval_indices("dense", 20, 3, 4, 1).tolist() == [[5, 9, 13]]  # span 9, room 11
    assert eval_indices("dense", 20, 3, 4, 3).tolist() == [[0, 4, 8], [5, 9, 13], [11, 15, 19]]
    assert eval_indices("dense", 6, 4, 3, 2).tolist() == [[0, 3, 5, 5], [0, 3, 5, 5]]  # short: the last frame repeats


@given(st.integers(30, 200), st.integers(0, 2**32))
def test_dense_frames_are_a_stride_apart(available: int, seed: int) -> None:
    view = train_indices("dense", available, 4, 8, np.random.default_rng(seed))[0]
    assert np.diff(view).tolist() == [8, 8, 8]


def test_dense_training_reaches_every_start() -> None:
    rng = np.random.default_rng(0)
    assert {int(train_indices("dense", 12, 3, 4, rng)[0, 0]) for _ in range(200)} == {0, 1, 2, 3}


@pytest.mark.parametrize(("available", "frames", "stride", "clips"), [(0, 1, 1, 1), (5, 0, 1, 1), (5, 1, 0, 1), (5, 1, 1, 0)])
def test_nothing_cannot_be_sampled(available: int, frames: int, stride: int, clips: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        eval_indices("segment", available, frames, stride, clips)
