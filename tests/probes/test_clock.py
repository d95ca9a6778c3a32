import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchctl.errors import DeviceMissing
from benchctl.probes.clock import Timing, percentile, time_calls, time_cuda_calls


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=50), st.floats(0, 100))
def test_percentile_is_numpys(samples: list[float], percent: float):
    assert percentile(samples, percent) == pytest.approx(float(np.percentile(samples, percent)), rel=1e-9, abs=1e-12)


def test_percentiles_of_a_timing():
    timing = Timing(tuple(float(i) for i in range(101)))
    assert (timing.p50, timing.p90, timing.p99) == (50.0, 90.0, 99.0)


@pytest.mark.parametrize(("samples", "percent"), [((), 50), ((1.0,), -1), ((1.0,), 101)])
def test_undefined_percentiles(samples: tuple[float, ...], percent: float):
    with pytest.raises(ValueError, match="not defined"):
        percentile(samples, percent)


def test_calls_are_fenced_and_warm_up_is_not_counted():
    log: list[str] = []
    timing = time_calls(lambda: log.append("call"), warmup=2, repeats=3, synchronize=lambda: log.append("fence"))
    assert log == ["call", "call"] + ["fence", "call", "fence"] * 3
    assert len(timing.samples_seconds) == 3


def test_what_the_fence_waits_for_is_part_of_the_time():
    timing = time_calls(lambda: None, warmup=0, repeats=2, synchronize=lambda: time.sleep(0.01))
    assert 0.01 <= min(timing.samples_seconds) < 0.02 + 0.01 * 10


@pytest.mark.parametrize(("warmup", "repeats"), [(-1, 1), (0, 0)])
def test_nothing_to_time(warmup: int, repeats: int):
    with pytest.raises(ValueError, match="repeats"):
        time_calls(lambda: None, warmup=warmup, repeats=repeats)


def test_device_time_needs_a_device(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(DeviceMissing):
        time_cuda_calls(lambda: None, warmup=0, repeats=1)


def test_device_time_is_what_the_events_say(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = now[0]

        def elapsed_time(self, end: "Event") -> float:
            return end.at - self.at

    def work() -> None:
        now[0] += 250.0  # milliseconds

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.synchronize", lambda: None)
    monkeypatch.setattr("torch.cuda.Event", Event)
    assert time_cuda_calls(work, warmup=1, repeats=2).samples_seconds == (0.25, 0.25)
