import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchctl.probes.prediction.allocator import MIB, Block, CachingAllocator, ExactAllocator, OutOfMemory


def test_small_requests_share_a_segment_of_two_mebibytes():
    allocator = CachingAllocator()
    blocks = [allocator.allocate(size) for size in (1, 512, 513)]
    assert [b.size for b in blocks] == [512, 512, 1024]
    assert (allocator.allocated_bytes, allocator.reserved_bytes) == (2048, 2 * MIB)


@pytest.mark.parametrize(
    ("request_bytes", "block_bytes", "segment_bytes"),
    [
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        # a segment of its own, rounded to 2 MiB; the rest of up to 1 MiB is not worth splitting off and counts as allocated
        (10 * MIB, 10 * MIB, 10 * MIB),
        (11 * MIB, 12 * MIB, 12 * MIB),
        (11 * MIB - 512, 11 * MIB - 512, 12 * MIB),
    ],
)
def test_segment_sizes(request_bytes: int, block_bytes: int, segment_bytes: int):
    allocator = CachingAllocator()
    assert allocator.allocate(request_bytes).size == block_bytes
    assert (allocator.allocated_bytes, allocator.reserved_bytes) == (block_bytes, segment_bytes)


def test_the_smallest_block_that_fits_is_reused():
    allocator = CachingAllocator()
    large, small = allocator.allocate(40 * MIB), allocator.allocate(30 * MIB)
    allocator.release(large)
    allocator.release(small)
    again = allocator.allocate(29 * MIB)
    assert again.address == small.address
    assert allocator.reserved_bytes == 70 * MIB


def test_released_neighbours_merge():
    allocator = CachingAllocator()
    blocks = [allocator.allocate(4 * MIB) for _ in range(5)]
    assert allocator.reserved_bytes == 20 * MIB
    for block in (blocks[1], blocks[3], blocks[2]):
        allocator.release(block)
    assert allocator.allocate(12 * MIB).address == blocks[1].address
    assert allocator.reserved_bytes == 20 * MIB


def test_under_a_cap_whole_segments_are_given_back_first():
    allocator = CachingAllocator(cap_bytes=64 * MIB)
    allocator.release(allocator.allocate(40 * MIB))
    allocator.allocate(50 * MIB)
    assert allocator.reserved_bytes == 50 * MIB


def test_a_segment_with_a_used_block_is_not_given_back():
    allocator = CachingAllocator(cap_bytes=64 * MIB)
    block, kept = allocator.allocate(8 * MIB), allocator.allocate(2 * MIB)
    allocator.release(block)
    with pytest.raises(OutOfMemory):
        allocator.allocate(50 * MIB)
    assert (kept.size, allocator.reserved_bytes) == (2 * MIB, 20 * MIB)


def test_exact_allocator_rounds_nothing_and_keeps_nothing():
    allocator = ExactAllocator(cap_bytes=10)
    block = allocator.allocate(7)
    with pytest.raises(OutOfMemory):
        allocator.allocate(4)
    allocator.release(block)
    assert (allocator.allocated_bytes, allocator.reserved_bytes) == (0, None)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_is_asked_blocks_are_disjoint_and_the_sums_are_right(data: st.DataObject):
    allocator, live = CachingAllocator(), list[Block]()
    sizes = st.one_of(st.integers(1, 4096), st.integers(MIB // 2, 2 * MIB), st.integers(8 * MIB, 40 * MIB))
    reserved = 0
    for _ in range(data.draw(st.integers(1, 60))):
        if live and data.draw(st.booleans()):
            allocator.release(live.pop(data.draw(st.integers(0, len(live) - 1))))
        else:
            size = data.draw(sizes)
            block = allocator.allocate(size)
            assert size <= block.size
            live.append(block)
        spans = sorted((b.address, b.address + b.size) for b in live)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
        assert allocator.allocated_bytes == sum(b.size for b in live) <= allocator.reserved_bytes
        assert allocator.reserved_bytes >= reserved
        reserved = allocator.reserved_bytes
    for block in live:
        allocator.release(block)
    # everything merged back: a cap of zero lets nothing be allocated, after giving every segment back
    allocator.cap_bytes = 0
    with pytest.raises(OutOfMemory):
        allocator.allocate(1 << 40)
    assert (allocator.allocated_bytes, allocator.reserved_bytes) == (0, 0)
