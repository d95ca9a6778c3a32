import pytest

from benchctl.probes.prediction import Failure, StepTrace
from benchctl.probes.prediction.allocator import MIB
from benchctl.probes.prediction.trace import CATEGORIES, Storage


def trace(device: str = "cuda") -> StepTrace:
    """100 MiB of weights, 30 of activations freed before 40 of gradients: 140 MiB at most, 170 reserved."""
    storages = (
        Storage(100 * MIB, "parameters", 0, "build"),
        Storage(30 * MIB, "activations", 1, "forward", "aten::mm"),
        Storage(40 * MIB, "gradients", 1, "backward", "aten::mul"),
    )
    return StepTrace(device, storages, (0, 1, ~1, 2, ~2), {}, 2)


def test_worked_example():
    peak = trace().peak()
    assert (peak.allocated_bytes, peak.reserved_bytes) == (140 * MIB, 170 * MIB)
    assert (peak.step, peak.phase, peak.operator) == (1, "backward", "aten::mul")
    assert peak.by_category == {**dict.fromkeys(CATEGORIES, 0), "parameters": 100 * MIB, "gradients": 40 * MIB}
    assert peak.fits
    assert peak.failure is None


def test_a_cap_between_allocated_and_reserved_fits_by_giving_segments_back():
    peak = trace().peak(cap_bytes=150 * MIB)
    assert peak.fits
    assert (peak.allocated_bytes, peak.reserved_bytes) == (140 * MIB, 140 * MIB)


def test_under_a_cap_that_is_too_low_the_figures_are_what_it_would_take():
    peak = trace().peak(cap_bytes=135 * MIB)
    assert not peak.fits
    assert (peak.allocated_bytes, peak.reserved_bytes, peak.cap_bytes) == (140 * MIB, 170 * MIB, 135 * MIB)
    assert peak.failure == Failure(40 * MIB, 100 * MIB, 100 * MIB, 1, "backward", "aten::mul")
    assert str(peak.failure) == "aten::mul asks for 41943040 bytes in backward of step 1, with 104857600 reserved"


def test_parameters_alone_may_not_fit():
    failure = trace().peak(cap_bytes=MIB).failure
    assert failure is not None
    assert str(failure) == "a tensor asks for 104857600 bytes in building model, optimizer and batch, with 0 reserved"


def test_on_the_cpu_nothing_is_reserved():
    peak = trace("cpu").peak()
    assert (peak.allocated_bytes, peak.reserved_bytes) == (140 * MIB, None)
    assert not trace("cpu").peak(cap_bytes=140 * MIB - 1).fits
    assert trace("cpu").peak(cap_bytes=140 * MIB).fits


@pytest.mark.parametrize("cap", [None, 100 * MIB, 160 * MIB])
def test_a_replay_leaves_the_trace_as_it_was(cap: int | None):
    t = trace()
    assert t.peak(cap_bytes=cap) == t.peak(cap_bytes=cap)
