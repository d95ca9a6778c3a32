"""What a training step allocates and frees, in order, and what that comes to under an allocator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchctl.probes.prediction.allocator import Block, CachingAllocator, ExactAllocator, OutOfMemory

#: parameters; buffers; inputs: the batch; gradients: of parameters; optimizer: its state, and what an update allocates on the way;
#: activations: everything else that forward and backward make; workspace: what kernels and cuBLAS allocate for themselves
Category = Literal["parameters", "buffers", "inputs", "gradients", "optimizer", "activations", "workspace"]
CATEGORIES: tuple[Category, ...] = ("parameters", "buffers", "inputs", "gradients", "optimizer", "activations", "workspace")

Phase = Literal["build", "forward", "backward", "update"]


@dataclass(slots=True)
class Storage:
    """One allocation: what was asked for, and by whom."""

    size_bytes: int
    category: Category
    #: 0 while model, optimizer and batch are made, then the number of the step
    step: int
    phase: Phase
    #: the operator that made it, empty for what was there before the first step
    operator: str = ""


@dataclass(frozen=True)
class Failure:
    """The first request that did not fit under a cap."""

    requested_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    step: int
    phase: Phase
    operator: str

    def __str__(self) -> str:
        where = f"{self.phase} of step {self.step}" if self.step else "building model, optimizer and batch"
        return f"{self.operator or 'a tensor'} asks for {self.requested_bytes} bytes in {where}, with {self.reserved_bytes} reserved"


@dataclass(frozen=True)
class PeakMemory:
    """The peak of one trace under one cap. Bytes.

    Where the trace fits, the figures are those under the cap. Where it does not, they are what it would take without one.
    """

    #: largest sum of live blocks (`torch.cuda.max_memory_allocated`; on the CPU the exact bytes asked for)
    allocated_bytes: int
    #: largest sum of segments held (`torch.cuda.max_memory_reserved`); None on the CPU, where nothing is held back
    reserved_bytes: int | None
    #: split of `allocated_bytes`, which is its sum
    by_category: Mapping[Category, int]
    #: where `allocated_bytes` was reached
    step: int
    phase: Phase
    operator: str
    cap_bytes: int | None
    failure: Failure | None

    @property
    def fits(self) -> bool:
        """Whether the step runs under the cap."""
        return self.failure is None


@dataclass(frozen=True)
class StepTrace:
    """The allocations of two training steps, independent of any cap.

    `events` holds `i` where `storages[i]` is allocated and `~i` where it is freed. Two steps, because optimizer state is
    made in the first one's update and is there for the whole of the second.
    """

    device: Literal["cuda", "cpu"]
    storages: tuple[Storage, ...]
    events: tuple[int, ...]
    #: calls of scaled-dot-product attention in both steps by the kernel that ran; empty where the model made none, or on the CPU
    attention_kernels: Mapping[str, int]
    #: operators that were dispatched in both steps
    operators: int

    def peak(self, *, cap_bytes: int | None = None) -> PeakMemory:
        """Replay the events through the device's allocator.

        Args:
            cap_bytes: most that may be reserved, as by `torch.cuda.set_per_process_memory_fraction`. The CUDA context (some hundred
                MiB outside torch's allocator) is not part of it. On the CPU it caps the live bytes.
        """
        allocator = CachingAllocator if self.device == "cuda" else ExactAllocator
        replay = _Replay(self, allocator(cap_bytes))
        failure = replay.run()
        if failure is not None:
            replay = _Replay(self, allocator(None))
            replay.run()
        where = self.storages[self.events[replay.peak_event]]
        return PeakMemory(
            allocated_bytes=replay.peak_allocated,
            reserved_bytes=replay.peak_reserved,
            by_category=replay.by_category(),
            step=where.step,
            phase=where.phase,
            operator=where.operator,
            cap_bytes=cap_bytes,
            failure=failure,
        )


class _Replay:
    """One pass of a trace's events through one allocator."""

    def __init__(self, trace: StepTrace, allocator: CachingAllocator | ExactAllocator) -> None:
        self.trace = trace
        self.allocator = allocator
        self.peak_allocated = 0
        self.peak_reserved: int | None = allocator.reserved_bytes
        self.peak_event = 0
        self._block_bytes = [0] * len(trace.storages)

    def run(self) -> Failure | None:
        """Play every event, or those up to the first that does not fit."""
        allocator, blocks = self.allocator, dict[int, Block]()
        for place, event in enumerate(self.trace.events):
            if event < 0:
                allocator.release(blocks.pop(~event))
                continue
            storage = self.trace.storages[event]
            try:
                blocks[event] = allocator.allocate(storage.size_bytes)
            except OutOfMemory:
                held = allocator.reserved_bytes if allocator.reserved_bytes is not None else allocator.allocated_bytes
                return Failure(storage.size_bytes, allocator.allocated_bytes, held, storage.step, storage.phase, storage.operator)
            self._block_bytes[event] = blocks[event].size
            if allocator.allocated_bytes > self.peak_allocated:
                self.peak_allocated, self.peak_event = allocator.allocated_bytes, place
            if allocator.reserved_bytes is not None and self.peak_reserved is not None:
                self.peak_reserved = max(self.peak_reserved, allocator.reserved_bytes)
        return None

    def by_category(self) -> dict[Category, int]:
        """The blocks that were live when `peak_allocated` was reached."""
        live: set[int] = set()
        for event in self.trace.events[: self.peak_event + 1]:
            if event >= 0:
                live.add(event)
            else:
                live.remove(~event)
        split = dict.fromkeys(CATEGORIES, 0)
        for index in live:
            split[self.trace.storages[index].category] += self._block_bytes[index]
        return split
