"""What an allocator makes of a sequence of allocations: bytes allocated, bytes reserved, and whether they fit.

`CachingAllocator` follows torch's CUDACachingAllocator in its default configuration (constants: `c10/core/AllocatorConfig.h`; rules:
`c10/cuda/CUDACachingAllocator.cpp`). `ExactAllocator` is what the CPU does: every request is its own, of exactly its size.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

MIB = 2**20

#: every block is a multiple of this
BLOCK_BYTES = 512
#: requests up to this size share small segments
SMALL_REQUEST_BYTES = MIB
SMALL_SEGMENT_BYTES = 2 * MIB
#: requests between the small limit and this one are served from segments of `LARGE_SEGMENT_BYTES`
LARGE_REQUEST_BYTES = 10 * MIB
LARGE_SEGMENT_BYTES = 20 * MIB
#: larger requests get a segment of their own, a multiple of this
LARGE_SEGMENT_MULTIPLE = 2 * MIB


class OutOfMemory(Exception):
    """A request did not fit under the cap, even after every unused segment was given back."""


@dataclass(slots=True, eq=False)
class Block:
    """A piece of a segment. Neighbours are the pieces before and after it in the same segment."""

    address: int
    size: int
    small: bool
    free: bool = False
    previous: Block | None = field(default=None, repr=False)
    next: Block | None = field(default=None, repr=False)


class ExactAllocator:
    """Every request gets exactly its size from the system and gives it back at once."""

    reserved_bytes = None

    def __init__(self, cap_bytes: int | None = None) -> None:
        self.cap_bytes = cap_bytes
        self.allocated_bytes = 0

    def allocate(self, size: int) -> Block:
        """A block of `size` bytes.

        Raises:
            OutOfMemory: the live bytes would pass the cap.
        """
        if self.cap_bytes is not None and self.allocated_bytes + size > self.cap_bytes:
            raise OutOfMemory
        self.allocated_bytes += size
        return Block(0, size, small=False)

    def release(self, block: Block) -> None:
        """Take `block` back."""
        self.allocated_bytes -= block.size


class CachingAllocator:
    """torch's caching allocator for one stream.

    A request is rounded up to 512 bytes. The smallest free block that holds it is taken, from the pool for requests up to 1 MiB or
    from the pool for larger ones, and the rest is split off where it is worth keeping. Where none holds it a segment is asked of the
    device; if that would pass the cap, segments without a used block are given back first. A released block merges with free neighbours.
    """

    def __init__(self, cap_bytes: int | None = None) -> None:
        self.cap_bytes = cap_bytes
        self.allocated_bytes = 0
        self.reserved_bytes = 0
        self._pools: dict[bool, _FreeBlocks] = {True: _FreeBlocks(), False: _FreeBlocks()}
        self._next_address = 0

    def allocate(self, size: int) -> Block:
        """A block of at least `size` bytes.

        Raises:
            OutOfMemory: the segment it needs does not fit under the cap.
        """
        size = -(-size // BLOCK_BYTES) * BLOCK_BYTES
        small = size <= SMALL_REQUEST_BYTES
        block = self._pools[small].take(size) or self._new_segment(size, small)
        rest = block.size - size
        if rest >= BLOCK_BYTES if small else rest > SMALL_REQUEST_BYTES:
            self._split(block, size)
        block.free = False
        self.allocated_bytes += block.size
        return block

    def release(self, block: Block) -> None:
        """Take `block` back and merge it with free neighbours."""
        self.allocated_bytes -= block.size
        pool = self._pools[block.small]
        before, after = block.previous, block.next
        if before is not None and before.free:
            pool.remove(before)
            block.address, block.size = before.address, block.size + before.size
            block.previous = before.previous
            if block.previous is not None:
                block.previous.next = block
        if after is not None and after.free:
            pool.remove(after)
            block.size += after.size
            block.next = after.next
            if block.next is not None:
                block.next.previous = block
        block.free = True
        pool.add(block)

    def _new_segment(self, size: int, small: bool) -> Block:
        if small:
            segment = SMALL_SEGMENT_BYTES
        elif size < LARGE_REQUEST_BYTES:
            segment = LARGE_SEGMENT_BYTES
        else:
            segment = -(-size // LARGE_SEGMENT_MULTIPLE) * LARGE_SEGMENT_MULTIPLE
        if not self._fits(segment):
            self._release_unused_segments()
            if not self._fits(segment):
                raise OutOfMemory
        self.reserved_bytes += segment
        block = Block(self._next_address, segment, small)
        self._next_address += segment
        return block

    def _fits(self, segment: int) -> bool:
        return self.cap_bytes is None or self.reserved_bytes + segment <= self.cap_bytes

    def _release_unused_segments(self) -> None:
        for pool in self._pools.values():
            for block in pool.whole_segments():
                pool.remove(block)
                self.reserved_bytes -= block.size

    def _split(self, block: Block, size: int) -> None:
        rest = Block(block.address + size, block.size - size, block.small, free=True, previous=block, next=block.next)
        if block.next is not None:
            block.next.previous = rest
        block.next = rest
        block.size = size
        self._pools[block.small].add(rest)


class _FreeBlocks:
    """Free blocks by size, then address: the order in which the smallest that fits is found."""

    def __init__(self) -> None:
        self._keys: list[tuple[int, int]] = []
        self._blocks: dict[int, Block] = {}

    def add(self, block: Block) -> None:
        bisect.insort(self._keys, (block.size, block.address))
        self._blocks[block.address] = block

    def remove(self, block: Block) -> None:
        del self._keys[bisect.bisect_left(self._keys, (block.size, block.address))]
        del self._blocks[block.address]

    def take(self, size: int) -> Block | None:
        place = bisect.bisect_left(self._keys, (size, 0))
        if place == len(self._keys):
            return None
        return self._blocks.pop(self._keys.pop(place)[1])

    def whole_segments(self) -> list[Block]:
        return [block for block in self._blocks.values() if block.previous is None and block.next is None]
