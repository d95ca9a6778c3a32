from __future__ import annotations

from functools import partial

import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from benchctl.errors import MissingError, UsageError
from benchctl.visualize import png, stss_figure
from benchctl.visualize.clip import Clip, Query
from benchctl.visualize.pixels import each_order
from benchctl.visualize.stss import Source, order_maps
from benchctl.visualize.stss_figure import Picture

QUERY = Query(1, x=9, y=20)


def picture(*, frames=3, queries=(QUERY,), orders=(1, 2), window=(3, 3, 3), name="clip.mp4", features=None) -> Picture:
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(1, frames, 4, 4, 5, generator=rng) if features is None else features
    source = Source("pixels", "no weights", features, (window,) * 4, partial(each_order, window=window))
    clip = Clip(name, np.random.default_rng(0).integers(0, 256, (frames, 32, 32, 3), dtype=np.uint8), queries)
    return Picture(clip, source, queries, order_maps(source, [source.cell(query, 32) for query in queries], orders))


def pictures(made) -> list[Axes]:
    return [axes for axes in made.axes if axes.get_images()]


def rows(made) -> list[list[Axes]]:
    heights = sorted({round(axes.get_position().y0, 6) for axes in pictures(made)}, reverse=True)
    return [[axes for axes in pictures(made) if round(axes.get_position().y0, 6) == height] for height in heights]


def texts(made) -> str:
    return " ".join([text.get_text().replace("\n", " ") for text in made.texts])


@pytest.mark.parametrize(("queries", "orders"), [(1, (1,)), (2, (1, 2, 3)), (4, (2, 4))])
def test_a_row_of_frames_then_maps_for_each_query_then_norms(queries, orders):
    drawn = picture(queries=tuple(Query(1, 9 * n, 20) for n in range(queries)), orders=orders)
    made = stss_figure.figure(drawn)
    expected = 1 + queries * len(orders) + len(orders)
    assert [len(row) for row in rows(made)] == [3] * expected
    bars = [axes for axes in made.axes if not axes.get_images()]
    assert [bar.get_ylabel() for bar in bars] == ["cosine similarity"] * (queries * len(orders)) + ["L2 norm"] * len(orders)


def test_each_row_shows_its_own_numbers():
    drawn = picture(queries=(QUERY, Query(2, 0, 0)))
    made = rows(stss_figure.figure(drawn))
    first, second = drawn.orders

    def shown(row):
        return np.stack([np.ma.filled(axes.get_images()[0].get_array().astype(float), np.nan) for axes in row])

    assert np.array_equal(shown(made[0]), drawn.clip.frames)
    for row, expected in zip(made[1:], (first.similarity[0], second.similarity[0], first.similarity[1], second.similarity[1])):
        assert np.array_equal(shown(row), expected, equal_nan=True)
    assert np.array_equal(shown(made[5]), first.norms.astype(float))
    assert np.array_equal(shown(made[6]), second.norms.astype(float))


def test_the_query_and_its_window_are_marked_where_they_are():
    # 32 pixels over 4 cells: the query is in cell (2, 1), whose window of 3 x 3 cells covers rows 1 to 3 and columns 0 to 2
    made = rows(stss_figure.figure(picture(frames=4, queries=(QUERY,))))
    outlined = [frame for frame, axes in enumerate(made[0]) if axes.patches]
    assert outlined == [0, 1, 2]
    box = made[0][1].patches[0]
    assert (box.get_xy(), box.get_width(), box.get_height()) == ((-0.5, 7.5), 24, 24)
    marked = [(frame, line.get_xydata().tolist()) for frame, axes in enumerate(made[0]) for line in axes.lines]
    assert marked == [(1, [[9, 20]])]
    cells = [(frame, axes.patches[0].get_xy()) for frame, axes in enumerate(made[1]) if axes.patches]
    assert cells == [(1, (0.5, 1.5))]


def test_the_texts_say_encoder_weights_window_and_query():
    said = texts(stss_figure.figure(picture()))
    for part in ("clip.mp4", "encoder pixels (no weights)", "3 x 3 x 3", "grid of 3 x 4 x 4", "frame 1, x 9, y 20", "32 x 32"):
        assert part in said


def test_colours_meet_at_zero_only_where_there_are_values_on_both_sides():
    made = rows(stss_figure.figure(picture(orders=(1,))))
    low, high = made[1][0].get_images()[0].get_clim()
    assert low == -high
    made = rows(stss_figure.figure(picture(orders=(1,), features=torch.ones(1, 3, 4, 4, 5) + torch.rand(1, 3, 4, 4, 5))))
    low, high = made[1][0].get_images()[0].get_clim()
    assert 0 < low < high <= 1


def test_maps_and_norms_of_one_value_are_drawn(tmp_path):
    stss_figure.save(picture(window=(1, 1, 1)), tmp_path / "one.png")
    stss_figure.save(picture(features=torch.zeros(1, 3, 4, 4, 5)), tmp_path / "zero.png")
    assert (tmp_path / "one.png").stat().st_size > 1000


def test_the_png_opens_in_the_size_of_the_figure(tmp_path):
    drawn = picture(name="cost $a_b$ {x}.mp4")
    stss_figure.save(drawn, tmp_path / "a.png")
    pixels = matplotlib.image.imread(tmp_path / "a.png")
    width, height = stss_figure.figure(drawn).get_size_inches()
    assert pixels.shape[:2] == pytest.approx((height * 200, width * 200), abs=1)
    assert pixels[..., :3].std() > 0.05
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_many_frames_are_drawn_smaller_instead_of_wider():
    made = stss_figure.figure(picture(frames=32, orders=(1,), window=(1, 1, 1)))
    assert made.get_size_inches()[0] <= 15.01
    assert len(rows(made)[0]) == 32


def test_a_file_that_cannot_be_written_is_refused_before_and_after(tmp_path):
    with pytest.raises(UsageError, match=r"the figure is a png; end the name in \.png"):
        png.check(tmp_path / "a.svg")
    with pytest.raises(MissingError, match="no such folder"):
        png.check(tmp_path / "none" / "a.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(MissingError, match="cannot be written"):
        stss_figure.save(picture(orders=(1,)), tmp_path / "folder.png")
