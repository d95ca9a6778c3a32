"""Optical flow that was estimated beforehand: how its files are named, found and made.

A set is the flow by one estimator with one choice of weights at one stride, a folder `SET` with `about.json`. It holds a file for each
video, `SET/ab/abcd....npy`: float16 (F, 2, h, w), for every frame i the flow (x, y) from it to frame min(i + stride, F - 1), in pixels
of h x w: the size of the video, scaled down to a short side of 256 pixels where that is larger. How files are named and kept is said in
`benchctl.data.content_files`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from benchctl.atomic_file import replacing
from benchctl.data.clip_set import ClipRecord
from benchctl.data.content_files import ContentSet, Ended, read_json, writing
from benchctl.data.decode import ClipInfo, Frames, decode, probe
from benchctl.data.transforms import interpolated, scaled_size
from benchctl.errors import ClipUnreadable, MissingError, ShapeError, UsageError
from benchctl.spec import ClipFlow, FlowEstimatorName

if TYPE_CHECKING:
    import torch

#: part of a set's name: files of another meaning are other files
FORMAT_VERSION = 1
#: short side of the frames that flow is estimated on, at most
SHORT_SIDE = 256
#: frames of one clip that are held at a time may take this much memory
FRAMES_BYTES = 512 * 2**20
#: pairs of frames that are estimated at a time
PAIRS_AT_ONCE = 16
#: clips that are looked into before the start, to say how much will be written
_SAMPLED_CLIPS = 8
#: float16 ends at 65504; no flow is as large
_LARGEST = 6e4
_ABOUT = "about.json"

# N pairs of frames, 2 frames of a pair
#: float32 (N, 2, 3, H, W) of values 0 ... 1 to float32 (N, 2, H, W), flow from the first to the second
Estimate: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"


@dataclass(frozen=True)
class FlowSet(ContentSet):
    """One set of flow files; it need not exist yet."""

    WHAT: ClassVar[str] = "flow"

    estimator: FlowEstimatorName
    #: where the estimator's weights come from, as the estimator itself says; None: it has none
    weights: str | None
    stride: int

    @property
    def path(self) -> Path:
        """Its folder."""
        identity = json.dumps([FORMAT_VERSION, self.estimator, self.weights, self.stride])
        return self.folder / f"{self.estimator}-stride{self.stride}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"

    def announce(self, asked: str | None) -> None:
        """Write what the set is, and that its weights were `asked` for under this name, so that `find` finds it.

        Raises:
            MissingError: the folder cannot be written.
        """
        about: dict[str, Any] = _about(self.path / _ABOUT) or {
            "format": FORMAT_VERSION,
            "estimator": self.estimator,
            "weights": self.weights,
            "stride": self.stride,
            "asked": [],
        }
        if asked in about["asked"]:
            return
        with writing(self.path, self.WHAT):
            self.path.mkdir(parents=True, exist_ok=True)
            with replacing(self.path / _ABOUT) as file:
                file.write(json.dumps({**about, "asked": [*about["asked"], asked]}, indent=1).encode())


def find(folder: Path, flow: ClipFlow, stride: int) -> FlowSet | None:
    """The set under `folder` that a method asks for, or None. Its weights may be named as they were asked for, or as the set has them.

    Raises:
        UsageError: two sets answer, since what the name stands for has changed.
    """
    found: list[FlowSet] = []
    for file in sorted(folder.glob(f"{flow.estimator}-stride{stride}-*/{_ABOUT}")):
        about = _about(file)
        if about is None or (about["estimator"], about["stride"]) != (flow.estimator, stride):
            continue
        if flow.weights in about["asked"] or flow.weights == about["weights"]:
            found.append(FlowSet(folder, about["estimator"], about["weights"], about["stride"]))
    if len(found) > 1:
        both = " and ".join(sorted(f"'{each.weights}'" for each in found))
        raise UsageError(f"flow by {flow.estimator} is there with the weights {both}", where=str(folder), fix="delete one of the folders")
    return found[0] if found else None


def _about(file: Path) -> dict[str, Any] | None:
    """What a set says of itself; None: nothing, or nothing that can be read."""
    about = read_json(file)
    known = about is not None and about.get("format") == FORMAT_VERSION and {"estimator", "weights", "stride", "asked"} <= set(about)
    return about if known else None


# ---- making ----


def make(clips: Sequence[ClipRecord], flow_set: FlowSet, estimate: Estimate) -> Iterator[Ended]:
    """Estimate the flow of every clip that has none, and say of each how it ended. Stopped anywhere, it goes on where it was.

    Raises:
        MissingError: the folder cannot be written, or the disk has too little space for what is estimated to come.
        ShapeError: the estimator cannot take the first clip; a later one is only left out.
    """
    todo: dict[str, list[ClipRecord]] = {}
    any_flow = False
    for known in flow_set.by_content(clips, todo):
        any_flow |= known.word == "there"
        yield known
    _check_space(flow_set, [same[0] for same in todo.values()])
    for digest, same in todo.items():
        try:
            ended = _made(same[0], digest, flow_set, estimate)
        except ShapeError as error:
            if not any_flow:
                raise ShapeError(error.what, where=same[0].id, fix=error.fix) from None
            ended = flow_set.noted(same[0], digest, error)
        any_flow |= ended.word == "done"
        yield ended
        yield from ended.of_copies(same[1:])


def _made(clip: ClipRecord, digest: str, flow_set: FlowSet, estimate: Estimate) -> Ended:
    file = flow_set.file(digest)
    with writing(file, flow_set.WHAT):
        file.parent.mkdir(exist_ok=True)
        try:
            with replacing(file) as out:
                _write(clip.path, out, flow_set.stride, estimate)
        except ClipUnreadable as error:
            return flow_set.noted(clip, digest, error)
        flow_set.note(digest).unlink(missing_ok=True)
        return Ended(clip, "done", file.stat().st_size)


def _write(path: Path, out: BinaryIO, stride: int, estimate: Estimate) -> None:
    """The flow of a video as an .npy file, piece by piece."""
    info = probe(path)
    size = stored_size(info)
    descr = np.lib.format.dtype_to_descr(np.dtype("<f2"))
    np.lib.format.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": (info.frames, 2, *size)})
    for flow in _pieces(info, size, stride, estimate):
        out.write(np.ascontiguousarray(flow, "<f2").tobytes())


def stored_size(info: ClipInfo) -> tuple[int, int]:
    """(height, width) that the flow of a video is stored at."""
    return scaled_size(info.height, info.width, min(SHORT_SIDE, info.height, info.width))


def _pieces(info: ClipInfo, size: tuple[int, int], stride: int, estimate: Estimate) -> Iterator[npt.NDArray[np.float32]]:
    """Flow (n, 2, h, w) from every frame in order, some frames at a time.

    Memory does not grow with the length of the clip. A video in which decord cannot seek is decoded from its start for each piece.
    """
    import torch

    held = max(1, FRAMES_BYTES // (3 * (info.height * info.width + size[0] * size[1])))
    length, last = max(1, held // 2), info.frames - 1  # a pair holds two frames at most
    for start in range(0, info.frames, length):
        first = np.arange(start, min(start + length, info.frames))
        second = np.minimum(first + stride, last)
        wanted = np.unique([first, second])
        frames = torch.from_numpy(_scaled(decode(info.path, wanted, info=info), size)).permute(0, 3, 1, 2)
        for n in range(0, len(first), PAIRS_AT_ONCE):
            a, b = first[n : n + PAIRS_AT_ONCE], second[n : n + PAIRS_AT_ONCE]
            flow = np.zeros((len(a), 2, *size), np.float32)
            moves = a < b  # from the last frame to itself nothing moves
            if moves.any():
                pairs = frames[torch.from_numpy(np.searchsorted(wanted, np.stack([a[moves], b[moves]], axis=1)))]
                found = estimate(pairs.float() / 255).float().cpu().numpy()
                flow[moves] = np.clip(np.nan_to_num(found), -_LARGEST, _LARGEST)
            yield flow


def _scaled(frames: Frames, size: tuple[int, int]) -> Frames:
    """uint8 frames (T, H, W, 3) at `size`, a few at a time."""
    import torch

    if frames.shape[1:3] == size:
        return frames
    scaled = np.empty((len(frames), *size, 3), np.uint8)
    for start in range(0, len(frames), PAIRS_AT_ONCE):
        some = torch.from_numpy(frames[start : start + PAIRS_AT_ONCE]).permute(0, 3, 1, 2).float()
        scaled[start : start + PAIRS_AT_ONCE] = interpolated(some, size).round().clamp(0, 255).permute(0, 2, 3, 1).numpy()
    return scaled


def _check_space(flow_set: FlowSet, clips: Sequence[ClipRecord]) -> None:
    """Raise MissingError where the flow of `clips`, judged by some of them, is more than the disk has free."""
    chosen = [clips[i] for i in np.unique(np.linspace(0, len(clips) - 1, _SAMPLED_CLIPS).astype(int))] if clips else []
    sizes: list[int] = []
    for clip in chosen:
        try:
            info = probe(clip.path)
        except ClipUnreadable:
            continue
        height, width = stored_size(info)
        sizes.append(info.frames * 2 * height * width * 2)  # x and y, two bytes each
    if not sizes:
        return
    needed, free = len(clips) * sum(sizes) / len(sizes), shutil.disk_usage(flow_set.folder).free
    if needed > free:
        what = f"the flow of {len(clips)} clips needs about {needed / 2**30:,.2f} GiB, and {free / 2**30:,.2f} GiB are free"
        raise MissingError(what, where=str(flow_set.folder), fix="free space there, or name another --folder")
