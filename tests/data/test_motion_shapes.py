from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchctl.data import motion_shapes
from benchctl.data.clip_set import ClipRecord, ClipSet
from benchctl.data.decode import decode, probe
from benchctl.data.shape_scene import CLASSES, draw_scene
from benchctl.errors import DataMissing, MissingError, UsageError
from benchctl.spec import DatasetRef

SMALL = {"train_clips_per_class": 1, "test_clips_per_class": 1, "frames": 5, "size": 32}
#: enough for a classifier to learn from, at half the usual size
STUDY = {"train_clips_per_class": 24, "test_clips_per_class": 12, "frames": 8, "size": 48}


def ref(options: dict[str, int]) -> DatasetRef:
    return DatasetRef(name="motion_shapes", options=options)


def digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> ClipSet:
    folder = motion_shapes.prepare(ref(STUDY), tmp_path_factory.mktemp("cache"))
    return motion_shapes.load(folder, motion_shapes.Options.model_validate(STUDY))


def test_what_is_made(tmp_path: Path) -> None:
    folder = motion_shapes.prepare(ref(SMALL), tmp_path)
    options = motion_shapes.Options.model_validate(SMALL)
    clips = motion_shapes.load(folder, options)
    # the order of classes is alphabetical, as in every manifest
    assert clips.classes == motion_shapes.class_names(options) == tuple(sorted(CLASSES))
    assert (len(clips.train), len(clips.test), clips.flip_safe, clips.missing) == (8, 8, False, ())
    for record in clips.train + clips.test:
        info = probe(record.path)
        assert (info.frames, info.width, info.height) == (5, 32, 32)
        with np.load(record.path.with_suffix(".npz")) as truth:
            assert {name: (truth[name].dtype.name, truth[name].shape) for name in truth} == {
                "flow": ("float16", (4, 32, 32, 2)),
                "flow_exists": ("bool", (4, 32, 32)),
                "tracks": ("float32", (5, 32, 3)),
            }
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]  # nothing half-made is left


def test_files_hold_what_the_scene_says(tmp_path: Path, with_half_chroma: Callable[..., np.ndarray]) -> None:
    folder = motion_shapes.prepare(ref(SMALL), tmp_path)
    rng = np.random.default_rng([0, False, CLASSES.index("grow"), 0])
    scene = draw_scene("grow", 32, 5, rng)
    with np.load(folder / "train/grow_0000.npz") as truth:
        for frame in range(4):
            flow, exists = scene.flow(frame)
            assert np.abs(truth["flow"][frame] - flow).max() <= 2e-3  # float16, displacements below 4 pixels
            assert np.array_equal(truth["flow_exists"][frame], exists)
        assert np.array_equal(truth["tracks"], scene.tracks(32, rng))
    pixels = np.stack([scene.pixels(frame) for frame in range(5)])
    assert np.abs(decode(folder / "train/grow_0000.mp4", range(5)).astype(int) - with_half_chroma(pixels)).mean() < 4


def test_the_same_options_give_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    here = motion_shapes.prepare(ref(SMALL), tmp_path / "here")
    script = f"""
from pathlib import Path
from benchctl.data import motion_shapes
from benchctl.spec import DatasetRef
motion_shapes.prepare(DatasetRef(name="motion_shapes", options={SMALL}), Path({str(tmp_path / "there")!r}))
"""
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"})
    assert digests(here) == digests(tmp_path / "there" / here.name)
    other = motion_shapes.prepare(ref({**SMALL, "seed": 1}), tmp_path / "here")
    assert other != here
    ours, theirs = digests(here), digests(other)
    assert [name for name in ours if ours[name] == theirs[name]] == ["clips.csv"]


def test_a_complete_set_is_left_alone_and_a_damaged_one_made_again(tmp_path: Path) -> None:
    folder = motion_shapes.prepare(ref(SMALL), tmp_path)
    before = digests(folder)
    times = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert motion_shapes.prepare(ref(SMALL), tmp_path) == folder
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == times
    (folder / "test/left_0000.npz").unlink()
    assert digests(motion_shapes.prepare(ref(SMALL), tmp_path)) == before
    (folder / "meta.json").unlink()
    assert digests(motion_shapes.prepare(ref(SMALL), tmp_path)) == before


def test_being_killed_leaves_no_half_set_behind(tmp_path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from benchctl.data import motion_shapes
from benchctl.spec import DatasetRef
honest, left = motion_shapes.write_mp4, iter(range(6))
def write(*a, **k):
    if next(left, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
    honest(*a, **k)
motion_shapes.write_mp4 = write
motion_shapes.prepare(DatasetRef(name="motion_shapes", options={SMALL}), Path({str(tmp_path)!r}))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert not [p for p in tmp_path.iterdir() if not p.name.startswith(".")]
    folder = motion_shapes.prepare(ref(SMALL), tmp_path)
    assert motion_shapes.load(folder, motion_shapes.Options.model_validate(SMALL)).missing == ()


def test_a_full_disk_and_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MissingError, match=r"cannot make motion_shapes: .*free space there") as error:
        motion_shapes.prepare(ref(SMALL), tmp_path / "file" / "cache")
    assert error.value.exit_code == 3

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(motion_shapes, "write_mp4", full)
    with pytest.raises(MissingError, match="No space left on device"):
        motion_shapes.prepare(ref(SMALL), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_set_made_with_other_options_is_refused(tmp_path: Path) -> None:
    folder = motion_shapes.prepare(ref(SMALL), tmp_path)
    with pytest.raises(UsageError, match="made with another frames, size"):
        motion_shapes.load(folder, motion_shapes.Options.model_validate({**SMALL, "frames": 8, "size": 64}))
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "generator": 0}))
    with pytest.raises(UsageError, match="made with another generator"):
        motion_shapes.load(folder, motion_shapes.Options.model_validate(SMALL))
    (folder / "meta.json").write_text("{")
    with pytest.raises(DataMissing, match=r"torn meta\.json"):
        motion_shapes.load(folder, motion_shapes.Options.model_validate(SMALL))
    shutil.rmtree(folder)
    with pytest.raises(DataMissing, match="no such file"):
        motion_shapes.load(folder, motion_shapes.Options.model_validate(SMALL))


# ---- only motion tells the class ----


def logistic_accuracy(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> float:
    """Top-1 of multinomial logistic regression, by gradient descent on standardised features with L2."""
    (x, y), (x_test, y_test) = train, test
    mean, std = x.mean(0), x.std(0) + 1e-6
    x, x_test = (x - mean) / std, (x_test - mean) / std
    weights, bias = np.zeros((x.shape[1], len(CLASSES))), np.zeros(len(CLASSES))
    target = np.eye(len(CLASSES))[y]
    rate = 1 / (1 + np.linalg.norm(x, 2) ** 2 / len(x))
    for _ in range(400):
        scores = x @ weights + bias
        share = np.exp(scores - scores.max(1, keepdims=True))
        slope = (share / share.sum(1, keepdims=True) - target) / len(x)
        weights -= rate * (x.T @ slope + 1e-3 * weights)
        bias -= rate * slope.sum(0)
    return float(((x_test @ weights + bias).argmax(1) == y_test).mean())


def labels(records: tuple[ClipRecord, ...]) -> np.ndarray:
    return np.array([record.label for record in records])


def flow_features(path: Path) -> np.ndarray:
    """Mean flow, curl and divergence of the shapes, from the stored flow."""
    with np.load(path.with_suffix(".npz")) as truth:
        flow = truth["flow"].astype(np.float64)
    moving = flow.any(axis=-1)
    inner = moving[:, 1:-1, 1:-1] & moving[:, 2:, 1:-1] & moving[:, :-2, 1:-1] & moving[:, 1:-1, 2:] & moving[:, 1:-1, :-2]
    by_x, by_y = (flow[:, 1:-1, 2:] - flow[:, 1:-1, :-2]) / 2, (flow[:, 2:, 1:-1] - flow[:, :-2, 1:-1]) / 2
    curl, divergence = by_x[..., 1] - by_y[..., 0], by_x[..., 0] + by_y[..., 1]
    # medians: neighbours across the edge between two shapes have no derivative
    return np.array([*flow[moving].mean(0) / 48, *(np.median(m[inner]) if inner.any() else 0.0 for m in (curl, divergence))])


def test_no_single_frame_tells_the_class(study: ClipSet) -> None:
    def features(records: tuple[ClipRecord, ...]) -> tuple[np.ndarray, np.ndarray]:
        frames = np.stack([decode(r.path, [0, 4, 7]) for r in records])
        return frames.reshape(len(records), 3, 12, 4, 12, 4, 3).mean((3, 5)).reshape(len(records), 3, -1), labels(records)

    (train, train_labels), (test, test_labels) = features(study.train), features(study.test)
    chance, clips = 1 / len(CLASSES), len(study.test)
    for frame in range(3):
        accuracy = logistic_accuracy((train[:, frame], train_labels), (test[:, frame], test_labels))
        assert abs(accuracy - chance) < 3 * np.sqrt(chance * (1 - chance) / clips)


def test_flow_tells_the_class(study: ClipSet) -> None:
    def features(records: tuple[ClipRecord, ...]) -> tuple[np.ndarray, np.ndarray]:
        return np.array([flow_features(r.path) for r in records]), labels(records)

    assert logistic_accuracy(features(study.train), features(study.test)) > 0.9
