"""Tracks of real mp4 files, filed by content, and read with clips."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchctl.data import loading, motion_shapes, track_files, tracks
from benchctl.data.clip_set import ClipRecord, ClipSet
from benchctl.data.content_files import VideoDigests
from benchctl.data.encode import write_mp4
from benchctl.data.loading import LoadSettings, train_batches
from benchctl.data.track_files import TrackSet, make
from benchctl.data.track_views import ExactTracks, PrecomputedTracks, check_tracks, chosen, track_source
from benchctl.errors import ClipUnreadable, DataMissing, MissingError
from benchctl.recipe import Recipe
from benchctl.spec import ClipTracks, DatasetRef
from benchctl.vocabulary import ClipShape

OPTIONS = {"train_clips_per_class": 1, "test_clips_per_class": 1, "frames": 10}


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetRef, Path, ClipSet]:
    options = motion_shapes.Options(**OPTIONS)
    ref = DatasetRef(name="motion_shapes", options=options.model_dump(mode="json"))
    root = motion_shapes.prepare(ref, tmp_path_factory.mktemp("cache"))
    return ref, root, motion_shapes.load(root, options)


@pytest.fixture(scope="session")
def tracked(shapes: tuple[DatasetRef, Path, ClipSet], tmp_path_factory: pytest.TempPathFactory) -> TrackSet:
    """The tracks of all its clips, made by two processes."""
    track_set = TrackSet(tmp_path_factory.mktemp("tracks"), "lucas-kanade")
    ended = list(make((*shapes[2].train, *shapes[2].test), track_set, processes=2))
    assert Counter(e.word for e in ended) == {"done": 16}
    return track_set


def test_what_is_there_is_not_made_again(shapes, tracked: TrackSet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(track_files, "of_video", lambda *_: pytest.fail("made again"))
    assert {e.word for e in make(shapes[2].train, tracked, processes=1)} == {"there"}


def test_files_hold_what_one_process_makes(shapes, tracked: TrackSet):
    clip = shapes[2].train[3]
    stored = np.load(tracked.file(VideoDigests(tracked.folder).of(clip.path)))
    assert np.array_equal(stored, track_files.of_video(clip.path, "lucas-kanade"))
    assert stored.shape[0] == 10
    assert stored.dtype == np.float32


def test_lucas_kanade_on_generated_motion(shapes, tracked: TrackSet):
    """Clips to the left and to the right: visible points that move by themselves do so the way of their class."""
    for clip in (c for c in shapes[2].train if shapes[2].classes[c.label] in ("left", "right")):
        found = np.load(tracked.file(VideoDigests(tracked.folder).of(clip.path)))[:, :12]
        both = (found[1:, :, 2] > 0) & (found[:-1, :, 2] > 0)
        step = np.median(np.diff(found[..., 0], axis=0)[both])
        assert np.sign(step) == {"left": -1, "right": 1}[shapes[2].classes[clip.label]]


def test_stopped_anywhere_it_goes_on(shapes, tmp_path: Path):
    track_set = TrackSet(tmp_path, "lucas-kanade")
    making = make(shapes[2].train, track_set, processes=2)
    assert next(making).word == "done"
    making.close()
    words = Counter(e.word for e in make(shapes[2].train, track_set, processes=1))
    assert words["there"] >= 1
    assert words["there"] + words["done"] == 8


def clip(path: Path) -> ClipRecord:
    return ClipRecord(path.name, path, 0, "train")


def test_blank_and_torn_videos_and_copies(tmp_path: Path):
    write_mp4(tmp_path / "blank.mp4", np.full((6, 48, 64, 3), 90, np.uint8), fps=10)
    (tmp_path / "copy.mp4").write_bytes((tmp_path / "blank.mp4").read_bytes())
    (tmp_path / "torn.mp4").write_bytes(b"not a video")
    track_set = TrackSet(tmp_path / "tracks", "lucas-kanade")
    clips = [clip(tmp_path / name) for name in ("blank.mp4", "torn.mp4", "copy.mp4", "gone.mp4")]
    ended = {e.clip.id: e for e in make(clips, track_set, processes=1)}
    assert {e.word for e in ended.values()} == {"unreadable"}
    assert ended["blank.mp4"].reason == ended["copy.mp4"].reason == "no point to track was found: no frame has a corner"
    assert ended["gone.mp4"].reason == "No such file or directory"
    assert track_set.missing(clips) == 0, "what was found to have none is not missing"
    source = PrecomputedTracks(4, 8, "lucas-kanade", DatasetRef(name="manifest"), track_set)
    with pytest.raises(ClipUnreadable, match="it has no tracks: no point to track was found"):
        source.length(clips[0])


def test_a_folder_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(MissingError, match=r"tracks cannot be written: .* or name another --folder"):
        list(make([clip(tmp_path / "file")], TrackSet(tmp_path / "file", "lucas-kanade"), processes=1))


def test_exact_tracks_are_those_beside_the_clip(shapes):
    ref, _, clips = shapes
    record = clips.train[0]
    with np.load(record.path.with_suffix(".npz")) as truth:
        expected = tracks.scaled(truth["tracks"], 96, 96)
    source = track_source(ClipTracks(estimator="exact", frames=3, points=32), ref)
    assert isinstance(source, ExactTracks)
    assert source.length(record) == 10
    assert np.array_equal(source.read(record, np.array([0, 4, 9]), None), expected[[0, 4, 9]])
    assert source.description == "exact, from motion_shapes"
    lost = ClipRecord("x", Path("/nowhere/train/x.mp4"), 0, "train")
    with pytest.raises(ClipUnreadable, match="no exact tracks beside it"):
        source.length(lost)


def test_which_points_are_read():
    there = np.arange(5, dtype=np.float32)[None, :, None] * np.ones((2, 1, 3), np.float32)
    assert chosen(there, 3, None)[0, :, 0].tolist() == [0, 1, 2]
    assert chosen(there, 12, None)[0, :, 0].tolist() == [0, 1, 2, 3, 4] * 2 + [0, 1]
    drawn = [chosen(there, 2, np.random.default_rng(seed))[0, :, 0].tolist() for seed in range(40)]
    assert {point for pair in drawn for point in pair} == {0, 1, 2, 3}, "from the first 2 N"
    assert all(len(set(pair)) == 2 for pair in drawn)


def test_tracks_come_with_batches(shapes, tracked: TrackSet):
    ref, _, clips = shapes
    source = PrecomputedTracks(6, 9, "lucas-kanade", ref, tracked)
    recipe = Recipe(eval_clips=2, eval_crops=3)
    both = LoadSettings(ClipShape(frames=4, resolution=32, batch_size=4), recipe, tracks=source)
    batch = next(train_batches(clips, both, seed=0))
    assert [tuple(t.shape) for t in batch.inputs] == [(4, 4, 3, 32, 32), (4, 6, 9, 3)]
    tested = next(loading.test_batches(clips, both))
    assert [tuple(t.shape) for t in tested.inputs] == [(4, 6, 4, 3, 32, 32), (4, 6, 6, 9, 3)]
    assert np.array_equal(tested.inputs[1][:, 0], tested.inputs[1][:, 2]), "crops of one view share its tracks"
    alone = LoadSettings(ClipShape(frames=6, resolution=1, batch_size=4), recipe, tracks=source, pixels=False)
    only = next(train_batches(clips, alone, seed=0))
    assert [tuple(t.shape) for t in only.inputs] == [(4, 6, 9, 3)]
    assert float(only.inputs[0][..., :2].abs().max()) <= 1.001


def test_clips_without_tracks_are_an_error_before_the_start(shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ref, root, clips = shapes
    monkeypatch.setenv("BENCHCTL_TRACKS", str(tmp_path))
    asked = ClipTracks(estimator="lucas-kanade", frames=4, points=8)
    with pytest.raises(DataMissing) as error:
        check_tracks(asked, ref, root)
    assert str(error.value) == (
        f"16 of 16 clips have no tracks (lucas-kanade) under {tmp_path}; run 'benchctl data tracks motion_shapes "
        f"--set train_clips_per_class=1 --set test_clips_per_class=1 --set frames=10 --root {root} --estimator lucas-kanade'"
    )
    settings = LoadSettings(ClipShape(frames=4, resolution=8), Recipe(), tracks=track_source(asked, ref), pixels=False)
    with pytest.raises(DataMissing, match="16 of 16 clips have no tracks"):
        train_batches(clips, settings, seed=0)
