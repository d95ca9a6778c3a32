"""Checkpoints of a training: whole or absent, never torn, and everything that the next step depends on is in them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchctl.atomic_file import replacing
from benchctl.engine.ranks import ALONE, Ranks
from benchctl.engine.step import TrainingStep
from benchctl.errors import BenchctlError, MissingError
from benchctl.spec import Cell

FILE = "checkpoint.pt"
_FORMAT = 2


def save(folder: Path, training: TrainingStep, step: int, cell: Cell, record: dict[str, Any], ranks: Ranks = ALONE) -> Path:
    """Write the state after `step` steps; `record` is kept as it is. All ranks must call it, and the first of them writes.

    Raises:
        MissingError: the disk is full or the folder cannot be written.
    """
    path = folder / FILE
    state, random = training.state(), ranks.gather(_random_state(training.device_type))
    if not ranks.first:
        return path
    content = {
        "format": _FORMAT,
        "cell": cell.id,
        "kin": cell.kin,
        # what it takes to build the model again, for whoever has this file and no database
        "method": cell.method,
        "task": cell.task,
        "config": cell.config,
        "step": step,
        "record": record,
        **state,
        # of each rank
        "random": random,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as problem:
        # torch reports a full disk as a RuntimeError
        raise MissingError(
            f"cannot write a checkpoint: {str(problem).splitlines()[0]}", where=str(path), fix="free space or permissions there"
        ) from None
    return path


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint file, on the CPU.

    Raises:
        BenchctlError: it is torn or something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BenchctlError("no such checkpoint", where=str(path)) from None
    except Exception as problem:
        raise BenchctlError(
            f"not a readable checkpoint: {str(problem).splitlines()[0][:200]}", where=str(path), fix="train again with --fresh"
        ) from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise BenchctlError("not a checkpoint of this version of benchctl", where=str(path), fix="train again with --fresh")
    return content


def restore(training: TrainingStep, content: dict[str, Any], ranks: Ranks = ALONE) -> int:
    """Put `training` into the state of `content`; the number of steps it has made.

    With another number of ranks than wrote it, each draws other random numbers from here on.
    """
    training.restore(content)
    random, step = content["random"], int(content["step"])
    if len(random) != ranks.world:
        torch.manual_seed(hash((step, ranks.rank, ranks.world)))
        return step
    torch.set_rng_state(random[ranks.rank]["cpu"])
    if training.device_type == "cuda" and "cuda" in random[ranks.rank]:
        torch.cuda.set_rng_state(random[ranks.rank]["cuda"])
    return step


def digest(model: nn.Module) -> str:
    """SHA-256 of a model's weights and buffers, by name: what tells one checkpoint from another, however it was written."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # as bytes, because NumPy has no bfloat16
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _random_state(device_type: str) -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device_type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state()
    return state
