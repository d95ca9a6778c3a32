from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest

from benchctl.data.encode import write_mp4
from benchctl.errors import UsageError


def _data_root() -> Path:
    named = os.environ.get("BENCHCTL_DATA")
    return Path(named) if named else Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def real_clips() -> Path:
    folder = _data_root() / "clips"
    if not (folder / "x_cutcopy_editlist.mp4").is_file():
        pytest.skip(f"no real clips at {folder}; set BENCHCTL_DATA")
    return folder


@pytest.fixture(scope="session")
def real_egogestar() -> Path:
    folder = _data_root() / "egogestar"
    if not folder.is_dir():
        pytest.skip(f"no egogestar at {folder}; set BENCHCTL_DATA")
    return folder


def _textured_frames(count: int, seed: int = 0, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames no two of which are alike: a texture that drifts, with brightness that tells the index."""
    rng = np.random.default_rng(seed)
    fx, fy, phase = rng.uniform(0.1, 0.4, 3), rng.uniform(0.1, 0.4, 3), rng.uniform(0, 6, 3)
    rows, columns = np.mgrid[0:height, 0:width][..., None]
    clip = [110 + 60 * np.sin(fx * (columns + 3 * t) + fy * rows + phase) + 80 * (t / max(1, count - 1) - 0.5) for t in range(count)]
    return np.clip(np.stack(clip), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def textured_frames() -> Callable[..., np.ndarray]:
    return _textured_frames


@pytest.fixture(scope="session")
def mp4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 distinct frames, 64x48, a key frame every 10."""
    path = tmp_path_factory.mktemp("mp4") / "clip.mp4"
    write_mp4(path, _textured_frames(40), fps=10)
    return path


def _with_half_chroma(frames: np.ndarray) -> np.ndarray:
    converted = [av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p") for frame in frames]
    return np.stack([frame.to_ndarray(format="rgb24") for frame in converted])


@pytest.fixture(scope="session")
def with_half_chroma() -> Callable[[np.ndarray], np.ndarray]:
    """What yuv420p leaves of RGB frames before any encoding."""
    return _with_half_chroma


def _place(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"listing looks at names and sizes only")


@pytest.fixture(scope="session")
def place() -> Callable[..., None]:
    """Put small files in the place of videos."""
    return _place


def _refusal(kind: type[UsageError], module: ModuleType, root: Path, **options: object) -> str:
    with pytest.raises(kind) as caught:
        module.load(root, module.Options(**options))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{root}/", "")


@pytest.fixture(scope="session")
def refusal() -> Callable[..., str]:
    """The one line with which a data set's file refuses what is at a folder, paths relative to it."""
    return _refusal
