"""A data set by its name and options: found where suites find it, or made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from pydantic import ValidationError

from benchctl import lookup
from benchctl.data.clip_set import ClipSet
from benchctl.errors import DataMissing, UsageError
from benchctl.spec import DatasetRef
from benchctl.vocabulary import Vocabulary


def options_of(module: ModuleType, given: Mapping[str, object]) -> Vocabulary:
    """The options of a data set's module, some of them changed by `--set`.

    Raises:
        UsageError: one that it does not know, or a value that cannot be.
    """
    try:
        options: Vocabulary = module.Options.model_validate(given)
    except ValidationError as invalid:
        problem = invalid.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"])
        known = ", ".join(module.Options.model_fields)
        raise UsageError(problem["msg"].lower(), where=f"--set {key}", fix=f"options: {known}") from None
    return options


def open_named(name: str, given: Mapping[str, object], *, data_root: Path | None, cache: Path, root: Path | None = None) -> ClipSet:
    """The data set `name`; one that can be generated is made in `cache` where it is not there yet.

    Args:
        name: a registered data set.
        given: changed options.
        data_root: folder that holds data sets.
        cache: where data is made.
        root: the data set's own folder, where it is not its name under `data_root`.

    Raises:
        UnknownName: no such data set.
        UsageError: as `options_of`, and as the data set's file.
        DataMissing: it is not there and cannot be made; and as the data set's file.
    """
    module = lookup.load("dataset", name)
    options = options_of(module, given)
    ref = DatasetRef(name=name, options=options.model_dump(mode="json"), root=str(root) if root else None)
    found = module.locate(ref, data_root)
    if found is None and (root is not None or not hasattr(module, "prepare")):
        place = root or (data_root / name if data_root else f"$BENCHCTL_DATA/{name}")
        raise DataMissing(f"no data set '{name}'", where=str(place), fix="put it there, or set BENCHCTL_DATA to the folder that holds it")
    clips: ClipSet = module.load(found or module.prepare(ref, cache), options)
    return clips
