"""The time of a training as measurements: GPU-seconds as they were, and as V100 GPU-seconds by every table of factors."""

from __future__ import annotations

from typing import Any

from benchctl.gpu_rates import TABLES, Factor, factor, normalised_seconds
from benchctl.record import Measurement

#: why a training on a CPU has no V100 GPU-seconds
ON_A_CPU = "trained on a CPU: CPU time is never normalised to a GPU"


def gpu_time_measurements(
    seconds: float, gpus: int, gpu_name: str | None, *, cpu_seconds: float | None = None
) -> tuple[list[Measurement], dict[str, Any]]:
    """Measurements of what a training took, and notes with the factors that were used.

    On GPUs: `gpu_seconds`, and `v100_gpu_seconds` of one kind for each table, with a value or the reason for none. On a CPU: `cpu_seconds`,
    and the reason why there are no V100 GPU-seconds.

    Args:
        seconds: wall-clock time of the training.
        gpus: how many GPUs it had; all of the same kind.
        gpu_name: as the driver or CUDA gives it; None: trained on a CPU.
        cpu_seconds: CPU time of the training's processes, over all threads; read only where it was trained on a CPU.

    Raises:
        ValueError: a training on a GPU without GPUs, or one on a CPU with GPUs.
    """
    if (gpu_name is None) != (gpus == 0) or gpus < 0:
        raise ValueError(f"{gpus} GPUs of the name {gpu_name}")
    if gpu_name is None:
        lacking = None if cpu_seconds is not None else "the CPU time was not read"
        return [
            Measurement(metric="cpu_seconds", value=cpu_seconds, device="cpu", reason=lacking),
            *(Measurement(metric="v100_gpu_seconds", value=None, kind=table, device="cpu", reason=ON_A_CPU) for table in TABLES),
        ], {}
    gpu_seconds = seconds * gpus
    found = [Measurement(metric="gpu_seconds", value=gpu_seconds, device="cuda")]
    factors: dict[str, Any] = {}
    for table in TABLES:
        known = factor(gpu_name, table)
        if isinstance(known, Factor):
            value, reason = normalised_seconds(gpu_seconds, known), None
            factors[table] = {"factor": known.value, "source": known.source}
        else:
            value, reason = None, known.reason
        found.append(Measurement(metric="v100_gpu_seconds", value=value, kind=table, device="cuda", reason=reason))
    return found, {"gpu": gpu_name, "gpus": gpus, "v100_factors": factors}
