"""From what was typed to a plan: for `benchctl run` and `benchctl plan`."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from benchctl.folders import cache_folder, data_root

if TYPE_CHECKING:
    from pathlib import Path

    from benchctl.plan import DataSource, Plan
    from benchctl.spec import DatasetRef
    from benchctl.suite_file import LoadedSuite


def planned(suite: str, settings: list[str] | None, only: list[str] | None, *, make_data: bool) -> tuple[Plan, LoadedSuite]:
    """The plan of `suite`, to look at; with `make_data`, to run: data sets that must be generated are, and none may be absent."""
    from benchctl.data.flow_views import check_flow
    from benchctl.data.track_views import check_tracks
    from benchctl.plan import Checks, Sources, expand, resolve_data
    from benchctl.suite_file import load

    loaded = load(suite, settings or ())
    data = resolve_data(loaded, data_root(), absent=not make_data)
    plan = expand(loaded, data, Checks(check_flow, check_tracks, _check_leakage)).only(tuple(only or ()))
    if make_data:
        plan = replace(plan, data=Sources(_made(data.main), _made(data.start)))
    return plan, loaded


def _check_leakage(dataset: DatasetRef, root: Path, fingerprint: str) -> None:
    """Raise UsageError where the data set's index knows of a leak; an index that cannot be used is told of."""
    from benchctl.data.index import check_leakage

    if torn := check_leakage(dataset, root, fingerprint):
        print(f"benchctl: {torn}", file=sys.stderr)  # noqa: T201


def _made(source: DataSource | None) -> DataSource | None:
    """`source` with its folder, generated where it is not there."""
    from benchctl import lookup

    if source is None or source.root is not None:
        return source
    print(f"making the data set {source.ref.name} under {cache_folder()}", file=sys.stderr)  # noqa: T201
    return replace(source, root=lookup.load("dataset", source.ref.name).prepare(source.ref, cache_folder()))
