"""Batches that are under way while the one before them is used."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")
K = TypeVar("K")


class Waiting(Generic[T]):
    """An iterator that notes how long its user waited for it."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        #: seconds spent in `next`, in all
        self.waited_seconds = 0.0

    def __iter__(self) -> Waiting[T]:
        return self

    def __next__(self) -> T:
        began = time.perf_counter()
        try:
            return next(self._items)
        finally:
            self.waited_seconds += time.perf_counter() - began


def made_ahead(make: Callable[[K], T], keys: Iterator[K], ahead: int) -> Generator[T, None, None]:
    """`make` of each of `keys`, in order, on one other thread, which is up to `ahead` items further than what was taken.

    `keys` is read here, and an error is raised when its turn comes, so what is seen is the same as without the thread. Decoders and torch
    do their work without Python's lock, so the thread works while this one computes.
    """
    under_way: deque[Future[T]] = deque()
    executor = ThreadPoolExecutor(1, thread_name_prefix="load", initializer=_one_thread)
    try:
        for key in islice(keys, ahead):
            under_way.append(executor.submit(make, key))
        while under_way:
            item = under_way.popleft().result()
            for key in islice(keys, 1):
                under_way.append(executor.submit(make, key))
            yield item
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _one_thread() -> None:
    """Holds for the calling thread alone: the cores are the model's."""
    import torch

    torch.set_num_threads(1)
