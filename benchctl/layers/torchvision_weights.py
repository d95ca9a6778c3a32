"""Weights that torchvision publishes: found on this machine, or fetched, and loaded whole.

They are named as torchvision names them, `R2Plus1D_18_Weights.KINETICS400_V1`. The file is looked for in `$BENCHCTL_WEIGHTS/torchvision`,
then where torch keeps downloads, then on torchvision's server.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchctl.errors import UsageError, WeightsMissing
from benchctl.folders import weights_folder
from benchctl.layers.pretrained import HUB_TIMEOUT_S, State, read


def load_torchvision(module: nn.Module, name: str, *, head: str, convert: Callable[[State], State] | None = None) -> str:
    """Load the weights `name` into `module`, which has torchvision's names.

    Args:
        module: what is loaded into.
        name: a member of one of torchvision's lists for videos, as `R2Plus1D_18_Weights.KINETICS400_V1`.
        head: name of the classifier in `module`; where its shape differs from the file's, it keeps its random weights.
        convert: from the file's tensors to those of `module`.

    Returns:
        What was loaded, one line for the result.

    Raises:
        UsageError: torchvision has no such weights.
        WeightsMissing: they cannot be had, or do not fit.
    """
    entry = listed(name)
    file = located(entry, otherwise="'pretrained: false'")
    state = read(file)
    own = module.state_dict()
    other_classes = [key for key in state if key.startswith(f"{head}.") and key in own and own[key].shape != state[key].shape]
    kept = {key: own[key] for key in other_classes}
    try:
        module.load_state_dict({**(convert(state) if convert else state), **kept})
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:160]
        raise WeightsMissing(f"does not fit this model: {problem}", where=str(file), fix="name the weights of this model") from None
    if other_classes:
        published, ours = state[other_classes[0]].shape[0], own[other_classes[0]].shape[0]
        return f"torchvision {name}, {head} random ({ours} classes, published {published})"
    return f"torchvision {name}"


def listed(name: str) -> Any:
    """The member of torchvision's lists of weights for videos that is called `name`.

    Raises:
        UsageError: there is none.
    """
    from torchvision.models import video

    group, _, member = name.partition(".")
    members = getattr(getattr(video, group, None), "__members__", {}) if group.endswith("_Weights") else {}
    if member not in members:
        known = ", ".join(f"{group}.{each}" for each in members) or "R2Plus1D_18_Weights.KINETICS400_V1, for example"
        raise UsageError(f"torchvision has no weights '{name}' for videos", fix=f"choose from {known}")
    return members[member]


def local(entry: Any) -> Path | None:
    """The file of a list's member on this machine; None: it is not here."""
    name = entry.url.rpartition("/")[2]
    root = weights_folder()
    folders = ([root / "torchvision"] if root else []) + [Path(torch.hub.get_dir()) / "checkpoints"]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def located(entry: Any, *, otherwise: str) -> Path:
    """The file of a list's member, fetched when it is not there yet.

    Args:
        entry: a member of one of torchvision's lists of weights.
        otherwise: what can be used without it, for the message.

    Raises:
        WeightsMissing: it is neither here nor to be had.
    """
    found = local(entry)
    if found is not None:
        return found
    require(entry, otherwise=otherwise)
    try:
        entry.get_state_dict(progress=False, check_hash=True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise _missing(entry, f"the download failed ({error})", otherwise) from None
    found = local(entry)
    if found is None:
        raise _missing(entry, "the download is not where torch keeps downloads", otherwise)
    return found


def require(entry: Any, *, otherwise: str) -> None:
    """Raise WeightsMissing unless the file of `entry` is here, or the server that publishes it answers; loads nothing."""
    if local(entry) is not None:
        return
    try:
        with urllib.request.urlopen(urllib.request.Request(entry.url, method="HEAD"), timeout=HUB_TIMEOUT_S):
            return
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise _missing(entry, f"their server cannot be used ({getattr(error, 'reason', None) or error})", otherwise) from None


def _missing(entry: Any, why: str, otherwise: str) -> WeightsMissing:
    root = weights_folder() or "$BENCHCTL_WEIGHTS"
    model = type(entry).__name__.removesuffix("_Weights").replace("_", "-").lower()
    file = entry.url.rpartition("/")[2]
    return WeightsMissing(why, where=f"weights {entry.name} of {model}", fix=f"put {file} in {root}/torchvision, or use {otherwise}")
