"""One rank of a test: executes cells in one process group, so that what is slow, imports and joining, is done once.

python rank_process.py JOBS RESULTS: JOBS is a JSON list of {cell, root, folder, stop_after}, RESULTS is written by the first rank.
"""

from __future__ import annotations

import json
import sys
import threading
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist
from training_cells import StopAfter

from benchctl.engine import work
from benchctl.engine.learning import WorkSettings
from benchctl.spec import Cell


def main() -> None:
    jobs, results = (Path(argument) for argument in sys.argv[1:3])
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    done = []
    for job in json.loads(jobs.read_text()):
        cell = Cell.model_validate(job["cell"])
        settings = WorkSettings(device="cpu", data_root=Path(job["root"]), checkpoint_folder=Path(job["folder"]))
        stop = StopAfter(job["stop_after"]) if job.get("stop_after") else threading.Event()
        done.append(work.execute(cell, settings, stop).model_dump(mode="json"))
    if dist.get_rank() == 0:
        results.write_text(json.dumps(done))


if __name__ == "__main__":
    main()
