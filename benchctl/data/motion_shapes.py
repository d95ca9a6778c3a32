"""Moving textured shapes: a generated data set in which only motion tells the class.

Eight classes in four time-reversed pairs (left and right, up and down, clockwise and counterclockwise, grow and shrink). Beside each
mp4 lies an npz of the same name: `flow` float16 (T-1, H, W, 2), forward optical flow as (x, y) in pixels; `flow_exists` bool
(T-1, H, W), false where the surface ceases to exist; `tracks` float32 (T, N, 3), x, y and visible. Flow and tracks follow from the
equations that drew the frames (`benchctl.data.shape_scene`), before encoding.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveInt

from benchctl.data import clip_set, manifest
from benchctl.data.clip_set import ClipRecord, ClipSet, Split
from benchctl.data.encode import write_mp4
from benchctl.data.shape_scene import CLASSES, draw_scene
from benchctl.data.tracks import scaled
from benchctl.errors import ClipUnreadable, DataMissing, MissingError, UsageError
from benchctl.spec import DatasetRef, Vocabulary

DATASET = "generated: moving textured shapes, eight motions in time-reversed pairs, with exact flow and point tracks"
#: left and right, clockwise and counterclockwise are classes
FLIP_SAFE = False

#: part of the folder's name: another way of drawing makes another data set
GENERATOR_VERSION = 1
_META = "meta.json"
_LIST = "clips.csv"
_TRACKED_POINTS = 32


class Options(Vocabulary):
    """What is generated."""

    train_clips_per_class: PositiveInt = 24
    test_clips_per_class: PositiveInt = 8
    frames: int = Field(24, ge=2)
    #: side of a frame in pixels
    size: int = Field(96, ge=32, multiple_of=2)
    fps: PositiveInt = 24
    seed: int = Field(0, ge=0)


def class_names(_options: Options) -> tuple[str, ...]:
    """The eight motions, in the order of their labels."""
    return tuple(sorted(CLASSES))


def locate(ref: DatasetRef, data_root: Path | None) -> Path | None:
    """A folder that was made before and put under the data root, or None."""
    return clip_set.locate(ref, data_root)


def prepare(ref: DatasetRef, cache: Path) -> Path:
    """Make the data set under `cache`, unless a complete one with the same options is there, and return its folder.

    It is made beside its place and renamed when complete, so an interrupted run leaves no half data set behind.

    Raises:
        MissingError: the disk is full or the folder cannot be written, or PyAV has no H.264 encoder.
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
        _generate(partial, options)
        (partial / _META).write_text(_json(meta), encoding="utf-8")
        partial.chmod(0o755)  # mkdtemp makes it private
        _put_in_place(partial, folder, meta)
    except OSError as error:
        what = f"cannot make motion_shapes: {error.strerror or error}"
        raise MissingError(what, where=str(cache), fix="free space there, or choose another cache folder") from error
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
        names = [key for key in wanted if made.get(key) != wanted[key]] or ["generator"]
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
    return {"generator": GENERATOR_VERSION, "options": options.model_dump(mode="json"), "classes": sorted(CLASSES)}


def _json(meta: dict[str, Any]) -> str:
    return json.dumps(meta, sort_keys=True, indent=1)


def _clips(options: Options) -> list[tuple[str, str, Split, int]]:
    """Every clip of the set: path, class, split, number."""
    splits: list[tuple[Split, int]] = [("train", options.train_clips_per_class), ("test", options.test_clips_per_class)]
    return [(f"{split}/{name}_{i:04d}.mp4", name, split, i) for split, clips in splits for name in CLASSES for i in range(clips)]


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


def _generate(folder: Path, options: Options) -> None:
    lines = ["path,class,split"]
    for path, name, split, number in _clips(options):
        rng = np.random.default_rng([options.seed, split == "test", CLASSES.index(name), number])
        scene = draw_scene(name, options.size, options.frames, rng)
        file = folder / path
        file.parent.mkdir(exist_ok=True)
        write_mp4(file, np.stack([scene.pixels(t) for t in range(options.frames)]), fps=options.fps)
        flows, exist = zip(*(scene.flow(t) for t in range(options.frames - 1)))
        truth = {
            "flow": np.stack(flows).astype(np.float16),
            "flow_exists": np.stack(exist),
            "tracks": scene.tracks(_TRACKED_POINTS, rng),
        }
        _write_npz(file.with_suffix(".npz"), truth)
        lines.append(f"{path},{name},{split}")
    (folder / _LIST).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_npz(path: Path, arrays: dict[str, Any]) -> None:
    """As numpy.savez_compressed, which would write the time of day into the file."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w") as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
