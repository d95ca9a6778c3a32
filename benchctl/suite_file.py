"""Suite files: YAML, with `--set` applied, as a `Suite` that knows where each of its values stands.

Every error says file:line:column, what is wrong and what would be right.
"""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchctl import yaml_file
from benchctl.errors import SuiteError, UsageError, unknown
from benchctl.spec import Suite
from benchctl.yaml_file import FileKind, Location, YamlFile

_SUITE = FileKind(SuiteError, "a suite", needs="name, task, methods and sweep", begin="name: ...")


@dataclass(frozen=True)
class LoadedSuite:
    """A valid suite and the file it came from."""

    suite: Suite
    file: YamlFile

    @property
    def path(self) -> Path:
        """The file."""
        return self.file.path

    def error(self, location: Location, what: str, fix: str | None = None) -> UsageError:
        """The error for the value at `location`, for example `("methods", 2)`."""
        return self.file.error(location, what, fix)

    def where(self, location: Location) -> str:
        """`file:line:column` of `location`, or of the nearest thing around it."""
        return self.file.where(location)

    @property
    def canonical(self) -> str:
        """The suite after `--set`, as JSON, for the record."""
        return json.dumps(self.suite.model_dump(mode="json"), sort_keys=True)


def shipped() -> dict[str, Path]:
    """The suites that come with benchctl, by name."""
    return yaml_file.shipped("suites")


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
    return _suite(yaml_file.read(find(name), _SUITE), settings)


def parse(text: str, path: Path, settings: Sequence[str] = ()) -> LoadedSuite:
    """As `load`, from text; `path` is only named in errors."""
    return _suite(yaml_file.parse(text, path, _SUITE), settings)


def schema() -> dict[str, Any]:
    """The JSON Schema of suite files, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Suite.model_json_schema(mode="validation")}


def _suite(file: YamlFile, settings: Sequence[str]) -> LoadedSuite:
    for setting in settings:
        _apply(file, setting)
    return LoadedSuite(file.validated(Suite), file)


def _apply(file: YamlFile, setting: str) -> None:
    key, equals, value = setting.partition("=")
    where = f"--set {setting}"
    if not equals or not key:
        raise UsageError("expected KEY=VALUE", where=where, fix="for example --set memory_cap_gib=80")
    location: Location = tuple(int(part) if part.isdigit() else part for part in key.split("."))
    target: Any = file.values
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
    target[last] = yaml_file.value(value, where, SuiteError)
    for known in [known for known in file.positions if known[: len(location)] == location]:
        del file.positions[known]
    file.positions[location] = where
