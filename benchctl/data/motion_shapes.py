"""Moving textured shapes: a generated data set in which only motion tells the class.

The difficulty "plain" has eight classes in four time-reversed pairs (left and right, up and down, clockwise and counterclockwise, grow
and shrink). "easy", "medium" and "hard" have eighteen in nine pairs of opposites, from few large shapes that move fast to many small ones
of little contrast that move slowly, with others that move otherwise, under a camera that shakes.

Beside each mp4 lies an npz of the same name: `flow` float16 (T-1, H, W, 2), forward optical flow as (x, y) in pixels; `flow_exists` bool
(T-1, H, W), false where the surface ceases to exist; `tracks` float32 (T, N, 3), x, y and visible. Flow and tracks follow from the
equations that drew the frames (`benchctl.data.shape_scene`, `benchctl.data.shape_couples`), before encoding.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import signal
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveInt, SerializerFunctionWrapHandler, ValidationInfo, field_validator, model_serializer

from benchctl.data import clip_set, manifest, shape_couples, shape_scene
from benchctl.data.clip_set import ClipRecord, ClipSet, Split
from benchctl.data.encode import write_mp4
from benchctl.data.shape_couples import draw_clip
from benchctl.data.shape_scene import Scene, draw_scene
from benchctl.data.tracks import scaled
from benchctl.errors import ClipUnreadable, DataMissing, MissingError, UsageError, unknown
from benchctl.spec import DatasetRef
from benchctl.vocabulary import Vocabulary

DATASET = "generated: moving textured shapes, motions in pairs of opposites, with exact flow and point tracks"
#: left and right, clockwise and counterclockwise are classes
FLIP_SAFE = False

#: part of the folder's name: another way of drawing makes another data set
GENERATOR_VERSION = 1
#: the same, of the difficulties other than plain
COUPLES_VERSION = 1
_META = "meta.json"
_LIST = "clips.csv"
_TRACKED_POINTS = 32
#: pixels that are worth the start of another process, about three seconds of drawing
_PIXELS_PER_PROCESS = 10_000_000

Difficulty = Literal["plain", shape_couples.Difficulty]
#: told how many clips are done, of how many
Progress = Callable[[int, int], None]


class Options(Vocabulary):
    """What is generated."""

    train_clips_per_class: PositiveInt = 24
    test_clips_per_class: PositiveInt = 8
    frames: int = Field(24, ge=2)
    #: side of a frame in pixels
    size: int = Field(96, ge=32, multiple_of=2)
    fps: PositiveInt = 24
    seed: int = Field(0, ge=0)
    difficulty: Difficulty = "plain"
    #: pairs of motions, for example left/right; none: all that the difficulty has
    motions: tuple[str, ...] = ()

    @field_validator("motions", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("motions")
    @classmethod
    def _known(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """In one order, so that the same motions are the same data set."""
        if "difficulty" not in info.data:  # it is wrong itself
            return value
        known = ["/".join(pair) for pair in _pairs(info.data["difficulty"])]
        for name in value:
            if name not in known:
                raise unknown("motion", name, known, where="motions")
        return tuple(name for name in known if name in value)

    @model_serializer(mode="wrap")
    def _as_before(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what stands at its default and came later, so that cells and folders keep their names."""
        fields: dict[str, Any] = written(self)
        return {key: value for key, value in fields.items() if not (key in ("difficulty", "motions") and value in ("plain", (), []))}

    @property
    def classes(self) -> tuple[str, ...]:
        """The motions, each beside its opposite."""
        pairs = _pairs(self.difficulty)
        return tuple(name for pair in pairs if not self.motions or "/".join(pair) in self.motions for name in pair)


def _pairs(difficulty: Difficulty) -> tuple[tuple[str, str], ...]:
    return shape_scene.PAIRS if difficulty == "plain" else shape_couples.PAIRS


def class_names(options: Options) -> tuple[str, ...]:
    """The motions, in the order of their labels."""
    return tuple(sorted(options.classes))


def locate(ref: DatasetRef, data_root: Path | None) -> Path | None:
    """A folder that was made before and put under the data root, or None."""
    return clip_set.locate(ref, data_root)


def prepare(ref: DatasetRef, cache: Path, progress: Progress | None = None) -> Path:
    """Make the data set under `cache`, unless a complete one with the same options is there, and return its folder.

    It is made beside its place and renamed when complete, so an interrupted run leaves no half data set behind. A large one is made by
    a process for each core; the bytes are the same for any number. `progress` is told of each clip.

    Raises:
        MissingError: the disk is full or the folder cannot be written, PyAV has no H.264 encoder, or a process was killed.
    """
    options = Options.model_validate(ref.options)
    meta = _meta(options)
    folder = cache / f"motion_shapes-{hashlib.sha256(_json(meta).encode()).hexdigest()[:12]}"
    if _complete(folder, meta):
        return folder
    partial: Path | None = None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=cache))
        _generate(partial, options, _processes(options), progress)
        (partial / _META).write_text(_json(meta), encoding="utf-8")
        partial.chmod(0o755)  # mkdtemp makes it private
        _put_in_place(partial, folder, meta)
    except OSError as error:
        what = f"cannot make motion_shapes: {error.strerror or error}"
        raise MissingError(what, where=str(cache), fix="free space there, or choose another cache folder") from error
    except BrokenProcessPool:
        what = "cannot make motion_shapes: a process that drew clips was killed"
        raise MissingError(what, where=str(cache), fix="see whether memory ran out, and run it again") from None
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def load(root: Path, options: Options) -> ClipSet:
    """The clips that were generated under `root`.

    Raises:
        DataMissing: the folder holds no complete data set.
        UsageError: it was made with other options.
    """
    try:
        found = json.loads(clip_set.read_text(root / _META))
    except json.JSONDecodeError:
        raise DataMissing("torn meta.json", where=str(root / _META), fix="delete the folder; it is made again") from None
    if found != _meta(options):
        wanted, made = _meta(options)["options"], found.get("options", {}) if isinstance(found, dict) else {}
        names = [key for key in Options.model_fields if made.get(key) != wanted.get(key)] or ["generator"]
        fix = "delete it, or set the suite's options to those in meta.json"
        raise UsageError(f"made with another {', '.join(names)}", where=str(root), fix=fix)
    return manifest.load_as("motion_shapes", root, manifest.Options(file=_LIST))


def exact_flow(clip: ClipRecord, indices: Sequence[int]) -> npt.NDArray[np.float32]:
    """Optical flow from each frame of `indices` to the next of them: (len(indices) - 1, H, W, 2), x and y in pixels of the file.

    From one frame of the file to the next it is the scene's own, as stored. Further apart, each pixel is followed from frame to frame,
    with bilinear lookup at the place it has come to, until its surface ceases or it leaves the picture. Flow is linear on each surface,
    so this is exact, up to the rounding of the stored half precision (2e-3 pixels a frame), as long as the four pixels around that place
    show the surface; a point that another shape covers or whose outline it is next to is drawn along with what is seen there.

    Raises:
        ClipUnreadable: the file beside the clip that holds its flow is missing or torn.
    """
    try:
        with np.load(clip.path.with_suffix(".npz")) as truth:
            flow, exists = truth["flow"].astype(np.float32), truth["flow_exists"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ClipUnreadable(f"no exact flow beside it ({type(error).__name__})", where=str(clip.path.with_suffix(".npz"))) from error
    found = np.zeros((len(indices) - 1, *flow.shape[1:]), np.float32)
    for pair, (first, second) in enumerate(itertools.pairwise(indices)):
        found[pair] = _followed(flow[first:second], exists[first:second])
    return found


def exact_tracks(clip: ClipRecord) -> npt.NDArray[np.float32]:
    """Point tracks through all frames of the file: (F, 32, 3), x and y from -1 (left, top) to 1, and 1 where visible, else 0.

    Raises:
        ClipUnreadable: the file beside the clip that holds them, or the data set's description, is missing or torn.
    """
    try:
        with np.load(clip.path.with_suffix(".npz")) as truth:
            tracks = truth["tracks"]
        size = _side(clip.path.parent.parent / _META)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ClipUnreadable(f"no exact tracks beside it ({type(error).__name__})", where=str(clip.path.with_suffix(".npz"))) from error
    return scaled(tracks, size, size)


@cache
def _side(meta: Path) -> int:
    """Side of a frame in pixels."""
    return int(json.loads(meta.read_text(encoding="utf-8"))["options"]["size"])


def _followed(flow: npt.NDArray[np.float32], exists: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """How far each pixel comes through consecutive flows (K, H, W, 2) that exist where (K, H, W): (H, W, 2)."""
    height, width = flow.shape[1:3]
    rows, columns = np.mgrid[0:height, 0:width]
    start = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float32)
    places, limit = start.copy(), np.array([width, height], np.float32) - 0.5
    goes_on = np.ones(len(places), np.bool_)
    for step, there in zip(flow, exists):
        x, y = np.rint(places).astype(int).clip(0, [width - 1, height - 1]).T
        goes_on &= np.all((places >= -0.5) & (places < limit), axis=1) & there[y, x]
        places[goes_on] += _bilinear(step, places[goes_on])
    return (places - start).reshape(height, width, 2)


def _bilinear(image: npt.NDArray[np.float32], points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """`image` (H, W, C) at `points` (N, 2) as x, y, to (N, C); outside the centres of its pixels, as at the nearest place inside."""
    corner = np.array([image.shape[1] - 1, image.shape[0] - 1], np.float32)
    points = points.clip(0, corner)
    left, top = np.minimum(points, corner - 1).astype(int).T
    a, b = (points - np.stack([left, top], axis=1)).T[:, :, None]
    upper = (1 - a) * image[top, left] + a * image[top, left + 1]
    lower = (1 - a) * image[top + 1, left] + a * image[top + 1, left + 1]
    return (1 - b) * upper + b * lower


def _meta(options: Options) -> dict[str, Any]:
    version = {"generator": GENERATOR_VERSION} if options.difficulty == "plain" else {"couples": COUPLES_VERSION}
    return {**version, "options": options.model_dump(mode="json"), "classes": sorted(options.classes)}


def _json(meta: dict[str, Any]) -> str:
    return json.dumps(meta, sort_keys=True, indent=1)


def _clips(options: Options) -> list[tuple[str, str, Split, int]]:
    """Every clip of the set: path, class, split, number."""
    splits: list[tuple[Split, int]] = [("train", options.train_clips_per_class), ("test", options.test_clips_per_class)]
    return [(f"{split}/{name}_{i:04d}.mp4", name, split, i) for split, clips in splits for name in options.classes for i in range(clips)]


def _complete(folder: Path, meta: dict[str, Any]) -> bool:
    try:
        if (folder / _META).read_text(encoding="utf-8") != _json(meta):
            return False
    except OSError:
        return False
    files = [folder / path for path, *_ in _clips(Options.model_validate(meta["options"]))]
    return all(file.is_file() and file.with_suffix(".npz").is_file() for file in files) and (folder / _LIST).is_file()


def _put_in_place(partial: Path, folder: Path, meta: dict[str, Any]) -> None:
    """Rename `partial` to `folder`, unless another process was faster."""
    if _complete(folder, meta):
        return
    shutil.rmtree(folder, ignore_errors=True)  # somebody took files out of it
    try:
        partial.rename(folder)
    except OSError:
        if not _complete(folder, meta):
            raise


def _processes(options: Options) -> int:
    """One per core, as far as each has enough to do."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pixels = len(_clips(options)) * options.frames * options.size**2
    return max(1, min(cores, pixels // _PIXELS_PER_PROCESS))


def _generate(folder: Path, options: Options, processes: int = 1, progress: Progress | None = None) -> None:
    clips = _clips(options)
    for path, *_ in clips:
        (folder / path).parent.mkdir(exist_ok=True)
    for done, _ in enumerate(_each_written(folder, options, clips, processes), 1):
        if progress is not None:
            progress(done, len(clips))
    lines = ["path,class,split", *(f"{path},{name},{split}" for path, name, split, _ in clips)]
    (folder / _LIST).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _each_written(folder: Path, options: Options, clips: Sequence[tuple[str, str, Split, int]], processes: int) -> Iterator[None]:
    """Write the clips and yield after each, in any order."""
    if processes == 1:
        for clip in clips:
            _write_clip(folder, options, *clip)
            yield
        return
    # a forked child would inherit the locks of decoders' threads in whatever state they were
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_follow_parent)
    try:
        for future in as_completed([pool.submit(_write_clip, folder, options, *clip) for clip in clips]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    """In a process that writes clips: leave Ctrl-C to the parent, and end when the parent does, be it killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _write_clip(folder: Path, options: Options, path: str, name: str, split: Split, number: int) -> None:
    scene, rng = _scene(options, name, split, number)
    write_mp4(folder / path, np.stack([scene.pixels(t) for t in range(options.frames)]), fps=options.fps)
    flows, exist = zip(*(scene.flow(t) for t in range(options.frames - 1)))
    truth = {
        "flow": np.stack(flows).astype(np.float16),
        "flow_exists": np.stack(exist),
        "tracks": scene.tracks(_TRACKED_POINTS, rng),
    }
    _write_npz((folder / path).with_suffix(".npz"), truth)


def _scene(options: Options, name: str, split: Split, number: int) -> tuple[Scene, np.random.Generator]:
    """A clip's scene, and what its tracks are drawn with. Which other motions the set has makes no difference."""
    if options.difficulty == "plain":
        rng = np.random.default_rng([options.seed, split == "test", shape_scene.CLASSES.index(name), number])
        return draw_scene(name, options.size, options.frames, rng), rng
    level = 1 + list(shape_couples.LEVELS).index(options.difficulty)
    rng = np.random.default_rng([options.seed, split == "test", shape_couples.CLASSES.index(name), number, level])
    return draw_clip(name, options.difficulty, options.size, options.frames, rng).scene, rng


def _write_npz(path: Path, arrays: dict[str, Any]) -> None:
    """As numpy.savez_compressed, which would write the time of day into the file."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w") as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
