"""Predicts and measures the same training steps on a machine with a GPU, and writes the pairs: what calibrates the prediction.

    python benchmarks/pair_memory.py suites/paired_memory.yaml baselines/memory/NAME.yaml

and, on any machine, compares what was measured with what is predicted now:

    python benchmarks/pair_memory.py compare baselines/memory/h200.yaml

Every step runs in a process of its own, so that none inherits a cached segment; several at a time where the GPU holds them all. What is
read is each process's own, so that the others do not show in it.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchctl import plan, suite_file
from benchctl.gpu_models import GPUS, GpuName
from benchctl.gpu_rates import table_names
from benchctl.spec import Cell

KINDS = ("allocated", "reserved")
#: of the CUDA context, cuDNN and cuBLAS, outside torch's allocator, for each process
CONTEXT_BYTES = 2**30
TIMEOUT_SECONDS = 200.0


class Room:
    """The GPU's memory, given to processes that say what they need."""

    def __init__(self, total_bytes: int) -> None:
        self.total = self.free = total_bytes
        self._changed = threading.Condition()

    def take(self, size: int) -> int:
        """Wait until there is room; what does not fit at all waits until it is alone."""
        size = min(size, self.total)
        with self._changed:
            self._changed.wait_for(lambda: self.free >= size)
            self.free -= size
        return size

    def give(self, size: int) -> None:
        with self._changed:
            self.free += size
            self._changed.notify_all()


def predicted(cell: Cell) -> dict[str, Any]:
    """Bytes by kind, or the reason for none."""
    from benchctl.engine import profile

    found, notes, _ = profile.predict_memory(cell)
    peaks = {m.kind: m.value if m.reason is None else m.reason for m in found if m.metric == "peak_memory_bytes"}
    return {**peaks, "attention_kernels": notes.get("attention_kernels", {})}


def measured(cell: Cell, events: Path | None) -> dict[str, Any]:
    """Bytes by kind; `events` gets what torch's allocator was asked for, in order."""
    import torch

    from benchctl.engine import profile
    from benchctl.probes.memory import is_out_of_memory

    if events:
        torch.cuda.memory._record_memory_history(context=None, max_entries=10**7)
    try:
        found, _ = profile.measure(cell, "cuda")
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return {"outcome": "oom"}
    if events:
        trace = torch.cuda.memory._snapshot()["device_traces"][0]
        rows = "\n".join(f"{entry['action']} {entry['addr']} {entry['size']}" for entry in trace)
        events.write_bytes(lzma.compress(rows.encode(), preset=1))
    return {m.kind: m.value if m.reason is None else m.reason for m in found if m.metric == "peak_memory_bytes"}


def in_a_process(what: str, cell: Cell, events: Path | None = None) -> dict[str, Any]:
    command = [sys.executable, __file__, what, "-", *(["--events", str(events)] if events else [])]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        found = subprocess.run(
            command,
            input=cell.model_dump_json(),
            capture_output=True,
            text=True,
            env=os.environ | threads,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no result within {TIMEOUT_SECONDS:g} s"}
    if found.returncode:
        return {"error": (found.stderr.strip().splitlines() or [f"exit status {found.returncode}"])[-1]}
    answer: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return answer


def pair(cell: Cell, room: Room, events: Path | None) -> dict[str, Any]:
    started = time.monotonic()
    guess = in_a_process("predict", cell)
    reserved = guess.get("reserved")
    needed = reserved if isinstance(reserved, int | float) else room.total
    held = room.take(int(needed * 1.05) + CONTEXT_BYTES)
    try:
        read = in_a_process("measure", cell, events / f"{cell.id}.xz" if events else None)
    finally:
        room.give(held)
    row = {"cell": cell.label, "predicted": guess, "measured": read}
    print(f"{said(row)}  {time.monotonic() - started:.0f} s", flush=True)
    return row


def residuals(row: dict[str, Any]) -> dict[str, float]:
    """Predicted over measured, less one, by kind."""
    both = row["predicted"], row["measured"]
    known = (kind for kind in KINDS if all(isinstance(side.get(kind), int | float) for side in both))
    return {kind: row["predicted"][kind] / row["measured"][kind] - 1 for kind in known}


def said(row: dict[str, Any]) -> str:
    off = ", ".join(f"{kind} {share:+.2%}" for kind, share in residuals(row).items())
    return f"{row['cell']}: {off or row['predicted'].get('error') or row['measured'].get('error') or row['measured']}"


def summary(rows: list[dict[str, Any]]) -> str:
    """Of how many pairs, and how far apart by kind: in the middle, for 19 of 20, and at worst."""
    lines = [f"{len(rows)} pairs"]
    for kind in KINDS:
        off = sorted((residuals(row)[kind] for row in rows if kind in residuals(row)), key=abs)
        if off:
            middle, most, worst = off[len(off) // 2], off[math.ceil(0.95 * len(off)) - 1], off[-1]
            lines.append(f"{kind}: half within {abs(middle):.2%}, 19 of 20 within {abs(most):.1%}, at worst {worst:+.1%}")
    return "\n".join(lines)


def compared(file: Path) -> list[dict[str, Any]]:
    """The pairs of `file` with what is predicted now and here."""
    recorded = YAML(typ="safe").load(file.read_text())
    cells = {cell.label: cell for cell in plan.expand(suite_file.load(recorded["suite"])).cells}
    rows = []
    for pair in recorded["pairs"]:
        cell = cells[pair["cell"]].model_copy(update={"gpu": recorded["kind"]})
        rows.append({**pair, "predicted": in_a_process("predict", cell)})
        print(said(rows[-1]), flush=True)
    return rows


def environment() -> dict[str, Any]:
    import timm
    import torch
    import torchvision
    import transformers

    from benchctl.probes.device import gpus

    return {
        "gpu": torch.cuda.get_device_name(),
        "driver": gpus().driver,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "torch": str(torch.__version__),
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "transformers": transformers.__version__,
    }


def known_gpu(name: str) -> GpuName:
    """The kind that the driver calls `name`."""
    found = next((each for each in GPUS if each in table_names(name)), None)
    if found is None:
        sys.exit(f"benchctl does not know what a {name} does to memory: add it to benchctl/gpu_models.py")
    return found


def pairs(suite: str, only: str, workers: int, events: Path | None) -> dict[str, Any]:
    import torch

    from benchctl.probes.device import cuda_unavailable

    reason = cuda_unavailable()
    if reason is not None:
        sys.exit(f"nothing can be paired here: {reason}")
    gpu = known_gpu(torch.cuda.get_device_name())
    cells = [cell.model_copy(update={"gpu": gpu}) for cell in plan.expand(suite_file.load(suite)).cells if only in cell.label]
    # the longest first: the last ones then end together
    cells.sort(key=lambda cell: -cell.shape.batch_size * cell.shape.frames * cell.shape.resolution**2)
    room = Room(torch.cuda.mem_get_info()[0] - 2 * CONTEXT_BYTES)
    with ThreadPoolExecutor(workers) as pool:
        rows = list(pool.map(lambda cell: pair(cell, room, events), cells))
    return {"suite": Path(suite).stem, "kind": gpu, **environment(), "pairs": sorted(rows, key=lambda row: row["cell"])}


def write(found: dict[str, Any], file: Path) -> None:
    """A few lines a pair, in bytes."""
    yaml = YAML()
    yaml.width = 1000
    yaml.default_flow_style = None
    with file.open("w") as stream:
        stream.write("# Peak memory of training steps in bytes, predicted and measured; written by benchmarks/pair_memory.py.\n")
        yaml.dump(found, stream)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", help="a suite; 'compare'; 'predict' or 'measure' for one cell, read from standard input")
    parser.add_argument("file", help="the file to write, or to compare with", type=Path)
    parser.add_argument("--only", default="", help="cells whose label contains this")
    parser.add_argument("--workers", type=int, default=min(16, os.cpu_count() or 1), help="cells at a time")
    parser.add_argument("--events", type=Path, help="a folder for the allocator's events (measure: a file)")
    options = parser.parse_args()
    if options.what in ("predict", "measure"):
        cell = Cell.model_validate_json(sys.stdin.read())
        print(json.dumps(predicted(cell) if options.what == "predict" else measured(cell, options.events)))
        return
    if options.what == "compare":
        print(summary(compared(options.file)))
        return
    if options.events:
        options.events.mkdir(parents=True, exist_ok=True)
    found = pairs(options.what, options.only, options.workers, options.events)
    write(found, options.file)
    print(summary(found["pairs"]))


if __name__ == "__main__":
    main()
