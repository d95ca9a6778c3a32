"""Reads sources at regular intervals on a thread of its own, while something else runs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from benchctl.errors import DeviceMissing

#: 10 Hz
INTERVAL_SECONDS = 0.1


class Series:
    """What one source said, as how often it said each value: a run of days takes no more memory than one of minutes.

    A source that fails once is not asked again, and its earlier values are not passed off as those of the whole.
    """

    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read
        self.times_seen: Counter[int] = Counter()
        #: why there are no values
        self.reason: str | None = None

    def sample(self) -> None:
        """Ask the source once more."""
        if self.reason is not None:
            return
        try:
            value = self._read()
        except (DeviceMissing, OSError) as error:
            self.reason = str(error)
            self.times_seen.clear()
        else:
            self.times_seen[value] += 1

    @property
    def largest(self) -> int | None:
        """None where the source failed, or was never asked."""
        return max(self.times_seen, default=None)

    @property
    def mean(self) -> float | None:
        """None where the source failed, or was never asked."""
        return self._mean_of(lambda value: value)

    def share(self, holds: Callable[[int], bool]) -> float | None:
        """Fraction of the samples for which `holds` is true; None where the source failed, or was never asked."""
        return self._mean_of(holds)

    def _mean_of(self, number: Callable[[int], int]) -> float | None:
        samples = self.times_seen.total()
        return sum(number(value) * times for value, times in self.times_seen.items()) / samples if samples else None


class Sampler:
    """Samples each of `series` at regular intervals while its block runs, and once at the start and at the end."""

    def __init__(self, series: Iterable[Series], interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._series = tuple(series)
        self._interval = interval_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Self:
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self._sample()

    def _sample(self) -> None:
        for each in self._series:
            each.sample()
