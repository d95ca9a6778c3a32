"""How much of a training step ranks spend with a collective under way."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchctl.engine.ranks import Ranks
from benchctl.engine.step import Batch, TrainingStep
from benchctl.record import Measurement

#: steps that are watched, after one that is not
STEPS = 3
#: how events of collectives are named: gloo's on the CPU, NCCL's kernels on a GPU
_COLLECTIVE = ("gloo:", "nccl")

Interval = tuple[int, int]


def communication(step: TrainingStep, micro_batches: list[Batch], ranks: Ranks) -> Measurement:
    """Share of `STEPS` training steps in which this rank had a collective under way, waiting for partners and what overlaps with computing
    included; the largest of all ranks. All of them must call it. The steps are real, so the weights are not the same afterwards.

    Args:
        step: what trained.
        micro_batches: of one step of this rank, on its device.
        ranks: this process among the others.
    """
    device = step.device_type
    cuda = device == "cuda"
    step.start()
    step.learn(micro_batches)
    # the profiler's own log lines would go to stderr
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities, acc_events=True) as session, torch.profiler.record_function("steps"):
        for _ in range(STEPS):
            step.learn(micro_batches)
        if cuda:
            torch.cuda.synchronize()
    events: Iterable[Any] = session.profiler.kineto_results.events() if session.profiler and session.profiler.kineto_results else ()
    spans = [(event.name(), event.start_ns(), event.start_ns() + event.duration_ns()) for event in events]
    whole = next(((begin, end) for name, begin, end in spans if name == "steps"), None)
    busy = [(begin, end) for name, begin, end in spans if name.startswith(_COLLECTIVE)]
    own = covered(busy, whole) if whole is not None else float("nan")
    share = max(row[0] for row in ranks.exchange(own))
    found: dict[str, Any] = {"metric": "communication_fraction", "device": device}
    if share != share:
        return Measurement(value=None, reason="torch's profiler recorded nothing", **found)
    return Measurement(value=share, **found)


def covered(parts: Iterable[Interval], whole: Interval) -> float:
    """Share of `whole` in which at least one of `parts` was under way."""
    begin, end = whole
    taken, reached = 0, begin
    for first, last in sorted(parts):
        first, last = max(first, reached), min(last, end)
        if last > first:
            taken += last - first
            reached = last
    return taken / (end - begin) if end > begin else 0.0
