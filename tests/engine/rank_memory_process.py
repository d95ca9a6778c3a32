"""One rank of a test of memory: what steps of cells allocate, measured on real CPU ranks or traced for CPU ranks that do not exist.

python rank_memory_process.py measured|predicted JOBS RESULTS: JOBS is a JSON list of cells, RESULTS a list of peaks in bytes.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from benchctl.engine import models, rank_memory
from benchctl.engine.engines import make_engine
from benchctl.engine.profile import example, traced_step
from benchctl.engine.ranks import Ranks
from benchctl.probes.prediction import CPU, StepTrace, predict
from benchctl.probes.prediction.recorder import Recorder
from benchctl.spec import Cell

STEPS = 2
RUNS = 3


def clips(cell: Cell) -> int:
    """Of a micro-batch."""
    assert cell.launch is not None
    return cell.launch.micro_batches(cell.shape.batch_size)[0]


def predicted(cell: Cell) -> int:
    trace = predict(
        lambda: models.build(cell, pretrained=False),
        lambda model: traced_step(cell, model, clips(cell)),
        lambda: example(cell, clips(cell)),
        attention=cell.attention,
        device=CPU,
        unknown_is_zero=True,
    )
    return trace.peak().allocated_bytes


def measured(cell: Cell, ranks: Ranks) -> int:
    """The least of several runs: gloo's threads let go of what they sent when they come to it, sooner or later.

    (For the same reason torch's profiler cannot be asked: it does not see what other threads release.)
    """
    return min(_recorded(cell, ranks) for _ in range(RUNS))


def _recorded(cell: Cell, ranks: Ranks) -> int:
    assert cell.launch is not None
    passes = cell.shape.batch_size // cell.launch.ranks // clips(cell)
    batch, model = example(cell, clips(cell)), models.build(cell).train()
    recorder = Recorder("cpu", None)
    recorder.add([*model.parameters(), *model.buffers(), *batch[0], batch[1]], "parameters")
    with recorder:
        step = make_engine(cell, model, cell.recipe, ranks, clips(cell))
        for _ in range(STEPS):
            step.learn([batch] * passes)
    step.close()
    return StepTrace("cpu", tuple(recorder.storages), tuple(recorder.events), {}, recorder.operators).peak().allocated_bytes


def main() -> None:
    kind, jobs, results = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    cells = [Cell.model_validate(each) for each in json.loads(jobs.read_text())]
    if kind == "predicted":
        with rank_memory.alone_in_a_world(2):
            done = [predicted(cell) for cell in cells]
        results.write_text(json.dumps(done))
        return
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    ranks = Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    done = ranks.gather([measured(cell, ranks) for cell in cells])
    if ranks.first:
        results.write_text(json.dumps(done))


if __name__ == "__main__":
    main()
