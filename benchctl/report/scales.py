"""Axes of figures in units that read well, and where their ticks stand."""

from __future__ import annotations

import math
from dataclasses import dataclass

_MOST_TICKS = 6
#: largest first: FLOPs, and how many there are in one
_FLOPS = (("EFLOPs", 1e18), ("PFLOPs", 1e15), ("TFLOPs", 1e12), ("GFLOPs", 1e9), ("MFLOPs", 1e6))
_TIMES = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
_ENERGIES = (("kWh", 3.6e6), ("kJ", 1e3), ("J", 1.0))
_COUNTS = {"steps": "steps", "samples": "clips seen", "frames_seen": "frames seen", "v100_gpu_hours": "V100-hours"}


@dataclass(frozen=True)
class Scale:
    """What an axis says, and how many base units there are in one of its own."""

    title: str
    size: float


def of_budget(match_on: str, largest: float) -> Scale:
    """The axis of what is matched, up to `largest` in the unit of its amount."""
    if match_on == "train_gflops":
        scale = of_flops(largest * 1e9)
        return Scale(scale.title, scale.size / 1e9)
    if match_on in ("wall_seconds", "energy_j"):
        title, size = _fitting(_TIMES if match_on == "wall_seconds" else _ENERGIES, largest)
        return Scale(f"training time ({title})" if match_on == "wall_seconds" else f"energy ({title})", size)
    return Scale(_COUNTS.get(match_on, match_on), 1.0)


def of_flops(largest: float) -> Scale:
    """The axis of operations of training, up to `largest`."""
    title, size = _fitting(_FLOPS, largest)
    return Scale(f"train {title}", size)


def _fitting(units: tuple[tuple[str, float], ...], largest: float) -> tuple[str, float]:
    return next((unit for unit in units if largest >= unit[1]), units[-1])


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis: 1, 2 and 5 in each decade, fewer where that would be many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [digit * 10.0**decade for decade in decades for digit in digits]
        inside = [tick for tick in ticks if low <= tick * (1 + 1e-9) and tick <= high * (1 + 1e-9)]
        if len(inside) <= _MOST_TICKS:
            break
    step = 1 + (len(inside) - 1) // _MOST_TICKS
    return inside[::step]


def written(number: float) -> str:
    """A tick, in full where that is short."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"
