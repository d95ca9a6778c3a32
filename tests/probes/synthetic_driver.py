"""A driver of our own making, compiled where there is a compiler and loaded by the name that the real one has. See `nvml_stub.c`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "nvml_stub.c"


def compiled(folder: Path, *flags: str) -> Path:
    """`folder`, with the driver in it; the test is skipped where there is no C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    subprocess.run([compiler, "-shared", "-fPIC", *flags, "-o", folder / "libnvidia-ml.so.1", SOURCE], check=True)
    return folder


def said(folder: Path, code: str, **environment: str) -> str:
    """What `code` writes to stdout in a process that finds the driver in `folder` first, and nothing to stderr."""
    env = {**os.environ, "LD_LIBRARY_PATH": str(folder), **environment}
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    return ended.stdout
