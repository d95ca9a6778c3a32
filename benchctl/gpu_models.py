"""What of a GPU decides how much memory a training step takes there: its multiprocessors, and whether it is a Hopper.

From NVIDIA's data sheets and CUDA's table of compute capabilities. Names are those of `gpu_rates`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

GpuName = Literal[
    "V100", "T4", "A10", "A6000", "A100", "RTX 3090", "RTX 4090", "RTX 6000 Ada", "L40S", "H100 PCIe", "H100 SXM", "H200", "B200"
]


@dataclass(frozen=True)
class GpuModel:
    """A kind of GPU."""

    multiprocessors: int
    #: threads that one multiprocessor holds at a time
    threads: int
    #: compute capability, its major part
    capability: int

    @property
    def hopper(self) -> bool:
        """Hopper or later: torch gives cuBLAS a larger workspace there, and lets cuDNN run half-precision attention."""
        return self.capability >= 9


#: what a prediction is for where nobody says
DEFAULT_GPU: GpuName = "A100"

GPUS: Mapping[GpuName, GpuModel] = MappingProxyType(
    {
        "V100": GpuModel(80, 2048, 7),
        "T4": GpuModel(40, 1024, 7),
        "A10": GpuModel(72, 1536, 8),
        "A6000": GpuModel(84, 1536, 8),
        "A100": GpuModel(108, 2048, 8),
        "RTX 3090": GpuModel(82, 1536, 8),
        "RTX 4090": GpuModel(128, 1536, 8),
        "RTX 6000 Ada": GpuModel(142, 1536, 8),
        "L40S": GpuModel(142, 1536, 8),
        "H100 PCIe": GpuModel(114, 2048, 9),
        "H100 SXM": GpuModel(132, 2048, 9),
        "H200": GpuModel(132, 2048, 9),
        "B200": GpuModel(148, 2048, 10),
    }
)
