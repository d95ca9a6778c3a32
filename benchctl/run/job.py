"""The file that a runner hands to a worker, and the protocol between them.

A worker reads one JSON object a line from its standard input, `{"job": PATH, "result": PATH}`, does the job, writes the
result file atomically and answers `done` on its standard output. End of input ends it, also when its runner was killed.
"""

from __future__ import annotations

from typing import Literal

from benchctl.record import Measurement, Record
from benchctl.spec import Cell

#: what a worker answers when the result file is in place
DONE = "done"


class Job(Record):
    """One piece of work for a worker.

    `predict` counts and predicts, executing nothing; `execute` measures, trains or evaluates on `device`.
    """

    kind: Literal["predict", "execute"]
    cell: Cell
    device: Literal["cpu", "cuda"] | None = None
    #: folder of the data set
    data_root: str | None = None
    #: folder of this cell's own checkpoint and scores
    checkpoint_folder: str | None = None
    #: checkpoint file that an evaluate cell reads, or a train cell starts from
    checkpoint: str | None = None
    #: what was counted of a training step beforehand; null: nothing
    step_flops: tuple[Measurement, ...] | None = None
    #: checkpoint file of a cell that trains the same with other processes, to go on from; null: none
    resume: str | None = None
    #: clips of one forward pass of one rank, as predicted to fit; null: as the cell says
    micro_batch: int | None = None
