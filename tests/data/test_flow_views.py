"""Flow that comes with clips: through resize, crop and mirror, out of files and out of the data set, into batches."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from benchctl.data import list_file, loading, motion_shapes
from benchctl.data.clip_set import ClipRecord, ClipSet
from benchctl.data.content_files import VideoDigests
from benchctl.data.encode import write_mp4
from benchctl.data.flow_files import FlowSet, make
from benchctl.data.flow_views import ExactFlow, PrecomputedFlow, check_flow
from benchctl.data.loading import LoadSettings, UnreadableLog, train_batches
from benchctl.data.sampling import eval_indices, train_indices
from benchctl.data.shape_scene import CLASSES, Scene, draw_scene
from benchctl.data.transforms import Normalisation, eval_views, train_view
from benchctl.errors import ClipUnreadable, DataMissing, UsageError
from benchctl.recipe import Recipe
from benchctl.spec import ClipFlow, DatasetRef
from benchctl.vocabulary import ClipShape

PLAIN = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
SHAPES = {"train_clips_per_class": 1, "test_clips_per_class": 1, "frames": 12, "size": 64}


# ---- through the transforms ----


def moving(height: int, width: int, left: tuple[float, float], right: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Two frames of a smooth texture whose left half moves by `left` (x, y) and its right half by `right`, and their flow, stored at 2/3 of the height and half the width."""
    rows, columns = np.mgrid[0:height, 0:width].astype(float)
    rng = np.random.default_rng(0)
    waves, phases = rng.uniform(-0.25, 0.25, (6, 2)), rng.uniform(0, 6, (6, 3))
    in_left = columns < width / 2

    def frame(t: int) -> np.ndarray:
        x = columns - t * np.where(in_left, left[0], right[0])
        y = rows - t * np.where(in_left, left[1], right[1])
        light = sum(
            np.sin(a * x + b * y)[..., None] * np.cos(phase) + np.cos(a * x + b * y)[..., None] for (a, b), phase in zip(waves, phases)
        )
        return np.clip(128 + 18 * light, 0, 255)

    h, w = height * 2 // 3, width // 2
    flow = np.zeros((2, 2, h, w), np.float32)
    flow[0] = np.where(np.arange(w) < w / 2, np.array(left)[:, None, None], np.array(right)[:, None, None])
    return np.stack([frame(0), frame(1)]).round().astype(np.uint8), flow * np.array([w / width, h / height], np.float32)[:, None, None]


def displacement(first: torch.Tensor, second: torch.Tensor) -> tuple[float, float]:
    """The one (x, y) by which `first` (3, H, W) moves to `second`, by least squares on the brightness equation, iterated."""
    a, b = first.double().mean(0).numpy(), second.double().mean(0).numpy()
    by_y, by_x = np.gradient(a)
    inner = (slice(6, -6), slice(6, -6))
    slopes = np.stack([by_x[inner].ravel(), by_y[inner].ravel()], axis=1)
    rows, columns = np.mgrid[0 : a.shape[0], 0 : a.shape[1]]
    moved = np.zeros(2)
    for _ in range(15):
        x, y = columns[inner] + moved[0], rows[inner] + moved[1]
        i, j = np.floor(y).astype(int), np.floor(x).astype(int)
        p, q = y - i, x - j
        there = (1 - p) * ((1 - q) * b[i, j] + q * b[i, j + 1]) + p * ((1 - q) * b[i + 1, j] + q * b[i + 1, j + 1])
        moved -= np.linalg.lstsq(slopes, (there - a[inner]).ravel(), rcond=None)[0]
    return float(moved[0]), float(moved[1])


@pytest.mark.parametrize("size", [(96, 144), (150, 90)])
@pytest.mark.parametrize("seed", range(4))
def test_flow_stays_what_the_frames_of_the_view_do(size: tuple[int, int], seed: int) -> None:
    """Estimated by hand on the view's own frames, in a half that moves as one: sizes, crops and mirrors included."""
    frames, flow = moving(*size, left=(3.0, -1.5), right=(3.0, -1.5))
    view = train_view(frames, 64, PLAIN, np.random.default_rng(seed), flip=True, flow=flow)
    assert view.shape == (2, 5, 64, 64)
    x, y = displacement(view[0, :3], view[1, :3])
    assert (view[0, 3] - x).abs().max() < 0.08
    assert (view[0, 4] - y).abs().max() < 0.08
    assert abs(x) > 1
    assert not view[1, 3:].any()


def parts(view: torch.Tensor) -> list[slice]:
    """The columns of a view that show one half and those that show the other, where they are enough to estimate from."""
    steps = view[0, 3, 32].diff().abs()
    edge = int(steps.argmax()) if steps.max() > 0.3 else 64
    return [part for part in (slice(0, edge - 2), slice(edge + 3, 64)) if part.stop - part.start >= 24]


def test_flow_is_cropped_and_mirrored_with_its_frames() -> None:
    """Two halves that part: each side of a view holds the flow of what that side shows."""
    frames, flow = moving(80, 120, left=(-2.0, 1.0), right=(2.5, -1.0))
    views = [train_view(frames, 64, PLAIN, np.random.default_rng(seed), flip=True, flow=flow) for seed in range(12)]
    compared, mirrored = 0, 0
    for view in [*views, *eval_views(frames, 64, PLAIN, 3, flow=flow)]:
        for part in parts(view):
            x, y = displacement(view[0, :3, :, part], view[1, :3, :, part])
            assert abs(float(view[0, 3, :, part].median()) - x) < 0.15
            assert abs(float(view[0, 4, :, part].median()) - y) < 0.15
            compared += 1
            mirrored += x * y > 0  # in the file x and y have opposite signs in both halves
    assert compared > 15
    assert 0 < mirrored < compared


def test_the_frames_are_the_same_with_and_without_flow() -> None:
    """One stream of random numbers: neither the frames nor what is drawn after them depends on flow."""
    frames, flow = moving(96, 144, (3.0, 0.0), (3.0, 0.0))
    for seed in range(6):
        with_flow, without = np.random.default_rng(seed), np.random.default_rng(seed)
        view = train_view(frames, 64, Normalisation(), with_flow, flip=True, flow=flow)
        assert torch.equal(view[:, :3], train_view(frames, 64, Normalisation(), without, flip=True))
        assert with_flow.random() == without.random()
    assert torch.equal(eval_views(frames, 64, PLAIN, 3, flow=flow)[:, :, :3], eval_views(frames, 64, PLAIN, 3))


# ---- the data set's own ----


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> ClipSet:
    folder = motion_shapes.prepare(DatasetRef(name="motion_shapes", options=SHAPES), tmp_path_factory.mktemp("cache"))
    return motion_shapes.load(folder, motion_shapes.Options.model_validate(SHAPES))


def scene_of(clip: ClipRecord) -> Scene:
    """The equations that drew the clip."""
    name = clip.path.stem.rpartition("_")[0]
    return draw_scene(name, 64, 12, np.random.default_rng([0, clip.split == "test", CLASSES.index(name), 0]))


def true_flow(scene: Scene, first: int, second: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel's surface point goes, (H, W, 2), and where that is known on a shape: 3 pixels off outlines, in both frames."""
    surfaces = scene.views[first].surfaces
    flow, known = np.zeros((64 * 64, 2)), np.zeros(64 * 64, bool)
    for index, shape in enumerate(scene.shapes):
        own = surfaces == index
        if own.any() and shape.alive(second):
            flow[own] = shape.to_picture(second, shape.to_local(first, scene.grid[own])) - scene.grid[own]
            known |= own
    for frame, points in ((first, scene.grid), (second, scene.grid + flow)):
        for shift in ((3, 0), (-3, 0), (0, 3), (0, -3), (0, 0)):
            known &= scene.view(frame, points + shift).surfaces == surfaces
            known &= np.all((points + shift >= 0) & (points + shift <= 63), axis=1)
    return flow.reshape(64, 64, 2), known.reshape(64, 64)


def test_exact_flow_of_frames_apart_is_the_scenes(shapes: ClipSet) -> None:
    """Consecutive flows, composed, against the position of the surface point in the later frame."""
    indices = [0, 1, 4, 4, 11]
    errors: dict[int, list[np.ndarray]] = {1: [], 3: [], 7: []}
    for clip in shapes.train + shapes.test:
        found, scene = motion_shapes.exact_flow(clip, indices), scene_of(clip)
        assert (found.shape, found.dtype) == ((4, 64, 64, 2), np.float32)
        assert not found[2].any()  # a repeated frame does not move
        for pair, (first, second) in enumerate(pairwise(indices)):
            if second > first:
                flow, known = true_flow(scene, first, second)
                errors[second - first].append(np.hypot(*(found[pair] - flow)[known].T))
    for apart, all_errors in errors.items():
        error = np.concatenate(all_errors)
        assert len(error) > 1000
        assert np.median(error) < 0.05, apart
        assert (error < 0.05).mean() > 0.9, apart  # the rest was covered on its way


def test_exact_flow_stops_where_a_surface_ends_or_leaves(shapes: ClipSet, tmp_path: Path) -> None:
    """By hand: one row that moves a pixel to the right a frame, whose pixel 3 ceases in frame 1."""
    flow = np.zeros((4, 2, 6, 2), np.float16)
    flow[..., 0] = 1
    exists = np.ones((4, 2, 6), bool)
    exists[1, :, 3] = False
    np.savez(tmp_path / "row.npz", flow=flow, flow_exists=exists)
    found = motion_shapes.exact_flow(ClipRecord("row.mp4", tmp_path / "row.mp4", 0, "train"), [0, 4])
    # from 0 and 1 four steps; from 2 one step to the pixel that ends; the others until they are outside, at 6
    assert found[0, 0, :, 0].tolist() == [4, 4, 1, 3, 2, 1]
    assert not found[..., 1].any()
    with pytest.raises(ClipUnreadable, match="no exact flow beside it"):
        motion_shapes.exact_flow(ClipRecord("none.mp4", tmp_path / "none.mp4", 0, "train"), [0, 4])


# ---- into batches ----


def settings(flow: PrecomputedFlow | ExactFlow | None, **recipe: object) -> LoadSettings:
    given = {"sampling": "dense", "frame_stride": 2, **recipe}
    return LoadSettings(ClipShape(frames=4, resolution=48, batch_size=4), Recipe.model_validate(given), PLAIN, flow=flow)


@pytest.mark.parametrize("sampling", ["segment", "uniform", "dense"])
def test_exact_flow_comes_with_any_sampling(shapes: ClipSet, sampling: str) -> None:
    exact = settings(ExactFlow(DatasetRef(name="motion_shapes")), sampling=sampling, eval_clips=2, eval_crops=3)
    for batch, rgb in (
        (f(shapes, exact), f(shapes, settings(None, sampling=sampling, eval_clips=2, eval_crops=3)))
        for f in (lambda *a: next(train_batches(*a, seed=0)), lambda *a: next(loading.test_batches(*a)))
    ):
        assert batch.clips.shape[-4:] == (4, 5, 48, 48)
        assert torch.equal(batch.clips[..., :3, :, :], rgb.clips)
        assert batch.clips[..., :-1, 3:, :, :].abs().max() > 1
        assert not batch.clips[..., -1, 3:, :, :].any()


@pytest.fixture
def made(tmp_path: Path, textured_frames: Callable[..., np.ndarray]) -> tuple[ClipSet, PrecomputedFlow]:
    """Six clips, one of them empty and one shorter than a view, with flow (i, frames) in every pixel of frame i: easy to recognise."""
    for i in range(6):
        write_mp4(tmp_path / f"{i}.mp4", textured_frames(5 if i == 0 else 12, seed=i), fps=10)
    (tmp_path / "5.mp4").write_bytes(b"")
    for split in ("train", "test"):
        (tmp_path / f"{split}.txt").write_text("".join(f"{i}.mp4 0\n" for i in (range(4) if split == "train" else (4, 5))))
    clips = list_file.load(tmp_path, list_file.Options())
    flow_set = FlowSet(tmp_path / "flow", "dis", None, 2)
    flow_set.announce(None)
    list(make((*clips.train, *clips.test), flow_set, lambda pairs: torch.zeros(len(pairs), 2, *pairs.shape[-2:])))
    for clip in (*clips.train, *clips.test[:1]):
        file = flow_set.file(VideoDigests(flow_set.folder).of(clip.path))
        stored = np.array(np.load(file))
        stored[:, 0], stored[:, 1] = np.arange(len(stored))[:, None, None], len(stored)
        np.save(file, stored)
    return clips, PrecomputedFlow(ClipFlow(estimator="dis"), 2, DatasetRef(name="list_file"), flow_set.folder)


def test_stored_flow_of_the_sampled_frames_comes_with_the_clip(made: tuple[ClipSet, PrecomputedFlow]) -> None:
    clips, source = made
    source = pickle.loads(pickle.dumps(source))  # as a loader process gets it

    def frames_of(clip: torch.Tensor, available: int) -> list[int]:
        """The frames whose stored flow the view holds."""
        scale = clip[:-1, 4] / available  # what resizing multiplied it by
        index = clip[:-1, 3] / scale
        assert (index - index[:, :1, :1]).abs().max() < 0.01
        assert not clip[-1, 3:].any()
        return index[:, 0, 0].round().int().tolist()

    starts = set()
    for epoch, batch in enumerate(islice(train_batches(clips, settings(source), seed=0), 6)):  # a batch is an epoch
        for name, clip in zip(batch.ids, batch.clips):
            available = 5 if name == "0.mp4" else 12
            asked = train_indices("dense", available, 4, 2, np.random.default_rng([0, epoch, int(name[0])]))[0].tolist()
            starts.add(asked[0])
            assert frames_of(clip, available) == asked[:-1]
    assert len(starts) > 2
    (batch,) = loading.test_batches(clips, settings(source, eval_clips=3, eval_crops=3))
    views = [frames_of(view, 12) for view in batch.clips[0]]
    assert views == [row[:-1] for row in eval_indices("dense", 12, 4, 2, 3).tolist() for _ in range(3)]


def test_clips_without_flow_are_an_error_before_the_start(
    made: tuple[ClipSet, PrecomputedFlow], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clips, source = made
    log = UnreadableLog()
    assert [batch.ids for batch in loading.test_batches(clips, settings(source), log=log)] == [("4.mp4",)]
    assert list(log.reasons) == ["5.mp4"]  # empty: it needs no flow
    flow_set = FlowSet(source.folder, "dis", None, 2)
    file = flow_set.file(VideoDigests(source.folder).of(clips.test[0].path))
    # an item that loses its flow while batches are read is left out, and named
    batches = loading.ClipDataset(clips.test, settings(source))
    file.rename(file.with_suffix(".gone"))
    assert "it has no flow" in batches[0, 0, 0].reason
    for start in (lambda: train_batches(clips, settings(source), seed=0), lambda: loading.test_batches(clips, settings(source))):
        with pytest.raises(
            DataMissing,
            match=r"1 of [26] clips have no flow \(dis, stride 2\) under .*; run 'benchctl data flow list_file --estimator dis --stride 2'",
        ):
            start()
    monkeypatch.setenv("BENCHCTL_FLOW", str(source.folder))
    ref = DatasetRef(name="list_file", options=list_file.Options(separator=" ").model_dump(mode="json"))
    words = rf"--set 'separator= ' --root {tmp_path} --estimator raft-small --stride 2 --weights random"
    with pytest.raises(DataMissing, match=rf"6 of 6 clips have no flow .* {words}"):
        check_flow(ClipFlow(estimator="raft-small", weights="random"), 2, ref, tmp_path)


def test_flow_of_another_length_or_sampling_is_refused(made: tuple[ClipSet, PrecomputedFlow]) -> None:
    clips, source = made
    with pytest.raises(UsageError, match="precomputed flow fits dense sampling with stride 2 only; set 'sampling: dense'"):
        source.read(clips.train[1], np.array([0, 3, 6, 9]), 12)
    with pytest.raises(ClipUnreadable, match="is of another length"):
        source.read(clips.train[1], np.array([0, 2, 4, 6]), 13)
