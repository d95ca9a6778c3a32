from __future__ import annotations

import threading
from itertools import count, islice

import pytest

from benchctl.data.ahead import Waiting, made_ahead


def test_items_come_in_order_and_on_another_thread() -> None:
    threads: set[int] = set()

    def make(key: int) -> int:
        threads.add(threading.get_ident())
        return key * key

    assert list(made_ahead(make, iter(range(20)), 3)) == [key * key for key in range(20)]
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    assert list(made_ahead(make, iter(()), 3)) == []


def test_the_thread_is_as_far_ahead_as_it_may_and_no_further() -> None:
    started = [threading.Event() for _ in range(10)]

    def make(key: int) -> int:
        started[key].set()
        return key

    items = made_ahead(make, iter(range(10)), 3)
    assert next(items) == 0
    assert started[3].wait(10)  # three beyond the one that was taken
    assert not any(event.is_set() for event in started[4:])
    assert next(items) == 1
    assert started[4].wait(10)
    items.close()


def test_an_error_comes_when_its_turn_comes() -> None:
    def make(key: int) -> int:
        if key == 2:
            raise ValueError("two")
        return key

    items = made_ahead(make, count(), 4)
    assert list(islice(items, 2)) == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(items)


def test_the_thread_ends_with_its_iterator() -> None:
    items = made_ahead(lambda key: key, count(), 4)
    next(items)
    (thread,) = [t for t in threading.enumerate() if t.name.startswith("load")]
    items.close()
    thread.join(10)
    assert not thread.is_alive()


def test_only_waiting_counts() -> None:
    released = threading.Event()

    def slow() -> object:
        for key in range(2):
            released.wait(0.05)
            yield key

    items = Waiting(slow())
    assert list(items) == [0, 1]
    assert items.waited_seconds >= 0.09
    waited = items.waited_seconds
    released.wait(0.05)
    assert items.waited_seconds == waited
