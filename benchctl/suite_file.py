"""The one YAML reader: a suite file, with `--set` applied, as a `Suite` that knows where each of its values stands.

YAML 1.2 rules (`1e-3` is a number, `on` is a string, duplicate keys are errors). Every error says file:line:column, what is
wrong and what would be right.
"""

from __future__ import annotations

import difflib
import inspect
import itertools
import json
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from benchctl.errors import SuiteError, UsageError, unknown
from benchctl.spec import Suite

Location = tuple[str | int, ...]


@dataclass(frozen=True)
class LoadedSuite:
    """A valid suite and the position of every key and item in its file."""

    suite: Suite
    path: Path
    positions: dict[Location, str]

    def error(self, location: Location, what: str, fix: str | None = None) -> SuiteError:
        """The error for the value at `location`, for example `("methods", 2)`."""
        return SuiteError(f"{dotted(location)}: {what}", where=self.where(location), fix=fix)

    def where(self, location: Location) -> str:
        """`file:line:column` of `location`, or of the nearest thing around it."""
        return _nearest(self.positions, location, str(self.path))

    @property
    def canonical(self) -> str:
        """The suite after `--set`, as JSON, for the record."""
        return json.dumps(self.suite.model_dump(mode="json"), sort_keys=True)


def shipped() -> dict[str, Path]:
    """The suites that come with benchctl, by name."""
    package = Path(__file__).parent
    folder = package / "suites" if (package / "suites").is_dir() else package.parent / "suites"
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def find(name: str) -> Path:
    """The file that `name` means: a path, or the name of a shipped suite.

    Raises:
        SuiteError: there is no such file or suite.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        raise SuiteError("this is a folder", where=name, fix="name a suite file in it")
    if path.suffix in (".yaml", ".yml") or path.parent != Path():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else [], n=1)
        fix = f"did you mean '{path.parent / near[0]}'?" if near else f"shipped suites: {', '.join(shipped())}"
        raise SuiteError("no such suite file", where=name, fix=fix)
    if name not in shipped():
        raise unknown("suite", name, shipped())
    return shipped()[name]


def load(name: str, settings: Sequence[str] = ()) -> LoadedSuite:
    """Read the suite `name` (a path or a shipped suite), with `settings` of the form `KEY=VALUE` applied.

    Raises:
        SuiteError: with file:line:column.
    """
    path = find(name)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        raise SuiteError(f"not UTF-8 text (byte {problem.start})", where=str(path), fix="save it as UTF-8") from None
    except OSError as problem:
        raise SuiteError(f"cannot be read: {problem.strerror}", where=str(path)) from None
    return parse(text, path, settings)


def parse(text: str, path: Path, settings: Sequence[str] = ()) -> LoadedSuite:
    """As `load`, from text; `path` is only named in errors."""
    tree = _yaml(text, str(path))
    if tree is None:
        raise SuiteError("the file is empty", where=str(path), fix="a suite needs at least name, task, methods and sweep")
    if not isinstance(tree, CommentedMap):
        raise SuiteError("a suite is a mapping of keys to values", where=f"{path}:1:1", fix="begin with 'name: ...'")
    positions = {location: f"{path}:{line + 1}:{column + 1}" for location, line, column in _walk(tree)}
    plain = _plain(tree)
    for setting in settings:
        _apply(plain, setting, positions)
    try:
        suite = Suite.model_validate(plain)
    except ValidationError as invalid:
        raise _explain(invalid, positions, str(path)) from None
    return LoadedSuite(suite, path, positions)


def dotted(location: Location) -> str:
    """`("methods", 2, "name")` as `methods[2].name`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def schema() -> dict[str, Any]:
    """The JSON Schema of suite files, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Suite.model_json_schema(mode="validation")}


def _yaml(text: str, where: str) -> Any:
    reader = YAML(typ="rt", pure=True)
    try:
        return reader.load(StringIO(text))
    except DuplicateKeyError as problem:
        mark = problem.problem_mark
        what = str(problem.problem).partition(" with value")[0].replace('"', "'")
        raise SuiteError(what, where=f"{where}:{mark.line + 1}:{mark.column + 1}", fix="keep one of the two") from None
    except MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        position = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
        raise SuiteError(f"not valid YAML: {problem.problem or problem.context}", where=position) from None
    except (YAMLError, ValueError) as problem:
        raise SuiteError(f"not valid YAML: {problem}", where=where) from None


def _walk(node: Any, location: Location = ()) -> Iterator[tuple[Location, int, int]]:
    """(location, line, column), counted from 0, of every value below `node`; for a mapping's values, the key's position."""
    if isinstance(node, CommentedMap):
        for key, value in node.items():
            line, column = node.lc.key(key)
            yield (*location, str(key)), line, column
            yield from _walk(value, (*location, str(key)))
    elif isinstance(node, CommentedSeq):
        for index, value in enumerate(node):
            line, column = node.lc.item(index)
            yield (*location, index), line, column
            yield from _walk(value, (*location, index))


def _plain(node: Any) -> Any:
    """Plain dicts, lists and scalars: the reader's own classes carry formatting that nothing here needs."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _apply(tree: dict[str, Any], setting: str, positions: dict[Location, str]) -> None:
    key, equals, value = setting.partition("=")
    where = f"--set {setting}"
    if not equals or not key:
        raise UsageError("expected KEY=VALUE", where=where, fix="for example --set memory_cap_gib=80")
    location: Location = tuple(int(part) if part.isdigit() else part for part in key.split("."))
    target: Any = tree
    for part, following in itertools.pairwise(location):
        if isinstance(target, list) and isinstance(part, int) and part < len(target):
            target = target[part]
        elif isinstance(target, dict) and isinstance(part, str):
            target = target.setdefault(part, [] if isinstance(following, int) else {})
        else:
            raise UsageError(f"there is no '{part}' to set", where=where)
    last = location[-1]
    names_a_key = isinstance(target, dict) and isinstance(last, str)
    names_an_item = isinstance(target, list) and isinstance(last, int) and last < len(target)
    if not (names_a_key or names_an_item):
        raise UsageError(f"there is no '{key}' to set", where=where)
    target[last] = _plain(_yaml(value, where))
    for known in [known for known in positions if known[: len(location)] == location]:
        del positions[known]
    positions[location] = where


def _nearest(positions: dict[Location, str], location: Location, default: str) -> str:
    for length in range(len(location), 0, -1):
        if location[:length] in positions:
            return positions[location[:length]]
    return default


def _explain(invalid: ValidationError, positions: dict[Location, str], path: str) -> SuiteError:
    """The first problem, and how many more there are."""
    # an unknown key often explains the missing one
    problems = sorted(invalid.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden")
    first = problems[0]
    location: Location = first["loc"]
    # pydantic names the alternatives of a union in its locations; a user wrote none of them
    location = tuple(part for part in location if isinstance(part, int) or part.isidentifier())
    what, fix = _words(dict(first), location)
    if len(problems) > 1:
        what += f" (and {len(problems) - 1} more)"
    text = f"{dotted(location)}: {what}" if location else what
    return SuiteError(text, where=_nearest(positions, location, path), fix=fix)


def _words(problem: dict[str, Any], location: Location) -> tuple[str, str | None]:
    kind, given = problem["type"], problem.get("input")
    if kind == "extra_forbidden":
        known = _keys_around(location)
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


def _keys_around(location: Location) -> list[str]:
    """The keys allowed where the last part of `location` stands."""
    model: Any = Suite
    for part in location[:-1]:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first model class inside tuples, unions and Annotated."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    for inner in typing.get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
