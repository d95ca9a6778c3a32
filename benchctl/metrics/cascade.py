"""A cascade: a cheap method answers where it is confident, and a host where it is not.

Source: "It's a Matter of Time: Three Lessons on Long-Term Motion for Perception" (Davison, Hao and Sevilla-Lara), section 9 of the
supplement, Figure 13.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchctl.metrics.scores import Scores


@dataclass(frozen=True)
class Step:
    """The cascade at one threshold of confidence."""

    #: the first method answers from this confidence on; infinite: never
    threshold: float
    #: share of the clips that it answers
    coverage: float
    #: share of those that it answers rightly; None: it answers none
    answered_accuracy: float | None
    #: share of all clips that are answered rightly
    accuracy: float
    #: multiply-accumulates of a clip, averaged: the first method's for every clip, the host's for the rest
    macs: float


def cascade(first: Scores, host: Scores, first_macs: float, host_macs: float) -> tuple[Step, ...]:
    """Every threshold at which something changes, from the one that nothing passes down; clips of one confidence pass together.

    Args:
        first: of the cheap method.
        host: of the other one, about the same clips in the same order.
        first_macs: multiply-accumulates of one clip, all views.
        host_macs: the same of the host.
    """
    clips = len(first.ids)
    order = np.argsort(-first.confidence, kind="stable")
    confidence = first.confidence[order]
    right = np.concatenate([[0], np.cumsum(first.correct[order])])
    rest = host.correct.sum() - np.concatenate([[0], np.cumsum(host.correct[order])])
    # places after which the confidence is another one
    ends = [0, *(np.flatnonzero(np.diff(confidence)) + 1).tolist(), clips]
    return tuple(
        Step(
            threshold=float(confidence[end - 1]) if end else float("inf"),
            coverage=end / clips,
            answered_accuracy=float(right[end] / end) if end else None,
            accuracy=float((right[end] + rest[end]) / clips),
            macs=first_macs + (1 - end / clips) * host_macs,
        )
        for end in ends
    )


def at_coverage(steps: tuple[Step, ...], coverage: float) -> Step:
    """The first step that covers at least `coverage`."""
    return next(step for step in steps if step.coverage >= coverage - 1e-12)


def best(steps: tuple[Step, ...]) -> Step:
    """The most accurate one, and of those the one with the fewest operations."""
    return max(steps, key=lambda step: (step.accuracy, -step.macs))
