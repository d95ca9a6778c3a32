"""What a complete decode found of each clip of a data set, in one file, so that training need not find it again.

The file is named by the data set's name and fingerprint. It is a table, one clip a line, sorted by path: the path, its size and time of
change, the SHA-256 of its content, `readable`, `unreadable` or `undecided`, and what was found, or why nothing was. The line before the
table says which decoders looked, since other ones may read a file differently; the line after it counts, so that a torn file is noticed.

While clips are looked at, each line goes at once into a second file beside it, `....part`, which is read with it. So a process that is
killed loses the clips that it was decoding, and nothing else; a power cut may take the last seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from benchctl import lookup
from benchctl.atomic_file import replacing
from benchctl.data.clip_set import ClipRecord, ClipSet
from benchctl.data.decode import ClipInfo, versions
from benchctl.errors import ClipUnreadable, MissingError, UsageError
from benchctl.folders import index_folder
from benchctl.spec import DatasetRef

#: written into each file: another form of it is another version
VERSION = 1
#: characters of the fingerprint in a file's name
_NAMED_BY = 16
_KIND = "benchctl_index"
#: found of a clip: what follows its path in a line
_COLUMNS = 5
#: what is written of a ClipInfo
_FOUND = frozenset(f.name for f in fields(ClipInfo)) - {"path"}

#: `undecided`: it could not be read at all, ran out of time or changed meanwhile, which may be otherwise the next time
Word = Literal["readable", "unreadable", "undecided"]


class Stamp(NamedTuple):
    """What changes with a clip's content: size and time of change."""

    size_bytes: int
    changed_ns: int


def stamp_of(path: Path) -> Stamp:
    """The stamp of a video, or of a folder of frames: the sum of its files' sizes, and the latest of their times and its own.

    Raises:
        OSError: it cannot be looked up.
    """
    state = path.stat()
    if not stat.S_ISDIR(state.st_mode):
        return Stamp(state.st_size, state.st_mtime_ns)
    files = [file.stat() for file in _files(path)]
    return Stamp(sum(f.st_size for f in files), max([state.st_mtime_ns, *(f.st_mtime_ns for f in files)]))


def content_hash(path: Path) -> str:
    """SHA-256 of a video's bytes; of a folder of frames, that of its files' own SHA-256s (32 bytes each), in the order of their names.

    Raises:
        OSError: it cannot be read.
    """
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    whole = hashlib.sha256()
    for frame in _files(path):
        with Path(frame).open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _files(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if entry.is_file()), key=lambda entry: entry.name)


@dataclass(frozen=True)
class Entry:
    """What was found of one clip."""

    path: Path
    stamp: Stamp
    #: SHA-256 of its content; empty: it could not be read
    digest: str
    word: Word
    info: ClipInfo | None = None
    #: why there is no info, as the decoder says it
    reason: str = ""

    @property
    def line(self) -> str:
        """What is written of it behind its path."""
        found = {name: value for name, value in asdict(self.info).items() if name != "path"} if self.info else self.reason
        return "\t".join((str(self.stamp.size_bytes), str(self.stamp.changed_ns), self.digest, self.word, json.dumps(found)))


def _parsed(path: Path, line: str) -> Entry | None:
    """The entry that was written as `line`; None where it is not one, or of another version's ClipInfo."""
    try:
        size, changed, digest, word, text = line.split("\t")
        stamp, found = Stamp(int(size), int(changed)), json.loads(text)
    except ValueError:
        return None
    if word == "readable" and isinstance(found, dict) and found.keys() == _FOUND:
        return Entry(path, stamp, digest, "readable", ClipInfo(path=path, **found))
    if word in ("unreadable", "undecided") and isinstance(found, str):
        return Entry(path, stamp, digest, word, reason=found)  # type: ignore[arg-type]  # `in` does not narrow a str
    return None


def _key(path: Path) -> str:
    # as JSON: a name may hold tabs, line ends, and bytes that are not UTF-8
    return json.dumps(str(path.absolute()))


@dataclass
class Table:
    """An index in memory. Lines are taken apart when they are asked for: a data set may have 240,000 of them."""

    #: names and versions of the decoders that looked; empty: there is no index
    decoders: dict[str, str] = field(default_factory=dict)
    #: path as JSON -> the rest of its line
    lines: dict[str, str] = field(default_factory=dict)
    #: why the file that is there cannot be used; empty: it can
    torn: str = ""

    def entry(self, path: Path) -> Entry | None:
        """What was found of `path`, whether or not it changed since."""
        line = self.lines.get(_key(path))
        return None if line is None else _parsed(path, line)

    def put(self, entry: Entry) -> bytes:
        """Take `entry` in; the line to write of it."""
        key = _key(entry.path)
        self.lines[key] = entry.line
        return f"{key}\t{entry.line}\n".encode()

    def digest(self, path: Path) -> str:
        """SHA-256 of the clip's content; empty where it is not known, or the clip is unreadable and so no clip at all."""
        columns = self.lines.get(_key(path), "").split("\t", 4)
        return columns[2] if len(columns) == _COLUMNS and columns[3] != "unreadable" else ""


def file_of(clips: ClipSet) -> Path:
    """Where the index of a data set lies, if it has one."""
    return index_folder() / f"{clips.name}-{clips.fingerprint[:_NAMED_BY]}.tsv"


def part_of(file: Path) -> Path:
    """Where lines go before they are in the index."""
    return file.with_name(f"{file.name}.part")


def others(file: Path) -> list[Path]:
    """Indexes of the same data set as it was before, or with other options; the newest first."""
    prefix = file.stem[: -_NAMED_BY - 1]
    pattern = f"{prefix}-{'[0-9a-f]' * _NAMED_BY}.tsv"
    found = {path.with_suffix("") if path.suffix == ".part" else path for end in ("", ".part") for path in file.parent.glob(pattern + end)}
    there = {path: max(p.stat().st_mtime_ns for p in (path, part_of(path)) if p.exists()) for path in found if path != file}
    return sorted(there, key=lambda path: there[path], reverse=True)


def read(file: Path) -> Table:
    """The index in `file` and what was added beside it. A file that is torn is left out, and `torn` says why."""
    table = Table()
    try:
        table = _whole(file.read_text(encoding="ascii"))
    except FileNotFoundError:
        pass
    except OSError as error:
        table.torn = error.strerror or str(error)
    except ValueError:
        table.torn = "it holds bytes that are no text"
    try:
        added = part_of(file).read_text(encoding="ascii", errors="replace")
    except OSError:
        return table
    decoders = _header(added)
    if decoders != table.decoders:  # it was begun later, by other decoders
        table = Table(decoders, {}, table.torn) if decoders else table
    if decoders:
        table.lines |= _lines(added)
    return table


def _whole(text: str) -> Table:
    decoders = _header(text)
    if not decoders:
        return Table(torn="its first line is not that of an index of this version")
    lines = _lines(text)
    if not text.endswith(f"\n{_trailer(len(lines))}"):
        return Table(torn="it is cut short, or was changed by hand")
    return Table(decoders, lines)


def _header(text: str) -> dict[str, str]:
    """The decoders that the first line names; none: it is no such line."""
    try:
        found: Any = json.loads(text.partition("\n")[0])
    except ValueError:
        return {}
    return found.get("decoders", {}) if isinstance(found, dict) and found.get(_KIND) == VERSION else {}


def _lines(text: str) -> dict[str, str]:
    """Path as JSON -> the rest of its line. The last line is left out: a process that is killed leaves it without its end."""
    # not in a loop of ours, which would take twice as long
    pairs = [line.split("\t", 1) for line in text.split("\n")[:-1] if "\t" in line]
    return dict(pairs)


def header(decoders: dict[str, str]) -> bytes:
    """The first line."""
    return f"{json.dumps({_KIND: VERSION, 'decoders': decoders})}\n".encode()


def _trailer(clips: int) -> str:
    return f"{json.dumps({'clips': clips})}\n"


def write(file: Path, table: Table) -> None:
    """Put `table` in the place of the index in `file` and of what was added beside it.

    Raises:
        MissingError: it cannot be written.
    """
    with writing(file), replacing(file) as out:
        out.write(header(table.decoders))
        out.writelines(f"{key}\t{table.lines[key]}\n".encode() for key in sorted(table.lines))
        out.write(_trailer(len(table.lines)).encode())
    with writing(file):
        part_of(file).unlink(missing_ok=True)


@contextmanager
def adding(file: Path, decoders: dict[str, str]) -> Iterator[BinaryIO]:
    """The file beside `file` that takes lines, each there once it is written."""
    with writing(file), part_of(file).open("wb", buffering=0) as part:
        part.write(header(decoders))
        yield part


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Turns an OSError inside it into one line."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        said = f"the index cannot be written: {error.strerror or error}"
        raise MissingError(said, where=str(file.parent), fix="free space there, or set BENCHCTL_INDEX to another folder") from error


@dataclass(frozen=True)
class ClipIndex:
    """The index of a data set, for those who load its clips. It is read when it is first asked, by each process for itself."""

    file: Path

    def info(self, record: ClipRecord) -> ClipInfo | None:
        """What a complete decode found of a clip; None: nothing is known of it as it is now, or by these decoders.

        Raises:
            ClipUnreadable: it found that the clip cannot be read.
        """
        entry = self._table.entry(record.path)
        try:
            if entry is None or entry.word == "undecided" or entry.stamp != stamp_of(record.path):
                return None
        except OSError:
            return None
        if entry.word == "unreadable":
            raise ClipUnreadable(entry.reason, where=str(record.path))
        return entry.info

    @cached_property
    def _table(self) -> Table:
        table = read(self.file)
        return table if table.decoders == versions() else Table()

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file}  # not the table: loader processes are sent this


def index_of(clips: ClipSet) -> ClipIndex | None:
    """The index of a data set, where it has one."""
    file = file_of(clips)
    return ClipIndex(file) if file.exists() or part_of(file).exists() else None


class Leak(NamedTuple):
    """Two clips with the same content, on both sides of a split."""

    train: ClipRecord
    test: ClipRecord


def leaks(clips: ClipSet, table: Table) -> list[Leak]:
    """Clips to test on that are also trained on, by what `table` knows, each with the first of its copies."""
    first: dict[str, ClipRecord] = {}
    for record in clips.train:
        first.setdefault(table.digest(record.path), record)
    first.pop("", None)
    pairs = [Leak(first[digest], record) for record in clips.test if (digest := table.digest(record.path)) in first]
    return [pair for pair in pairs if all(_unchanged(record, table) for record in pair)]


def _unchanged(record: ClipRecord, table: Table) -> bool:
    entry = table.entry(record.path)
    try:
        return entry is not None and entry.stamp == stamp_of(record.path)
    except OSError:
        return False


def repeated(records: Sequence[ClipRecord], table: Table) -> int:
    """How many of `records` have the content of one before them."""
    digests = [digest for record in records if (digest := table.digest(record.path))]
    return len(digests) - len(set(digests))


def refuse(name: str, found: Sequence[Leak]) -> None:
    """Raise UsageError where there are leaks."""
    if not found:
        return
    more = f", and {len(found) - 1} more of the test clips" if len(found) > 1 else ""
    what = f"'{found[0].test.id}' to test on is also trained on, as '{found[0].train.id}'{more}"
    raise UsageError(what, where=name, fix="take it out of one of the splits")


def check_leakage(dataset: DatasetRef, root: Path, fingerprint: str) -> str:
    """Why the index of the data set at `root` cannot be used, in a line; empty: it can, or there is none.

    Raises:
        UsageError: it knows of a clip that is in train and in test.
    """
    if not any(index_folder().glob(f"*-{fingerprint[:_NAMED_BY]}.tsv*")):
        return ""  # its clips need not be listed
    module = lookup.load("dataset", dataset.name)
    clips: ClipSet = module.load(root, module.Options.model_validate(dataset.options))
    table = read(file_of(clips))
    refuse(clips.name, leaks(clips, table))
    return f"{file_of(clips)}: {table.torn}; 'benchctl data verify {dataset.name}' makes the index anew" if table.torn else ""
