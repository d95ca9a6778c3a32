"""Loading clips to train on, against a plain loop over decord: clips per second of a core, as a ratio.

The plain loop opens each video with decord, decodes the sampled frames at full size, resizes them with torch or with OpenCV, crops and
normalises. Both get the same clips, the same frames and the same crops, in turns in the same process, each on one thread. Time is the
process's own on the CPU, which a busy machine does not stretch as it does the clock's. Clips are read from the disk's cache, each time
anew: none is kept in memory.

Clips are the ordinary ones of `$BENCHCTL_DATA/clips`; where they are absent, H.264 files of 640 x 360 pixels with B-frames, as cameras
and sites write them, are made of a picture that moves.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from side_by_side import one_thread

from benchctl.data.clip_set import ClipRecord
from benchctl.data.decode import Frames, probe
from benchctl.data.loading import ClipDataset, LoadSettings
from benchctl.data.sampling import train_indices
from benchctl.data.transforms import Normalisation, drawn_view
from benchctl.recipe import Recipe
from benchctl.vocabulary import ClipShape

ORDINARY = ("mma_part_0.mp4", "mma_test.mp4", "mma_demo_k400.mp4", "k400_Tw2yXa6CzWE.mp4", "cot_cat.mp4", "skv_bikes.mp4")
SETTINGS = LoadSettings(ClipShape(frames=8, resolution=224, batch_size=8), Recipe(), kept_bytes=0)
ROUNDS, EPOCHS = 5, 2
FASTER = 1.5

Resize = Callable[[Frames, tuple[int, int]], torch.Tensor]


def with_torch(frames: Frames, size: tuple[int, int]) -> torch.Tensor:
    """float32 (T, 3, h, w): bilinear with antialiasing."""
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    return torch.nn.functional.interpolate(clip, size=size, mode="bilinear", align_corners=False, antialias=True)


def with_opencv(frames: Frames, size: tuple[int, int]) -> torch.Tensor:
    """float32 (T, 3, h, w): bilinear, which is not antialiased, or by areas where it shrinks."""
    import cv2

    way = cv2.INTER_AREA if size[0] < frames.shape[1] else cv2.INTER_LINEAR
    clip = np.stack([cv2.resize(frame, size[::-1], interpolation=way) for frame in frames])
    return torch.from_numpy(clip).permute(0, 3, 1, 2).float()


def plain(records: tuple[ClipRecord, ...], resize: Resize, epoch: int) -> list[torch.Tensor]:
    """The clips of an epoch, by the plain loop."""
    import decord

    normalisation, shape = Normalisation(), SETTINGS.shape
    mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (normalisation.mean, normalisation.std))
    clips = []
    for index, record in enumerate(records):
        rng = np.random.default_rng([0, epoch, index])
        reader = decord.VideoReader(str(record.path), num_threads=1)
        frames = reader.get_batch(train_indices("segment", len(reader), shape.frames, 1, rng)[0]).asnumpy()
        view = drawn_view((frames.shape[1], frames.shape[2]), shape.resolution, rng)
        resized = resize(frames, view.scaling.size)
        cut = resized[:, :, view.top : view.top + shape.resolution, view.left : view.left + shape.resolution]
        clips.append((cut - mean) / std)
    return clips


def moving(path: Path, seed: int) -> None:
    """A video of five seconds in which a detailed picture moves, encoded as x264 does unless told otherwise."""
    import av

    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (1, 3, 50, 90), dtype=np.uint8)
    large = torch.nn.functional.interpolate(torch.from_numpy(coarse), size=(500, 900), mode="bicubic")[0].permute(1, 2, 0).numpy()
    noise = rng.integers(-12, 13, large.shape)
    picture = np.clip(large.astype(np.int16) + noise, 0, 255).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for t in range(150):
            y, x = int(70 + 60 * np.sin(t / 20 + seed)), int(130 + 120 * np.cos(t / 25))
            frame = np.ascontiguousarray(picture[y : y + 360, x : x + 640])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> tuple[ClipRecord, ...]:
    folder = Path(os.environ.get("BENCHCTL_DATA") or Path(__file__).parents[2] / "shared" / "data") / "clips"
    paths = [folder / name for name in ORDINARY]
    if not all(path.is_file() for path in paths):
        made = tmp_path_factory.mktemp("clips")
        paths = [made / f"{i}.mp4" for i in range(4)]
        for seed, path in enumerate(paths):
            moving(path, seed)
    return tuple(ClipRecord(path.name, path, 0, "train") for path in paths)


def seconds(run: Callable[[int], object], epoch: int) -> float:
    start = time.process_time()
    run(epoch)
    return time.process_time() - start


def test_against_a_plain_decord_loop(benchmark: BenchmarkFixture, records: tuple[ClipRecord, ...]) -> None:
    pytest.importorskip("decord")
    import cv2

    cv2.setNumThreads(1)
    dataset = ClipDataset(records, SETTINGS, seed=0)

    def ours(epoch: int) -> list[torch.Tensor]:
        items = [dataset[epoch, index, 0] for index in range(len(records))]
        return [item.inputs[0] for item in items if item.inputs is not None]

    ways: dict[str, Callable[[int], object]] = {
        "ours": ours,
        "decord and torch": lambda epoch: plain(records, with_torch, epoch),
        "decord and OpenCV": lambda epoch: plain(records, with_opencv, epoch),
    }
    with one_thread():
        # the same clips, up to whole grey levels; the first pass also probes each file, which is done once
        assert len(ours(0)) == len(records)
        for mine, theirs in zip(ours(0), plain(records, with_torch, 0)):
            assert (mine - theirs).abs().mean() < 0.35 / 255 / 0.22
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(ROUNDS):
            for name, run in ways.items():
                taken[name].append(seconds(run, turn % EPOCHS))
        benchmark.pedantic(ours, args=(0,), rounds=2)
    rates = {name: len(records) / statistics.median(times) for name, times in taken.items()}
    times_faster = {
        name: statistics.median(other / own for other, own in zip(taken[name], taken["ours"])) for name in ways if name != "ours"
    }
    print("\n" + ", ".join(f"{name} {rate:.1f} clips a core second" for name, rate in rates.items()))
    print(", ".join(f"{found:.2f} times as fast as {name}" for name, found in times_faster.items()))
    print(f"frames: {', '.join(f'{r.id} {probe(r.path).frames}' for r in records)}")
    benchmark.extra_info.update(times_faster)
    assert times_faster["decord and torch"] >= FASTER
