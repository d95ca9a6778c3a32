"""Annotation files of public data sets: what their readers share."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from benchctl.data import clip_set
from benchctl.data.clip_set import Row
from benchctl.errors import UnknownName, UsageError


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a text file that are not empty, stripped, each with its `file:line`.

    Raises:
        DataMissing, UsageError: as `clip_set.read_text`.
    """
    for number, line in enumerate(clip_set.read_text(path).splitlines(), start=1):
        if line.strip():
            yield f"{path}:{number}", line.strip()


def read_class_names(path: Path) -> dict[str, str]:
    """A file with the name of one class on each line: name to `file:line`, in the file's order.

    Raises:
        DataMissing, UsageError: as `clip_set.read_text`.
        UsageError: the file is empty, or a name is there twice.
    """
    names: dict[str, str] = {}
    for where, name in read_lines(path):
        if name in names:
            raise UsageError(f"class '{name}' is listed twice", where=where, fix=f"it is also at {names[name]}; remove one")
        names[name] = where
    if not names:
        raise UsageError("no class is listed", where=str(path), fix="write one on each line")
    return names


def read_json(path: Path) -> object:
    """What a JSON file holds.

    Raises:
        DataMissing, UsageError: as `clip_set.read_text`.
        UsageError: it is not JSON.
    """
    try:
        return json.loads(clip_set.read_text(path))
    except json.JSONDecodeError as error:
        raise UsageError(f"torn JSON: {error.msg}", where=f"{path}:{error.lineno}:{error.colno}", fix="fetch the file again") from None


def read_entries(path: Path, keys: Mapping[str, type]) -> Iterator[tuple[str, dict[str, object]]]:
    """A JSON list of objects, each with the place where it stands; every one has `keys`, of those types.

    Raises:
        DataMissing, UsageError: as `read_json`.
        UsageError: it is no list, or an entry lacks one of `keys`, or has something else there.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise UsageError("not a list of clips", where=str(path), fix="name the data set's own file")
    for number, entry in enumerate(content, start=1):
        where = f"{path}: entry {number}"
        for key, kind in keys.items():
            if not isinstance(entry, dict) or type(entry.get(key)) is not kind:
                raise UsageError(f"no '{key}' that is {_WORDS[kind]}", where=where, fix="fetch the file again")
        yield where, entry


_WORDS = {str: "a text", int: "an integer"}


def integer(text: str, what: str, where: str) -> int:
    """`text` as an integer from 0.

    Raises:
        UsageError: it is none.
    """
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(f"{what} '{text}' is not an integer from 0", where=where, fix="repair this line")
    return int(text)


def class_index(name: str, classes: Mapping[str, int], *, where: str, source: str) -> int:
    """The index of the class `name` among `classes`, which `source` lists.

    Raises:
        UnknownName: there is no such class; with the nearest names.
    """
    if name in classes:
        return classes[name]
    near = difflib.get_close_matches(name, classes, n=3, cutoff=0.6)
    fix = f"did you mean {' or '.join(repr(n) for n in near)}?" if near else f"the {len(classes)} classes are those of {source}"
    raise UnknownName(f"unknown class '{name}'", where=where, fix=fix)


def in_one_split(rows: Iterable[Row]) -> Iterator[Row]:
    """`rows` as they come, for data sets whose splits lie in different folders: no file name may be in both.

    Raises:
        UsageError: one is, with both places.
    """
    seen: dict[str, Row] = {}
    for row in rows:
        name = row.file.rpartition("/")[2]
        other = seen.setdefault(name, row)
        if other.split != row.split:
            raise UsageError(
                f"'{name}' is listed twice, to train and to test on", where=row.where, fix=f"it is also at {other.where}; remove one"
            )
        yield row
