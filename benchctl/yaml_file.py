"""The one YAML reader: text to plain values that know where they stand, so that every error says file:line:column.

YAML 1.2 rules: `1e-3` is a number, `on` is a string, and a key that is given twice is an error.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from benchctl.errors import UsageError

Location = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class FileKind:
    """A kind of file, as its errors name it."""

    #: class of its errors
    error: type[UsageError]
    #: `a suite`
    name: str
    #: its keys that must be there, in words
    needs: str
    #: its first line
    begin: str


@dataclass(frozen=True)
class YamlFile:
    """A mapping read from a file, and the position of every key and item in it."""

    values: dict[str, Any]
    path: Path
    #: location -> `file:line:column`
    positions: dict[Location, str]
    kind: FileKind

    def where(self, location: Location) -> str:
        """`file:line:column` of `location`, or of the nearest thing around it."""
        for length in range(len(location), 0, -1):
            if location[:length] in self.positions:
                return self.positions[location[:length]]
        return str(self.path)

    def error(self, location: Location, what: str, fix: str | None = None) -> UsageError:
        """The error for the value at `location`, for example `("methods", 2)`."""
        text = f"{dotted(location)}: {what}" if location else what
        return self.kind.error(text, where=self.where(location), fix=fix)

    def validated(self, model: type[Model]) -> Model:
        """The content as `model`.

        Raises:
            UsageError: of this file's kind; the first problem, and how many more there are.
        """
        try:
            return model.model_validate(self.values)
        except ValidationError as invalid:
            raise self._explained(invalid, model) from None

    def _explained(self, invalid: ValidationError, model: type[BaseModel]) -> UsageError:
        found = invalid.errors(include_url=False)
        # a list whose items are wrong is also reported as too short
        problems = [p for p in found if p["type"] != "too_short" or not any(_inside(q["loc"], p["loc"]) for q in found)]
        # an unknown key often explains the missing one
        problems.sort(key=lambda problem: problem["type"] != "extra_forbidden")
        first = problems[0]
        location: Location = first["loc"]
        # pydantic names the alternatives of a union in its locations; a user wrote none of them
        location = tuple(part for part in location if isinstance(part, int) or part.isidentifier())
        what, fix = _words(dict(first), location, model)
        if len(problems) > 1:
            what += f" (and {len(problems) - 1} more)"
        return self.error(location, what, fix)


def read(path: Path, kind: FileKind) -> YamlFile:
    """The mapping in the file `path`.

    Raises:
        UsageError: of `kind`, with file:line:column.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        raise kind.error(f"not UTF-8 text (byte {problem.start})", where=str(path), fix="save it as UTF-8") from None
    except OSError as problem:
        raise kind.error(f"cannot be read: {problem.strerror}", where=str(path)) from None
    return parse(text, path, kind)


def parse(text: str, path: Path, kind: FileKind) -> YamlFile:
    """As `read`, from text; `path` is only named in errors."""
    tree = _tree(text, str(path), kind.error)
    if tree is None:
        raise kind.error("the file is empty", where=str(path), fix=f"{kind.name} needs at least {kind.needs}")
    if not isinstance(tree, CommentedMap):
        raise kind.error(f"{kind.name} is a mapping of keys to values", where=f"{path}:1:1", fix=f"begin with '{kind.begin}'")
    positions = {location: f"{path}:{line + 1}:{column + 1}" for location, line, column in _walk(tree)}
    return YamlFile(_plain(tree), path, positions, kind)


def value(text: str, where: str, error: type[UsageError]) -> Any:
    """One YAML value, for example of `--set`; `where` is named in errors, which are of the class `error`."""
    return _plain(_tree(text, where, error))


def shipped(folder: str) -> dict[str, Path]:
    """The YAML files that come with benchctl in `folder` (`suites`), by name: from the installed package, else from the repository."""
    package = Path(__file__).parent
    found = package / folder if (package / folder).is_dir() else package.parent / folder
    return {file.stem: file for file in sorted(found.glob("*.yaml"))}


def dotted(location: Location) -> str:
    """`("methods", 2, "name")` as `methods[2].name`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def flow(value: Any) -> str:
    """`value`, plain data, on one line of YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(key)}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and not _OTHER.match(value) and value.lower() not in _RESERVED:
        return value
    # JSON is YAML, but for characters that cannot be seen
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in json.dumps(value, ensure_ascii=False))


#: words that mean themselves without quotation marks, wherever they stand
_PLAIN = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9_./+()%<>=;*-]*(?: [A-Za-z0-9_./+()%<>=;*-]+)*")
#: what would be read as a number or a date
_OTHER = re.compile(r"[0-9._+-]*(?:[eE][+-]?[0-9_]*)?$|0[xo]|[0-9]{4}-[0-9]")
_RESERVED = frozenset({"null", "true", "false"})


def _tree(text: str, where: str, error: type[UsageError]) -> Any:
    reader = YAML(typ="rt", pure=True)
    try:
        return reader.load(StringIO(text))
    except DuplicateKeyError as problem:
        mark = problem.problem_mark
        what = str(problem.problem).partition(" with value")[0].replace('"', "'")
        raise error(what, where=f"{where}:{mark.line + 1}:{mark.column + 1}", fix="keep one of the two") from None
    except MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        position = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
        raise error(f"not valid YAML: {problem.problem or problem.context}", where=position) from None
    except (YAMLError, ValueError) as problem:
        raise error(f"not valid YAML: {problem}", where=where) from None


def _walk(node: Any, location: Location = ()) -> Iterator[tuple[Location, int, int]]:
    """(location, line, column), counted from 0, of every value below `node`; for a mapping's values, the key's position."""
    if isinstance(node, CommentedMap):
        for key, inner in node.items():
            line, column = node.lc.key(key)
            yield (*location, str(key)), line, column
            yield from _walk(inner, (*location, str(key)))
    elif isinstance(node, CommentedSeq):
        for index, inner in enumerate(node):
            line, column = node.lc.item(index)
            yield (*location, index), line, column
            yield from _walk(inner, (*location, index))


def _plain(node: Any) -> Any:
    """Plain dicts, lists and scalars: the reader's own classes carry formatting that nothing here needs."""
    if isinstance(node, dict):
        return {str(key): _plain(inner) for key, inner in node.items()}
    if isinstance(node, list):
        return [_plain(inner) for inner in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _inside(inner: Location, outer: Location) -> bool:
    return len(inner) > len(outer) and inner[: len(outer)] == outer


def _words(problem: dict[str, Any], location: Location, model: type[BaseModel]) -> tuple[str, str | None]:
    kind, given = problem["type"], problem.get("input")
    if kind == "extra_forbidden":
        known = _keys_around(location, model)
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.6)
        return "unknown key", f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
    if kind == "missing":
        return "is missing", None
    if kind == "literal_error":
        expected = problem["ctx"]["expected"]
        near = difflib.get_close_matches(str(given), expected.replace("'", "").replace(" or ", ", ").split(", "), n=1, cutoff=0.5)
        return f"{given!r} is not one of {expected}", f"did you mean '{near[0]}'?" if near else None
    if kind == "value_error":
        return str(problem["ctx"]["error"]), None
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return (message, None) if isinstance(given, dict | list) else (f"{message}, not {given!r}", None)


def _keys_around(location: Location, model: type[BaseModel]) -> list[str]:
    """The keys allowed where the last part of `location` stands."""
    around: Any = model
    for part in location[:-1]:
        if isinstance(part, str) and part in around.model_fields:
            around = _model_in(around.model_fields[part].annotation) or around
    return list(around.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first model class inside tuples, unions and Annotated."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    for inner in typing.get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
