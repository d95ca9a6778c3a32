import threading

import pytest

from benchctl.errors import DeviceMissing
from benchctl.probes.sampler import Sampler, Series


def test_worked_example():
    values = iter([4, 7, 7, 2])
    series = Series(lambda: next(values))
    assert (series.largest, series.mean, series.share(bool)) == (None, None, None)
    for _ in range(4):
        series.sample()
    assert (series.largest, series.mean, series.share(lambda v: v > 4)) == (7, 5.0, 0.5)
    assert dict(series.times_seen) == {4: 1, 7: 2, 2: 1}


def test_a_source_that_fails_gives_a_reason_and_no_value_and_is_not_asked_again():
    readings = iter([5, 9, DeviceMissing("gone"), 7])

    def read() -> int:
        value = next(readings)
        if isinstance(value, DeviceMissing):
            raise value
        return value

    series = Series(read)
    with Sampler([series], 1e6):
        pass
    assert (series.largest, series.reason) == (9, None)
    with Sampler([series], 1e6):
        pass
    assert (series.largest, series.mean, series.reason) == (None, None, "gone")
    assert next(readings) == 7


def test_samples_at_the_start_on_a_thread_and_at_the_end():
    threads: list[threading.Thread] = []
    sampled = threading.Event()

    def read() -> int:
        threads.append(threading.current_thread())
        if len(threads) == 2:
            sampled.set()
        return 1

    with Sampler([Series(read)], 0.001):
        # the thread may have begun already
        assert threads[0] is threading.main_thread()
        assert sampled.wait(60)
    assert threads[0] is threads[-1] is threading.main_thread()
    assert {t.name for t in threads[1:-1]} == {"sampler"}


def test_the_thread_ends_with_its_block_also_where_that_fails():
    with pytest.raises(KeyError), Sampler([Series(lambda: 1)], 0.001):
        raise KeyError
    assert "sampler" not in {t.name for t in threading.enumerate()}
