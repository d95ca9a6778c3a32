"""Where a run came from: machine, versions, git, and digests of the code that a cell's numbers depend on."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import benchctl
from benchctl import lookup
from benchctl.record import Environment, Gpu
from benchctl.spec import Cell

#: packages whose version can change a number
_PACKAGES = ("torch", "torchvision", "timm", "transformers", "fvcore", "numpy", "decord", "av", "deepspeed", "nvidia-ml-py")
_PACKAGE_FOLDER = Path(benchctl.__file__).parent
#: rooms that the numbers of a profile, of learning, and of a prediction depend on: a better probe does not make a training stale
_PROFILE_ROOMS = ("layers", "probes", "engine")
_LEARNING_ROOMS = ("layers", "engine", "data", "metrics")


def environment(gpus: tuple[Gpu, ...] = (), driver: str | None = None, cuda: str | None = None) -> Environment:
    """This machine and this installation; what the GPU driver says is passed in."""
    commit, dirty = _git()
    packages = {name: found for name in _PACKAGES if (found := _version(name))}
    return Environment(
        benchctl=benchctl.__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=_cpu_name(),
        cpu_cores=_usable_cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpus=gpus,
        driver=driver,
        cuda=cuda,
        packages=packages,
        decoders=tuple(f"{name} {packages[name]}" for name in ("decord", "av") if name in packages),
        git_commit=commit,
        git_dirty=dirty,
    )


def code_digests(cell: Cell) -> dict[str, str]:
    """Digest of each piece of code that the numbers of `cell` depend on, and the version of torch."""
    return _digests(cell, _PROFILE_ROOMS if cell.task == "profile" else _LEARNING_ROOMS)


def cost_digests(cell: Cell) -> dict[str, str]:
    """The same for what is counted and predicted about `cell`, whatever its task."""
    return _digests(cell, _PROFILE_ROOMS)


def _digests(cell: Cell, rooms: tuple[str, ...]) -> dict[str, str]:
    method = lookup.entry("method", cell.method).file
    packages = ["torch"] + ["deepspeed"] * (cell.launch is not None and cell.launch.engine == "deepspeed")
    found = {f"methods/{method.name}": _file_digest(method), **{name: _version(name) or "missing" for name in packages}}
    return found | {room: _folder_digest(_PACKAGE_FOLDER / room) for room in rooms}


@cache
def _file_digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


@cache
def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(f"{file.relative_to(folder)} {_file_digest(file)}\n".encode())
    return digest.hexdigest()[:16]


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git() -> tuple[str | None, bool | None]:
    """Commit and dirtiness of the checkout that benchctl runs from; (None, None) for an installed package."""
    checkout = _PACKAGE_FOLDER.parent
    if not (checkout / ".git").exists():
        return None, None
    commit = _git_says(checkout, "rev-parse", "HEAD")
    status = _git_says(checkout, "status", "--porcelain", "--untracked-files=no")
    return commit or None, None if status is None else bool(status)


def _git_says(checkout: Path, *arguments: str) -> str | None:
    try:
        asked = subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None
