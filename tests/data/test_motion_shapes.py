from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchctl.data import motion_shapes, shape_couples
from benchctl.data.clip_set import ClipRecord, ClipSet
from benchctl.data.decode import decode, probe
from benchctl.data.named import options_of
from benchctl.data.shape_scene import CLASSES, draw_scene
from benchctl.errors import DataMissing, MissingError, UnknownName, UsageError
from benchctl.spec import DatasetRef

SMALL = {"train_clips_per_class": 1, "test_clips_per_class": 1, "frames": 5, "size": 32}
#: enough for a classifier to learn from, at half the usual size
STUDY = {"train_clips_per_class": 24, "test_clips_per_class": 12, "frames": 8, "size": 48}


def ref(options: dict[str, Any]) -> DatasetRef:
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


# ---- difficulties ----

#: what the first version of the generator wrote for `SMALL`
PLAIN = {
    "flow": "1d9c5a8128b183f9c11df2fb4a50784d49ecf300590522d961ec38fb66bbbb47",
    "flow_exists": "350a5ef250ca1df3ba1adffd2bc4349df4e35148f7bc8d3e29e91653ab9425d9",
    "tracks": "aadf28b8e34d013fb7618d779a4a7c3f153de1ccd552438be5382235a457e5b8",
}
PLAIN_PIXELS = "2beaebb9975d0477d1890f6706cd29d662ffbacf8213d838f74c64ec057770e0"


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def test_the_plain_set_is_what_it_always_was(tmp_path: Path) -> None:
    folder = motion_shapes.prepare(ref(SMALL), tmp_path)
    assert folder.name == "motion_shapes-04a23115a57d"  # of meta.json, whole
    assert sha256(np.frombuffer((folder / "clips.csv").read_bytes(), np.uint8)).startswith("58ea712b6d936f0af2ba0dd69e508dee")
    with np.load(folder / "train/grow_0000.npz") as truth:
        assert {name: sha256(truth[name]) for name in truth} == PLAIN
    scene = draw_scene("grow", 32, 5, np.random.default_rng([0, False, CLASSES.index("grow"), 0]))
    assert sha256(np.stack([scene.pixels(frame) for frame in range(5)])) == PLAIN_PIXELS
    # nor do cells that name its options get others
    assert motion_shapes.Options.model_validate({**SMALL, "difficulty": "plain", "motions": []}).model_dump(mode="json") == {
        **SMALL,
        "fps": 24,
        "seed": 0,
    }


@pytest.mark.parametrize("difficulty", list(shape_couples.LEVELS))
def test_what_is_made_of_a_difficulty(difficulty: str, tmp_path: Path) -> None:
    given = {**SMALL, "difficulty": difficulty, "test_clips_per_class": 2}
    folder = motion_shapes.prepare(ref(given), tmp_path)
    options = motion_shapes.Options.model_validate(given)
    clips = motion_shapes.load(folder, options)
    assert clips.classes == motion_shapes.class_names(options) == tuple(sorted(shape_couples.CLASSES))
    assert (len(clips.train), len(clips.test), clips.missing) == (18, 36, ())
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["options"] == motion_shapes.Options.model_validate(meta["options"]).model_dump(mode="json")
    assert (meta["couples"], meta["options"]["difficulty"], "generator" in meta) == (motion_shapes.COUPLES_VERSION, difficulty, False)
    record = next(r for r in clips.test if r.id == "test/orbit-clockwise_0001.mp4")
    scene, rng = motion_shapes._scene(options, "orbit-clockwise", "test", 1)
    with np.load(record.path.with_suffix(".npz")) as truth:
        for frame in range(4):
            flow, exists = scene.flow(frame)
            assert np.abs(truth["flow"][frame] - flow).max() <= 4e-3  # float16, displacements below 8 pixels
            assert np.array_equal(truth["flow_exists"][frame], exists)
        assert np.array_equal(truth["tracks"], scene.tracks(32, rng))
    assert motion_shapes.exact_tracks(record).shape == (5, 32, 3)
    with pytest.raises(UsageError, match="made with another difficulty"):
        motion_shapes.load(folder, motion_shapes.Options.model_validate({**given, "difficulty": "plain"}))


def test_difficulties_and_splits_are_drawn_apart() -> None:
    options = [motion_shapes.Options.model_validate({**SMALL, "difficulty": d}) for d in shape_couples.LEVELS]
    scenes = [motion_shapes._scene(o, "left", split, n)[0] for o in options for split in ("train", "test") for n in (0, 1)]
    assert len({scene.background.phases.tobytes() for scene in scenes}) == len(scenes)


def test_pairs_of_motions_are_picked(tmp_path: Path) -> None:
    given = {**SMALL, "difficulty": "easy", "motions": ["up-then-down/down-then-up", "left/right"]}
    options = motion_shapes.Options.model_validate(given)
    assert motion_shapes.class_names(options) == ("down-then-up", "left", "right", "up-then-down")
    folder = motion_shapes.prepare(ref(given), tmp_path)
    assert motion_shapes.load(folder, options).classes == motion_shapes.class_names(options)
    # in whatever order they are named, and the clips are those of the whole set
    assert motion_shapes.prepare(ref({**given, "motions": given["motions"][::-1]}), tmp_path) == folder
    whole = motion_shapes.prepare(ref({**SMALL, "difficulty": "easy"}), tmp_path)
    of_whole = digests(whole)
    assert all(of_whole[name] == digest for name, digest in digests(folder).items() if name.startswith("t"))
    # and of the plain set
    plain = options_of(motion_shapes, {"motions": "grow/shrink"})
    assert isinstance(plain, motion_shapes.Options)
    assert motion_shapes.class_names(plain) == ("grow", "shrink")
    assert plain.model_dump(mode="json")["motions"] == ["grow/shrink"]


def test_motions_and_difficulties_that_are_not_there() -> None:
    with pytest.raises(UnknownName, match="motions: unknown motion 'left/rigth'; did you mean 'left/right'"):
        options_of(motion_shapes, {"difficulty": "easy", "motions": ["left/rigth"]})
    with pytest.raises(UnknownName, match="unknown motion 'approach/part'; known: clockwise/counterclockwise, grow/shrink"):
        options_of(motion_shapes, {"motions": ["approach/part"]})
    with pytest.raises(UsageError, match="--set difficulty: input should be 'plain', 'easy', 'medium' or 'hard'"):
        options_of(motion_shapes, {"difficulty": "heavy", "motions": ["left/right"]})


def test_several_processes_make_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {**SMALL, "difficulty": "medium", "motions": ["left/right", "grow/shrink"]}
    options = motion_shapes.Options.model_validate(given)
    assert motion_shapes._processes(options) == 1  # too little to start a second one
    alone = digests(motion_shapes.prepare(ref(given), tmp_path / "alone"))
    monkeypatch.setattr(motion_shapes, "_processes", lambda _: 2)
    told: list[tuple[int, int]] = []
    together = motion_shapes.prepare(ref(given), tmp_path / "together", progress=lambda done, total: told.append((done, total)))
    assert digests(together) == alone
    assert told == [(n, 8) for n in range(1, 9)]


def test_many_clips_are_worth_a_process_for_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    assert motion_shapes._processes(motion_shapes.Options(train_clips_per_class=100, frames=32, size=112)) == 3
    assert motion_shapes._processes(motion_shapes.Options(**SMALL)) == 1


def test_a_process_that_draws_ends_with_its_parent(tmp_path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from benchctl.data import motion_shapes
from benchctl.spec import DatasetRef

def killed(done, total):
    from multiprocessing import active_children
    Path({str(tmp_path / "pids")!r}).write_text(" ".join(str(child.pid) for child in active_children()))
    os.kill(os.getpid(), signal.SIGKILL)

motion_shapes._processes = lambda options: 2
options = {{**{SMALL}, "frames": 30, "train_clips_per_class": 200}}
motion_shapes.prepare(DatasetRef(name="motion_shapes", options=options), Path({str(tmp_path)!r}), progress=killed)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 60
    while any(running(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def running(pid: int) -> bool:
    """Whether a process is there and not only waiting to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_full_disk_under_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(motion_shapes, "_processes", lambda _: 2)
    # a name that the disk has no room for, whatever its size
    monkeypatch.setattr(motion_shapes, "_clips", lambda _: [(f"train/{'x' * 300}.mp4", "left", "train", number) for number in range(3)])
    with pytest.raises(MissingError, match=r"cannot make motion_shapes: .*free space there"):
        motion_shapes.prepare(ref(SMALL), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


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
