from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchctl.errors import UsageError
from benchctl.visualize.clip import Query
from benchctl.visualize.pixels import each_order, pixel_source
from benchctl.visualize.stss import Source, check_orders, check_window, order_maps, placed, window_span
from benchctl.visualize.toy_clip import SHAPES, toy_clip


def source_of(features: torch.Tensor, window: tuple[int, int, int], orders: int = 4) -> Source:
    return Source("test", "none", features, (window,) * orders, partial(each_order, window=window))


def similarity_by_definition(features, query, place):
    a, b = features[0][query].double(), features[0][place].double()
    lengths = float(a.norm() * b.norm())
    return float(a @ b) / lengths if lengths else 0.0


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)),
    st.tuples(*[st.integers(0, 3).map(lambda n: 2 * n + 1)] * 3),
    st.integers(0, 2**31),
)
def test_the_first_order_is_cosine_similarity_at_the_place_it_is_drawn(grid, window, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(1, *grid, 5, generator=generator)
    query = tuple(int(torch.randint(size, (1,), generator=generator)) for size in grid)
    (first,) = order_maps(source_of(features, window), [query], (1,))
    for place in np.ndindex(*grid):
        inside = all(abs(p - q) <= side // 2 for p, q, side in zip(place, query, window))
        shown = first.similarity[0][place]
        assert math.isnan(shown) if not inside else shown == pytest.approx(similarity_by_definition(features, query, place), abs=1e-5)


def test_a_moved_pattern_peaks_where_it_moved_to():
    # random features that move 2 rows down and 1 column to the left in each frame
    base = torch.randn(12, 12, 16, generator=torch.Generator().manual_seed(0))
    features = torch.stack([base.roll((2 * t, -t), (0, 1)) for t in range(4)])[None]
    t, h, w = query = (1, 5, 6)
    (first,) = order_maps(source_of(features, (5, 9, 9)), [query], (1,))
    for frame in range(4):
        peak = np.unravel_index(np.nanargmax(first.similarity[0, frame]), (12, 12))
        assert peak == (h + 2 * (frame - t), w - (frame - t))
        assert np.nanmax(first.similarity[0, frame]) == pytest.approx(1, abs=1e-5)


def test_norms_and_the_second_order_follow_from_the_first_by_hand():
    features = torch.randn(1, 2, 3, 3, 4, generator=torch.Generator().manual_seed(1))
    window = (3, 3, 3)
    grid = list(np.ndindex(2, 3, 3))
    vectors = {}
    for query in grid:
        vector = []
        for offset in np.ndindex(*window):
            place = tuple(q + o - 1 for q, o in zip(query, offset))
            inside = all(0 <= p < size for p, size in zip(place, (2, 3, 3)))
            vector.append(similarity_by_definition(features, query, place) if inside else 0.0)
        vectors[query] = np.array(vector)
    query = (0, 1, 1)
    first, second = order_maps(source_of(features, window), [query], (1, 2))
    for place in grid:
        assert first.norms[place] == pytest.approx(np.linalg.norm(vectors[place]), abs=1e-5)
        a, b = vectors[query], vectors[place]
        assert second.similarity[0][place] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)


def test_orders_come_rising_and_only_those_asked_for():
    features = torch.randn(1, 2, 3, 3, 4)
    assert [found.order for found in order_maps(source_of(features, (3, 3, 3)), [(0, 0, 0)], (3, 1))] == [1, 3]


def test_every_query_has_its_own_map():
    features = torch.randn(1, 2, 4, 4, 4)
    (found,) = order_maps(source_of(features, (1, 1, 1)), [(0, 0, 0), (1, 3, 2)], (1,))
    assert found.similarity.shape == (2, 2, 4, 4)
    assert np.argwhere(~np.isnan(found.similarity)).tolist() == [[0, 0, 0, 0], [1, 1, 3, 2]]


def test_placing_at_a_corner_cuts_the_window():
    shown = placed(torch.arange(27.0).reshape(3, 3, 3), (0, 0, 1), (1, 2, 2))
    # offsets (0, 0, -1), (0, 0, 0), (0, 1, -1), (0, 1, 0) are left
    assert shown.tolist() == [[[12.0, 13.0], [15.0, 16.0]]]
    assert window_span(0, 2, 5) == (0, 1)
    assert window_span(7, 20, 5) == (5, 9)


def test_a_query_is_in_the_cell_that_holds_its_pixel():
    source = source_of(torch.zeros(1, 2, 4, 4, 1), (1, 1, 1))
    assert source.cell(Query(1, x=31, y=8), resolution=32) == (1, 1, 3)
    assert source.cell(Query(0, x=0, y=31), resolution=32) == (0, 3, 0)


@pytest.mark.parametrize("orders", [(0,), (5,), (1, 7), ()])
def test_orders_are_1_to_4(orders):
    with pytest.raises(UsageError, match=r"--orders: .*order.*; orders are 1 to 4"):
        check_orders(orders)


@pytest.mark.parametrize(("window", "what"), [((4, 9, 9), "L is 4"), ((5, 0, 9), "U is 0"), ((5, 9, -3), "V is -3"), ((5, 9), "L,U,V")])
def test_windows_are_three_odd_sides(window, what):
    with pytest.raises(UsageError, match=f"^--window {','.join(map(str, window))}: .*{what}"):
        check_window(window)


def test_an_order_that_the_source_lacks_is_refused():
    with pytest.raises(UsageError, match="--orders: 'test' computes orders 1 to 2"):
        order_maps(source_of(torch.zeros(1, 2, 3, 3, 4), (1, 1, 1), orders=2), [(0, 0, 0)], (1, 3))


def test_a_window_that_would_fill_the_memory_is_refused():
    with pytest.raises(UsageError, match=r"--window: a window of 9x99x99 holds .* GiB"):
        order_maps(source_of(torch.zeros(1, 8, 64, 64, 1), (9, 99, 99)), [(0, 0, 0)], (1,))


# ---- MOSS, appendix A: the first order tells colours, the second order tells groups ----


GROUPS = np.array([shape.group for shape in SHAPES])
CUBES = [index for index, shape in enumerate(SHAPES) if shape.outline == "cube"]


def toy_maps(frames: list[int]):
    """First and second order for both green cubes on these frames of the toy clip, queried in the fifth, and what each cell shows."""
    toy = toy_clip(8, 224)
    source = pixel_source(toy.frames[frames])
    cells = [source.cell(Query(4, *toy.centre(cube, frames[4])), 224) for cube in CUBES]
    return order_maps(source, cells, (1, 2)), toy.owners[frames, 4::8, 4::8]


@pytest.fixture(scope="module")
def moving():
    return toy_maps(list(range(8)))


@pytest.fixture(scope="module")
def standing():
    return toy_maps([4] * 8)


def mean_similarity(maps, order: int, group: int, shapes: list[int]) -> float:
    """Of the cube of `group` to the cells of `shapes` in its window."""
    found, owners = maps
    values = found[order - 1].similarity[group][np.isin(owners, shapes)]
    assert (~np.isnan(values)).sum() > 20, "too few cells to say anything"
    return float(np.nanmean(values))


def companions(group: int) -> list[int]:
    """The group without the query's own shape, which is similar to itself in any case."""
    return [index for index in range(len(SHAPES)) if GROUPS[index] == group and index not in CUBES]


def others(group: int) -> list[int]:
    return [index for index in range(len(SHAPES)) if GROUPS[index] != group]


def twin(group: int) -> list[int]:
    """The cube of the other group."""
    return [cube for cube in CUBES if GROUPS[cube] != group]


@pytest.mark.parametrize("group", [0, 1])
def test_the_first_order_tells_colours(moving, group):
    assert mean_similarity(moving, 1, group, twin(group)) > 0.8
    assert mean_similarity(moving, 1, group, companions(group)) < 0 < mean_similarity(moving, 1, group, others(group))


@pytest.mark.parametrize("group", [0, 1])
def test_the_second_order_tells_groups(moving, group):
    inside = mean_similarity(moving, 2, group, companions(group))
    assert inside > mean_similarity(moving, 2, group, others(group)) + 0.1
    assert inside > mean_similarity(moving, 2, group, twin(group)) + 0.1


@pytest.mark.parametrize("group", [0, 1])
def test_it_is_motion_that_tells_groups_not_where_the_shapes_stand(moving, standing, group):
    def separation(maps):
        return mean_similarity(maps, 2, group, companions(group)) - mean_similarity(maps, 2, group, others(group))

    assert separation(moving) > 2 * separation(standing)
