"""The layers of `bench_stss.py` and `bench_window.py` against unfold-then-multiply on a GPU: median time and peak memory, as ratios.

python benchmarks/layers_on_gpu.py
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import bench_stss
import bench_window
import torch

from benchctl.layers.stss import stss
from benchctl.layers.windowed_attention import WindowedAttention
from benchctl.probes.device import cuda_unavailable

WARMUP, ROUNDS = 5, 20

Run = Callable[[], None]


def seconds_and_bytes(run: Run) -> tuple[float, int]:
    for _ in range(WARMUP):
        run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken), torch.cuda.max_memory_allocated()


def compared(name: str, ours: Run, theirs: Run) -> str:
    (mine, my_bytes), (other, other_bytes) = seconds_and_bytes(ours), seconds_and_bytes(theirs)
    return (
        f"{name}: {mine * 1e3:.2f} ms and {my_bytes / 2**20:,.0f} MiB against {other * 1e3:.2f} ms and {other_bytes / 2**20:,.0f} MiB: "
        f"{other / mine:.1f} times faster, {my_bytes / other_bytes:.1%} of the memory"
    )


def main() -> None:
    reason = cuda_unavailable()
    if reason is not None:
        sys.exit(f"nothing can be timed here: {reason}")
    print(torch.cuda.get_device_name(), torch.__version__)
    with torch.device("cuda"):
        for grid in (14, 28):
            pair = (bench_stss.passes(each, grid) for each in (stss, bench_stss.unfolded))
            print(compared(f"space-time self-similarity, grid {grid}", *pair), flush=True)
        module = WindowedAttention(bench_window.SHAPE)
        pair = (bench_window.passes(each) for each in (lambda *x: module(*x)[0], bench_window.unfolded(module)))
        print(compared("attention in a window", *pair), flush=True)


if __name__ == "__main__":
    main()
