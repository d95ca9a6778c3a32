"""Pins and results as a database leaves them, with invented numbers."""

from __future__ import annotations

from typing import Any

from benchctl.pins import CellWords, Pin, Pins
from benchctl.record import Environment, Gpu, Outcome, packed

HERE = Environment(benchctl="0.1.0", python="3.11.2", platform="linux", cpu="x", cpu_cores=2, memory_bytes=2**30)


def gpu(name: str) -> Environment:
    return HERE.model_copy(update={"gpus": (Gpu(name=name, uuid="u", memory_bytes=2**36),)})


def pin(environment: Environment = HERE, **changes: Any) -> Pin:
    """One cell of `moss-tiny`; what is a word of the cell goes there, and everything else into the pin."""
    words: dict[str, Any] = {
        "task": "profile",
        "method": "moss-tiny",
        "batch_size": 1,
        "frames": 8,
        "resolution": 224,
        "precision": "fp32",
        "attention": "sdpa",
        "optimizer": "adamw",
        "seed": 0,
    }
    words |= {name: changes.pop(name) for name in list(changes) if name in CellWords.model_fields}
    identity = "-".join(str(value) for value in words.values())
    values = {"cell": identity, "is": words, "environment": environment.digest[:8], "device": "cpu", "outcome": Outcome.OK}
    return Pin.model_validate({**values, **changes})


def results(*pins: Pin, suite: str = "ci", environments: tuple[Environment, ...] = (HERE,), **changes: Any) -> Pins:
    found = {each.digest[:8]: each for each in environments}
    return Pins.model_validate({"suite": suite, "environments": found, "cells": pins, **changes})


def right(*bits: bool) -> dict[str, Any]:
    return packed([f"clip{number:05}" for number in range(len(bits))], bits)
