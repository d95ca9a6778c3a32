"""Cosines of weights against their definition, and their figure."""

from __future__ import annotations

import math

import matplotlib.image
import pytest
import torch

from benchctl.visualize import weight_similarity_figure
from benchctl.visualize.weight_similarity import LayerSimilarity, common_prefix, cosine, layer_similarities


def definition(first: torch.Tensor, second: torch.Tensor) -> float:
    a, b = first.flatten().tolist(), second.flatten().tolist()
    dot = sum(x * y for x, y in zip(a, b))
    return dot / (math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b)))


@pytest.mark.parametrize("shape", [(3, 4), (5, 2, 3, 3), (2, 3, 1, 2, 2)])
def test_it_is_the_definition(shape):
    a, b = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    assert cosine(a, b) == pytest.approx(definition(a, b), abs=1e-14)
    assert cosine(a, 7 * b) == pytest.approx(cosine(a, b), abs=1e-6)


def test_a_worked_example():
    assert cosine(torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])) == pytest.approx(24 / 25)


def test_equal_is_one_and_negated_is_minus_one():
    for seed in range(20):
        a = torch.randn(7, 11, generator=torch.Generator().manual_seed(seed))
        assert cosine(a, a) == pytest.approx(1, abs=1e-12)
        assert -1 <= cosine(a, -a) <= -1 + 1e-12
        assert cosine(a, a) <= 1


def test_large_tensors_keep_their_digits():
    """In float32 a dot product of a million terms would be off by more."""
    a = torch.full((1000, 1000), 0.1)
    b = a.clone()
    b[0, 0] = 1000
    first, second = float(a[0, 0]), 1000.0
    exact = (999_999 * first**2 + first * second) / math.sqrt(1e6 * first**2) / math.sqrt(999_999 * first**2 + second**2)
    assert cosine(a, b) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [(0.0, 1.0, "all zero in the first"), (1.0, 0.0, "all zero in the second"), (1.0, math.nan, "not finite in the second"),
     (math.inf, 1.0, "not finite in the first")],
)  # fmt: skip
def test_without_a_direction_there_is_a_reason(first, second, why):
    a, b = ({"fc.weight": torch.full((2, 2), value)} for value in (first, second))
    assert layer_similarities(a, b) == (LayerSimilarity("fc", 4, None, why),)
    with pytest.raises(ValueError, match=why):
        cosine(a["fc.weight"], b["fc.weight"])


def test_layers_are_in_the_order_of_the_network_without_biases_and_norms():
    first = {
        "stem.weight": torch.ones(2, 3, 3, 3),
        "stem.bias": torch.ones(2),
        "blocks.0.norm.weight": torch.ones(4),
        "blocks.0.fc.weight": torch.ones(4, 4),
        "blocks.0.steps": torch.ones(2, 2, dtype=torch.int64),
        "cls_token": torch.ones(1, 1, 4),
        "head.weight": torch.ones(3, 4),
        "extra.weight": torch.ones(2, 2),
    }
    second = {**first, "head.weight": torch.ones(5, 4), "other.weight": torch.ones(2, 5)}
    del second["extra.weight"]
    rows = layer_similarities(first, second)
    assert [row.layer for row in rows] == ["stem", "blocks.0.fc", "cls_token", "head", "extra", "other"]
    assert [row.reason for row in rows] == ["", "", "", "shapes differ: 3 x 4 and 5 x 4", "only in the first", "only in the second"]
    assert [row.cosine is None for row in rows] == [False, False, False, True, True, True]
    assert [row.elements for row in rows] == [54, 16, 4, 12, 4, 10]


@pytest.mark.parametrize(
    ("layer", "group"),
    [("video.encoder.layer.11.attention.query", "video.encoder.layer.11"), ("image.layer1.0.downsample.0", "image.layer1.0"),
     ("conv1", ""), ("image.layer1", ""), ("blocks.3", "")],
)  # fmt: skip
def test_blocks_are_named_by_their_first_number(layer, group):
    assert LayerSimilarity(layer, 1, 0.5).group == group


def test_what_all_names_begin_with_is_whole_parts():
    def rows(*names: str) -> tuple[LayerSimilarity, ...]:
        return tuple(LayerSimilarity(name, 1, 0.5) for name in names)

    assert common_prefix(rows("video.encoder.a", "video.encoded.b")) == "video."
    assert common_prefix(rows("a.b", "c")) == ""
    assert common_prefix(rows("video.fc")) == "video."


def test_the_figure_has_a_bar_for_each_cosine_and_says_the_rest(tmp_path):
    rows = (
        LayerSimilarity("video.stem", 10, 0.98),
        *(LayerSimilarity(f"video.blocks.{block}.{part}", 10, 0.5 - 0.02 * block) for block in range(15) for part in ("qkv", "fc1", "fc2")),
        LayerSimilarity("video.back", 10, -0.25),
        LayerSimilarity("video.head", 10, None, "shapes differ: 3 x 4 and 5 x 4"),
    )
    picture = weight_similarity_figure.Picture("one$cell", "another", rows)
    made = weight_similarity_figure.figure(picture)
    (axes,) = made.axes
    assert [bar.get_width() for bar in axes.patches if bar.get_height() == pytest.approx(0.72)] == [r.cosine for r in rows[:-1]]
    assert [label.get_text() for label in axes.get_yticklabels()] == [row.layer.removeprefix("video.") for row in rows]
    assert axes.get_xlim()[0] < -0.25
    # the input is on top
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    said = " ".join(text.get_text().replace("\n", " ") for text in (*made.texts, *axes.texts))
    for part in ("one$cell", "another", "begin with video", "shapes differ: 3 x 4 and 5 x 4", "0.980", "-0.250"):
        assert part in said
    weight_similarity_figure.save(picture, tmp_path / "a.png")
    height, width = matplotlib.image.imread(tmp_path / "a.png").shape[:2]
    # some 15 pixels at 100 dots an inch for each of 48 layers
    assert height > 48 * 30
    assert width > 1200
