"""How fast this machine trains: the rate of a workload that never changes, so that machines can be compared by measurement.

    vit-b16-fp16-v1    CUDA. A ViT-B/16 (width 768, 12 blocks, 12 heads) averaged over 8 frames of 224 x 224, 8 clips a step, forward in
                       fp16 autocast with a scaled loss, SGD with momentum, 10 steps to warm up and 30 timed.
    vit-ti16-fp32-v1   CPU. A ViT-Ti/16 (width 192, 12 blocks, 3 heads) over 4 frames of 112 x 112, 1 clip a step, fp32, SGD with momentum,
                       3 steps to warm up and 20 timed.

Fewer steps are timed where they take over 10 s in all. The model is written here and not taken from `methods`, and inputs are drawn before
the clock starts: a workload that changes gets a new name. Its attention is whatever kernel torch takes on the device. A rate is no factor:
only the ratio of two rates of one workload says how much faster one machine is, and a factor to the V100 needs the file of a V100.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationError
from torch import Tensor, nn

from benchctl.atomic_file import replacing
from benchctl.errors import BenchctlError, MissingError, UsageError
from benchctl.folders import cache_folder
from benchctl.probes.clock import Timing, time_calls
from benchctl.record import Record

CLASSES = 400
PATCH = 16
#: steps of a machine that does nothing else differ by less
STEADY_SPREAD = 0.1
#: no further step is timed after so long, once there are a few: a slow or busy machine ends in time too
LIMIT_SECONDS = 10.0
LEAST_STEPS = 5


@dataclass(frozen=True)
class Workload:
    """Training steps of one size."""

    name: str
    width: int
    blocks: int
    heads: int
    clips: int
    frames: int
    resolution: int
    warmup: int
    steps: int
    #: forward in fp16 autocast; else fp32
    half: bool


WORKLOADS: dict[Literal["cpu", "cuda"], Workload] = {
    "cuda": Workload("vit-b16-fp16-v1", 768, 12, 12, clips=8, frames=8, resolution=224, warmup=10, steps=30, half=True),
    "cpu": Workload("vit-ti16-fp32-v1", 192, 12, 3, clips=1, frames=4, resolution=112, warmup=3, steps=20, half=False),
}


class Calibration(Record):
    """What one device did. The file form is this class as JSON."""

    schema_version: Literal[1] = 1
    workload: str
    device: Literal["cpu", "cuda"]
    device_name: str
    #: clips of a step over the median of its seconds
    clips_per_second: float = Field(gt=0, allow_inf_nan=False)
    step_seconds_p50: float = Field(gt=0, allow_inf_nan=False)
    step_seconds_p90: float = Field(gt=0, allow_inf_nan=False)
    steps: int = Field(ge=1)
    #: of torch on the CPU
    threads: int = Field(ge=1)
    torch: str
    measured_at: str

    @property
    def spread(self) -> float:
        """How much longer than the median the slowest tenth of the steps took, at least, as a fraction of the median."""
        return self.step_seconds_p90 / self.step_seconds_p50 - 1


def measure(device: Literal["cpu", "cuda"], device_name: str, workload: Workload | None = None) -> Calibration:
    """Run the workload of the device.

    Args:
        device: where.
        device_name: what the device is called, by which the result is found again.
        workload: other sizes than those of `WORKLOADS`.

    Raises:
        RuntimeError: torch ran out of memory, among others.
    """
    asked = workload or WORKLOADS[device]
    synchronize: Callable[[], object] | None = torch.cuda.synchronize if device == "cuda" else None
    step = _training_step(asked, device)
    seconds: list[float] = []
    while len(seconds) < asked.steps and (len(seconds) < LEAST_STEPS or sum(seconds) < LIMIT_SECONDS):
        seconds += time_calls(step, warmup=0 if seconds else asked.warmup, repeats=1, synchronize=synchronize).samples_seconds
    timing = Timing(tuple(seconds))
    return Calibration(
        workload=asked.name,
        device=device,
        device_name=device_name,
        clips_per_second=asked.clips / timing.p50,
        step_seconds_p50=timing.p50,
        step_seconds_p90=timing.p90,
        steps=len(seconds),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def ratio(here: Calibration, there: Calibration) -> float:
    """How many times the clips per second of `there` `here` has.

    Raises:
        UsageError: they ran different workloads.
    """
    if here.workload != there.workload:
        raise UsageError(
            f"workload {there.workload} was run there and {here.workload} here, which cannot be compared",
            fix="run 'benchctl calibrate' of the same version on the same kind of device",
        )
    return here.clips_per_second / there.clips_per_second


def file_of(device_name: str) -> Path:
    """Where the calibration of a device is kept."""
    return cache_folder() / "calibration" / f"{re.sub('[^a-z0-9]+', '-', device_name.lower()).strip('-') or 'unnamed'}.json"


def store(found: Calibration) -> Path:
    """Keep it in the place of an earlier one of the same device, and say where.

    Raises:
        MissingError: the cache folder cannot be written.
    """
    file = file_of(found.device_name)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as whole:
            whole.write((found.model_dump_json(indent=2) + "\n").encode())
    except OSError as problem:
        raise MissingError(
            f"cannot be written: {problem.strerror}", where=str(file), fix="set BENCHCTL_CACHE to a folder of yours"
        ) from None
    return file


def load(file: Path) -> Calibration:
    """Read a file that `store` wrote.

    Raises:
        MissingError: it cannot be read.
        BenchctlError: it is not a calibration.
    """
    try:
        return Calibration.model_validate_json(file.read_bytes())
    except OSError as problem:
        raise MissingError(f"cannot be read: {problem.strerror}", where=str(file), fix="'benchctl calibrate' makes one") from None
    except ValidationError as problem:
        first = problem.errors()[0]
        what = ".".join(str(part) for part in first["loc"]) or "its JSON"
        raise BenchctlError(
            f"is not a calibration: {what}: {first['msg']}", where=str(file), fix="run 'benchctl calibrate' again"
        ) from None


class _Transformer(nn.Module):
    """A vision transformer of images, averaged over patches and frames."""

    def __init__(self, sizes: Workload) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, sizes.width, PATCH, stride=PATCH)
        self.places = nn.Parameter(torch.zeros((sizes.resolution // PATCH) ** 2, sizes.width))
        block = nn.TransformerEncoderLayer(
            sizes.width, sizes.heads, 4 * sizes.width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, sizes.blocks, nn.LayerNorm(sizes.width), enable_nested_tensor=False)
        self.classifier = nn.Linear(sizes.width, CLASSES)

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """Logits (B, classes)."""
        tokens = self.patches(clip_BTCHW.flatten(0, 1)).flatten(2).mT + self.places
        frames: Tensor = self.blocks(tokens).mean(dim=1)
        return self.classifier(frames.unflatten(0, clip_BTCHW.shape[:2]).mean(dim=1))


def _training_step(sizes: Workload, device: Literal["cpu", "cuda"]) -> Callable[[], None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _Transformer(sizes).to(device)
        clip = torch.randn(sizes.clips, sizes.frames, 3, sizes.resolution, sizes.resolution).to(device)
    labels = (torch.arange(sizes.clips) % CLASSES).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    scaler = torch.amp.GradScaler(device, enabled=sizes.half)

    def step() -> None:
        with torch.autocast(device, dtype=torch.float16, enabled=sizes.half):
            logits = model(clip)
        scaler.scale(F.cross_entropy(logits.float(), labels)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    return step
