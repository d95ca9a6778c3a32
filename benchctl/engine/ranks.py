"""The processes that train one cell together, as one of them sees them; alone, it is the only one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist

from benchctl.errors import BenchctlError
from benchctl.launch import Launch

#: where a rank notes what it is doing, for whoever watches it: see `benchctl.run.launch`
BEAT = "BENCHCTL_BEAT"
#: how much longer than a hung rank is given its partners wait for it: whoever watches them speaks first, and names it
PATIENCE = 4.0


@dataclass(frozen=True)
class Ranks:
    """This process among its partners."""

    rank: int = 0
    world: int = 1
    #: on its node
    local_rank: int = 0
    #: where `beat` writes; None: nobody watches
    beat_file: Path | None = None

    @property
    def first(self) -> bool:
        """Whether it is the one that writes files and decides."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there are no partners."""
        return self.world == 1

    def beat(self, doing: str) -> None:
        """Note what this rank begins to do. Whoever hangs is the one whose last note is the oldest."""
        if self.beat_file is not None:
            self.beat_file.write_text(doing, encoding="utf-8")

    def exchange(self, *values: float) -> list[tuple[float, ...]]:
        """The same numbers of every rank, in their order. All ranks must call it, and all get the same."""
        if self.alone:
            return [values]
        own = torch.tensor(values, dtype=torch.float64)
        everyone = torch.empty(self.world * len(values), dtype=torch.float64)
        dist.all_gather_into_tensor(everyone, own)
        return [tuple(row) for row in everyone.view(self.world, -1).tolist()]

    def gather(self, item: Any) -> list[Any]:
        """The same thing of every rank, in their order. All ranks must call it, and all get the same."""
        if self.alone:
            return [item]
        everyone: list[Any] = [None] * self.world
        dist.all_gather_object(everyone, item)
        return everyone


#: a process without partners
ALONE = Ranks()


@contextmanager
def joined(launch: Launch | None, device: Literal["cpu", "cuda"]) -> Iterator[Ranks]:
    """This process as one of the ranks of `launch`, by torch.distributed's environment variables; alone where there is no launch.

    Small messages go over gloo, also between GPUs, whose gradients go over NCCL.

    Raises:
        BenchctlError: the partners do not come, or this process is not the rank that the launch needs.
    """
    if launch is None or (launch.ranks == 1 and launch.engine == "plain"):
        yield ALONE
        return
    rank, world, local = (
        int(os.environ.get(name, otherwise)) for name, otherwise in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
    )
    if world != launch.ranks:
        raise BenchctlError(f"this is one of {world} processes, and the cell is for {launch.ranks}", fix="start it by 'benchctl run'")
    if device == "cuda":
        # a launcher may let each process see one GPU alone
        torch.cuda.set_device(local % torch.cuda.device_count())
    file = os.environ.get(BEAT)
    ranks = Ranks(rank, world, local, Path(file) if file else None)
    ranks.beat("joining the other ranks")
    limit = timedelta(seconds=max(PATIENCE * launch.hang_timeout_s, 10.0))
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "0")
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    if dist.is_initialized():
        # one process group for several cells
        yield ranks
        return
    try:
        dist.init_process_group(backend, rank=rank, world_size=world, timeout=limit)
    except (RuntimeError, ValueError) as problem:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        first = str(problem).splitlines()[0][:200]
        raise BenchctlError(
            f"rank {rank} of {world} cannot join the others: {first}", where=where, fix="see that the nodes reach it"
        ) from None
    try:
        yield ranks
    finally:
        dist.destroy_process_group()
