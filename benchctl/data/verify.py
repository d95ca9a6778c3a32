"""Decode every clip of a data set completely, once, and keep what was found in its index (`benchctl.data.index`)."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchctl.data import index
from benchctl.data.clip_set import ClipRecord, ClipSet
from benchctl.data.content_files import Ended
from benchctl.data.decode import TIME_LIMIT_SECONDS, probe, versions
from benchctl.data.index import Entry, Leak, Stamp, Table, content_hash, stamp_of
from benchctl.data.time_limit import Deadline, within
from benchctl.errors import BenchctlError, ClipUnreadable

#: clips that each process has waiting for it, so that none is idle
_WAITING = 2
#: classes that are named as those with fewest or most clips, at most
_NAMED_CLASSES = 3


@dataclass(frozen=True)
class Balance:
    """Readable clips of a class, over the classes."""

    least: int
    median: float
    most: int
    #: some classes with fewest and most clips
    fewest_in: tuple[str, ...]
    most_in: tuple[str, ...]

    @staticmethod
    def of(counts: dict[str, int]) -> Balance:
        """The balance of {class: clips}, which names every class."""
        least, most = min(counts.values()), max(counts.values())
        named = [tuple(name for name, count in counts.items() if count == extreme)[:_NAMED_CLASSES] for extreme in (least, most)]
        return Balance(least, float(median(counts.values())), most, *named)


@dataclass(frozen=True)
class SplitSummary:
    """The clips to train on, or those to test on."""

    clips: int
    readable: int
    duration_seconds: float
    size_bytes: int
    #: readable clips whose content is that of one before them
    repeated: int
    #: None: clips have numbers, not classes
    balance: Balance | None


@dataclass(frozen=True)
class Summary:
    """What was found of a data set."""

    train: SplitSummary
    test: SplitSummary
    #: clip -> why it cannot be read
    unreadable: dict[str, str]
    #: clips that each decoder reads
    decoders: dict[str, int]
    #: clips to test on that are also trained on
    leaks: list[Leak]


@dataclass
class _Seen:
    """What was found of one split so far."""

    per_class: Counter[int] = field(default_factory=Counter)
    duration_seconds: float = 0.0
    size_bytes: int = 0


class Verification:
    """The index of a data set, brought up to date."""

    def __init__(self, clips: ClipSet) -> None:
        self._clips = clips
        self.file = index.file_of(clips)
        self.decoders = versions()
        self._table = index.read(self.file)
        #: the index that is there is torn, and why
        self.torn = self._table.torn
        #: the index that is there was made by other decoders: it says nothing of these
        self.outdated = bool(self._table.decoders) and self._table.decoders != self.decoders
        if self.torn or self.outdated:
            self._table = Table()
        self._table.decoders = self.decoders
        #: clips that were decoded, and that are in the index from before
        self.looked_at = self.known = 0
        self._seen = {"train": _Seen(), "test": _Seen()}
        self._unreadable: dict[str, str] = {}
        self._used: Counter[str] = Counter()

    def run(self, processes: int, *, time_limit_seconds: float = TIME_LIMIT_SECONDS) -> Iterator[Ended]:
        """Decode every clip that is new or changed, and say of each clip how it ended. Stopped anywhere, it goes on where it was.

        Raises:
            MissingError: the index cannot be written.
            BenchctlError: no process can be started.
        """
        todo: list[ClipRecord] = []
        before = len(self._table.lines)
        for clip, entry in self._looked_up():
            if entry is None:
                todo.append(clip)
                continue
            self.known += 1
            yield self._ended(clip, entry, known=True)
        if not todo and before == len(self._table.lines) and self.file.is_file() and not index.part_of(self.file).exists():
            return
        index.write(self.file, self._table)
        if not todo:
            return
        with index.adding(self.file, self.decoders) as part:
            for clip, entry in look_at(todo, processes, time_limit_seconds):
                with index.writing(self.file):
                    part.write(self._table.put(entry))
                self.looked_at += 1
                yield self._ended(clip, entry, known=False)
        index.write(self.file, self._table)

    def _looked_up(self) -> Iterator[tuple[ClipRecord, Entry | None]]:
        """Each clip with what is known of it as it is now, by this index or by one of the same data set as it was before."""
        new: list[ClipRecord] = []
        for clip in (*self._clips.train, *self._clips.test):
            entry = _known(clip, self._table)
            if entry is None:
                new.append(clip)
            else:
                yield clip, entry
        for file in index.others(self.file):
            if not new:
                return
            table = index.read(file)
            if table.decoders != self.decoders:
                continue
            still: list[ClipRecord] = []
            for clip in new:
                entry = _known(clip, table)
                if entry is None:
                    still.append(clip)
                else:
                    self._table.put(entry)
                    yield clip, entry
            new = still
        yield from ((clip, None) for clip in new)

    def _ended(self, clip: ClipRecord, entry: Entry, *, known: bool) -> Ended:
        seen = self._seen[clip.split]
        seen.size_bytes += entry.stamp.size_bytes
        if entry.info is None:
            self._unreadable[clip.id] = entry.reason
            return Ended(clip, "unreadable", reason=entry.reason)
        seen.per_class[clip.label] += 1
        seen.duration_seconds += entry.info.duration_seconds
        self._used[entry.info.decoder] += 1
        return Ended(clip, "there" if known else "done", entry.stamp.size_bytes)

    def summary(self) -> Summary:
        """What the index holds, after `run`."""
        listed = (*self._clips.train, *self._clips.test)
        return Summary(
            train=self._split(self._clips.train, self._seen["train"]),
            test=self._split(self._clips.test, self._seen["test"]),
            unreadable={record.id: self._unreadable[record.id] for record in listed if record.id in self._unreadable},
            decoders=dict(self._used.most_common()),
            leaks=index.leaks(self._clips, self._table),
        )

    def _split(self, records: Sequence[ClipRecord], seen: _Seen) -> SplitSummary:
        classes = {} if self._clips.targets else {name: seen.per_class[label] for label, name in enumerate(self._clips.classes)}
        return SplitSummary(
            clips=len(records),
            readable=seen.per_class.total(),
            duration_seconds=seen.duration_seconds,
            size_bytes=seen.size_bytes,
            repeated=index.repeated(records, self._table),
            balance=Balance.of(classes) if classes and records else None,
        )


def _known(clip: ClipRecord, table: Table) -> Entry | None:
    """What `table` holds of a clip as it is now."""
    entry = table.entry(clip.path)
    if entry is None or entry.word == "undecided":
        return None
    try:
        return entry if entry.stamp == stamp_of(clip.path) else None
    except OSError:
        return None


def look(path: Path, time_limit_seconds: float) -> Entry:
    """Decode all of one clip; in a process of its own."""
    stamp, digest = Stamp(0, 0), ""
    try:
        stamp = stamp_of(path)
        digest = within(time_limit_seconds, path, lambda _: content_hash(path))
        info = probe(path, time_limit_seconds=time_limit_seconds)
        if stamp_of(path) != stamp:
            return Entry(path, stamp, "", "undecided", reason="it changed while it was decoded")
        return Entry(path, stamp, digest, "readable", info)
    except ClipUnreadable as error:
        late = error.what == Deadline(path, time_limit_seconds, 0).error().what
        return Entry(path, stamp, digest, "undecided" if late else "unreadable", reason=error.what)
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "it does not fit into memory"
        return Entry(path, stamp, digest, "undecided", reason=reason)


def look_at(clips: Sequence[ClipRecord], processes: int, time_limit_seconds: float) -> Iterator[tuple[ClipRecord, Entry]]:
    """What is found of each of `clips`, as they end. A clip whose decoder takes its process down with it is unreadable.

    Raises:
        BenchctlError: no process can be started.
    """
    todo, running = deque(clips), dict[Future[Entry], ClipRecord]()
    while todo:
        pool = _pool(min(processes, len(todo)))
        try:
            while todo or running:
                while todo and len(running) < _WAITING * processes:
                    running[pool.submit(look, todo[0].path, time_limit_seconds)] = todo[0]
                    todo.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    entry = future.result()
                    yield running.pop(future), entry
        except BrokenProcessPool:
            pass  # one of those that were under way took its process along: which one?
        finally:
            pool.shutdown(cancel_futures=True)
        for clip in running.values():
            yield clip, _alone(clip, time_limit_seconds)
        running.clear()


def _alone(clip: ClipRecord, time_limit_seconds: float) -> Entry:
    """What is found of one clip, in a process that only it can take down."""
    with _pool(1) as pool:
        try:
            pool.submit(os.getpid).result()
        except BrokenProcessPool:
            raise BenchctlError("processes that decode end as soon as they begin", fix="free memory, or lower --processes") from None
        try:
            return pool.submit(look, clip.path, time_limit_seconds).result()
        except BrokenProcessPool:
            try:
                stamp = stamp_of(clip.path)
            except OSError:
                stamp = Stamp(0, 0)
            return Entry(clip.path, stamp, "", "unreadable", reason="the process that decoded it died")


def _pool(processes: int) -> ProcessPoolExecutor:
    # a forked child would inherit the locks of decoders' threads in whatever state they were
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"), initializer=_begin)


def _begin() -> None:
    """Leave interrupts to the parent, and end with it however it ends: a killed one closes nothing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="end with parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
