"""Folders of the user's own that several rooms look into, and the environment variables that name them."""

from __future__ import annotations

import os
from pathlib import Path


def data_root() -> Path | None:
    """$BENCHCTL_DATA, if set: the folder that holds data sets."""
    return _named("BENCHCTL_DATA")


def cache_folder() -> Path:
    """Where generated data goes: $BENCHCTL_CACHE, else `benchctl` in the user's cache folder."""
    return _named("BENCHCTL_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "benchctl"


def flow_folder() -> Path:
    """Where sets of optical flow lie: $BENCHCTL_FLOW, else `flow` in the cache folder."""
    return _named("BENCHCTL_FLOW") or cache_folder() / "flow"


def tracks_folder() -> Path:
    """Where sets of point tracks lie: $BENCHCTL_TRACKS, else `tracks` in the cache folder."""
    return _named("BENCHCTL_TRACKS") or cache_folder() / "tracks"


def index_folder() -> Path:
    """Where indexes of data sets lie: $BENCHCTL_INDEX, else `index` in the cache folder."""
    return _named("BENCHCTL_INDEX") or cache_folder() / "index"


def weights_folder() -> Path | None:
    """$BENCHCTL_WEIGHTS, if set: where published weights are looked for first."""
    return _named("BENCHCTL_WEIGHTS")


def _named(variable: str) -> Path | None:
    name = os.environ.get(variable)
    return Path(name) if name else None
