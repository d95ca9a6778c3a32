"""From what was typed to a plan: for `benchctl run` and `benchctl plan`."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from benchctl.folders import cache_folder, data_root

if TYPE_CHECKING:
    from benchctl.plan import Plan
    from benchctl.suite_file import LoadedSuite


def planned(suite: str, settings: list[str] | None, only: list[str] | None, *, make_data: bool) -> tuple[Plan, LoadedSuite]:
    """The plan of `suite`; with `make_data`, a data set that must be generated is."""
    from benchctl import lookup
    from benchctl.data.flow_views import check_flow
    from benchctl.plan import expand, resolve_data
    from benchctl.suite_file import load

    loaded = load(suite, settings or ())
    data = resolve_data(loaded, data_root())
    plan = expand(loaded, data, check_flow).only(tuple(only or ()))
    if data is not None and data.root is None and make_data:
        print(f"making the data set {data.ref.name} under {cache_folder()}", file=sys.stderr)  # noqa: T201
        root = lookup.load("dataset", data.ref.name).prepare(data.ref, cache_folder())
        plan = replace(plan, data=replace(data, root=root))
    return plan, loaded
