"""Names to modules. Adding a file is registering it; there is no list to edit.

A file announces itself with one literal at its top level, which is read from its source without importing it, so that listing
costs no torch:

    benchctl/methods/foo.py   PRESETS = {"foo-b": {...}, "foo-tiny": {...}}   preset -> changed fields of its Config
    benchctl/data/foo.py      DATASET = "one line"                            the data set is called foo
    benchctl/report/foo.py    TABLE = "one line" or FIGURE = "one line"       the table (figure) is called foo, with - for _

Third parties announce a module of the same form through the entry-point groups `benchctl.methods`, `benchctl.data` and
`benchctl.report`.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from benchctl.errors import BenchctlError, UsageError, unknown

Kind = Literal["method", "dataset", "table", "figure"]

_ROOMS: dict[Kind, tuple[str, str]] = {
    "method": ("methods", "PRESETS"),
    "dataset": ("data", "DATASET"),
    "table": ("report", "TABLE"),
    "figure": ("report", "FIGURE"),
}
_PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Entry:
    """One registered name."""

    name: str
    module: str
    file: Path
    summary: str
    #: the literal that announced it; for a method preset, its changed fields
    value: Any


@cache
def entries(kind: Kind) -> dict[str, Entry]:
    """Everything registered of one kind, by name, sorted. Imports none of it."""
    room, constant = _ROOMS[kind]
    found: dict[str, Entry] = {}
    for module, file in _modules(room):
        announced, docline = _announcement(file, constant)
        if announced is None:
            continue
        if kind == "method":
            new = [Entry(name, module, file, docline, fields) for name, fields in announced.items()]
        else:
            name = file.stem if kind == "dataset" else file.stem.replace("_", "-")
            new = [Entry(name, module, file, announced, announced)]
        for entry in new:
            if entry.name in found:
                raise UsageError(
                    f"{kind} '{entry.name}' is announced by {found[entry.name].module} and by {entry.module}", fix="rename one"
                )
            found[entry.name] = entry
    return dict(sorted(found.items()))


def entry(kind: Kind, name: str) -> Entry:
    """The entry called `name`.

    Raises:
        UnknownName: with the nearest names.
    """
    known = entries(kind)
    if name not in known:
        raise unknown(kind, name, known)
    return known[name]


def load(kind: Kind, name: str) -> ModuleType:
    """The module that announced `name`, imported."""
    return importlib.import_module(entry(kind, name).module)


def _modules(room: str) -> list[tuple[str, Path]]:
    own = [(f"benchctl.{room}.{f.stem}", f) for f in sorted((_PACKAGE / room).glob("*.py")) if f.stem != "__init__"]
    for point in entry_points(group=f"benchctl.{room}"):
        spec = importlib.util.find_spec(point.value)
        if spec is None or spec.origin is None:
            raise BenchctlError(
                f"entry point '{point.name}' names module '{point.value}', which is not installed", fix="reinstall or remove its package"
            )
        own.append((point.value, Path(spec.origin)))
    return own


def _announcement(file: Path, constant: str) -> tuple[Any, str]:
    """The literal assigned to `constant` at the top level of `file` (None when there is none), and its docstring's first line."""
    source = file.read_text(encoding="utf-8")
    if constant not in source:
        return None, ""
    tree = ast.parse(source, filename=str(file))
    summary = (ast.get_docstring(tree) or "").partition("\n")[0]
    for node in tree.body:
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0] if isinstance(node, ast.Assign) else None
        if (
            isinstance(target, ast.Name)
            and target.id == constant
            and isinstance(node, ast.Assign | ast.AnnAssign)
            and node.value is not None
        ):
            try:
                return ast.literal_eval(node.value), summary
            except ValueError:
                raise BenchctlError(
                    f"{constant} is not a literal", where=f"{file}:{node.lineno}", fix="write it out; it is read without importing"
                ) from None
    return None, summary
