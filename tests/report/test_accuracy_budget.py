"""The accuracy-budget figure: where its points are, what it says of them, and that nothing leaves the picture."""

import hashlib
from pathlib import Path

import pytest
from report_samples import add_run, learned, record, result, training_cell

from benchctl.errors import Inconclusive, UsageError
from benchctl.report import accuracy_budget, figure, scales
from benchctl.report.accuracy_budget import Panel, draw, panels
from benchctl.report.over_seeds import read
from benchctl.report.table import Selection
from benchctl.store.store import Store

CURVE = (0.2, 0.3, 0.4)


def found(store: Store) -> list[Panel]:
    return panels(read(store, Selection(), ("top1", "train_flops")))


@pytest.fixture
def curves(store: Store) -> Store:
    """Two methods of two seeds, one of them off the budget, and a single frame."""
    cells = [training_cell(m, seed=s) for m in ("a", "b") for s in range(2)]
    results = [learned(c, 0.5 + 0.02 * c.seed, curve=CURVE, used=0.9 if c.method == "b" else 1.0) for c in cells]
    single = training_cell("vit-b", frames=1)
    add_run(store, record("r"), [*cells, single], [*results, learned(single, 0.16, curve=(0.1, 0.12, 0.15))])
    return store


def test_points_are_means_at_what_was_used(curves: Store) -> None:
    (panel,) = found(curves)
    assert (panel.dataset, str(panel.given), panel.classes, panel.floor) == ("motion_shapes", "4,800 clips", 8, ("vit-b", 0.16))
    a, b = panel.curves
    assert (a.label, b.label, b.unmatched) == ("a", "b †", "unmatched: 10.0 % off")
    assert [point.used for point in a.points] == [1200, 2400, 3600, 4800]
    assert [point.used for point in b.points] == [1200, 2400, 3600, pytest.approx(4320)]
    assert [point.score.mean for point in a.points] == pytest.approx([0.2, 0.3, 0.4, 0.51])
    assert [point.flops for point in a.points] == pytest.approx([8e12, 16e12, 24e12, 32e12])
    assert panel.flops


def test_a_point_that_a_seed_lacks_is_not_drawn(store: Store) -> None:
    cells = [training_cell(seed=s) for s in range(2)]
    add_run(store, record("r"), cells, [learned(cells[0], 0.5, curve=CURVE), learned(cells[1], 0.5, curve=CURVE[:2])])
    (panel,) = found(store)
    assert [point.used for point in panel.curves[0].points] == [1200, 2400, 4800]


def test_operations_have_no_panel_of_their_own_where_they_are_what_is_matched(store: Store) -> None:
    cells = [training_cell("a", budget=("train_gflops", 2e6, None)), training_cell("b", budget=("samples", 4800, None))]
    add_run(store, record("r"), cells, [learned(c, 0.5, curve=CURVE) for c in cells])
    assert {panel.given.match_on: panel.flops for panel in found(store)} == {"train_gflops": False, "samples": True}


def test_seeds_that_did_not_end_well_and_uses_that_nobody_knows(store: Store) -> None:
    cells = [training_cell("a", seed=s) for s in range(2)] + [training_cell("b", budget=("energy_j", 50.0, None))]
    add_run(
        store,
        record("r"),
        cells,
        [learned(cells[0], 0.5, curve=CURVE), result(cells[1], outcome="oom", reason="m"), learned(cells[2], 0.5, used=None)],
    )
    (panel,) = found(store)
    assert [(curve.label, len(curve.points)) for curve in panel.curves] == [("a", 4)]


def test_the_caption_says_what_is_drawn(curves: Store) -> None:
    said = accuracy_budget._caption(found(curves))
    assert "Bands: 95 % interval of the mean, by Student's t." in said
    assert "Dotted: chance, one of 8 classes." in said
    assert "Dashed: the best training that sees one frame (vit-b)." in said
    assert "†: budget not matched: b (10.0 % off)." in said


def test_many_lines_have_no_bands(store: Store) -> None:
    cells = [training_cell(f"method-{i}", seed=s) for i in range(25) for s in range(2)]
    add_run(store, record("r"), cells, [learned(c, 0.3 + 0.01 * c.seed, curve=CURVE) for c in cells])
    drawn = found(store)
    assert "No bands where there are more than 7 lines" in accuracy_budget._caption(drawn)
    inside(drawn)


def test_nothing_is_drawn_outside_of_the_picture(curves: Store) -> None:
    inside(found(curves))


def inside(drawn: list[Panel]) -> None:
    """Every text inside the figure, every name there, and no two names over each other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with figure.style():
        made = accuracy_budget._figure(drawn)
        FigureCanvasAgg(made).draw()
        edge = made.bbox
        labels = [curve.label for panel in drawn for curve in panel.curves]
        seen = []
        for axes in made.axes:
            low, high = axes.get_ylim()
            # a tick beyond the limits has a label that is not drawn
            ticks = [label for label in axes.get_yticklabels() if low <= label.get_position()[1] <= high]
            texts = [*axes.texts, *axes.get_xticklabels(), *ticks, axes.title, axes.xaxis.label, axes.yaxis.label]
            boxes = [text.get_window_extent() for text in texts if text.get_text()]
            assert all(edge.x0 <= b.x0 and b.x1 <= edge.x1 and edge.y0 <= b.y0 and b.y1 <= edge.y1 for b in boxes)
            names = [text for text in axes.texts if text.get_text() in labels]
            seen += [text.get_text() for text in names]
            extents = [text.get_window_extent() for text in names]
            assert not any(a.overlaps(b) for i, a in enumerate(extents) for b in extents[:i])
        assert sorted(seen) == sorted(labels)


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_a_file_only_changes_with_what_it_shows(curves: Store, tmp_path: Path, suffix: str) -> None:
    digests = set()
    for name in ("a", "b"):
        draw(curves, Selection(), tmp_path / f"{name}{suffix}")
        digests.add(hashlib.sha256((tmp_path / f"{name}{suffix}").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_nothing_to_draw(scaling: Store, tmp_path: Path) -> None:
    with pytest.raises(Inconclusive, match="no selected cell trained to an accuracy within a budget; run a suite that trains"):
        draw(scaling, Selection(), tmp_path / "figure.png")
    with pytest.raises(UsageError, match=r"not written as '\.jpg'"):
        draw(scaling, Selection(), tmp_path / "figure.jpg")
    assert list(tmp_path.glob("figure*")) == []


def test_axes_are_in_units_that_read_well() -> None:
    assert scales.of_budget("train_gflops", 2e6) == scales.Scale("train PFLOPs", 1e6)
    assert scales.of_budget("train_gflops", 900) == scales.Scale("train GFLOPs", 1)
    assert scales.of_budget("wall_seconds", 5400) == scales.Scale("training time (hours)", 3600)
    assert scales.of_budget("energy_j", 5400) == scales.Scale("energy (kJ)", 1000)
    assert scales.of_budget("samples", 5400) == scales.Scale("clips seen", 1)
    assert scales.of_budget("v100_gpu_hours", 3) == scales.Scale("V100-hours", 1)
    assert [scales.written(number) for number in (0.5, 1.125, 4800.0, 20)] == ["0.5", "1.125", "4,800", "20"]


@pytest.mark.parametrize(
    ("limits", "ticks"),
    [
        ((0.9, 40), [1, 2, 5, 10, 20]),
        ((3, 1300), [3, 10, 30, 100, 300, 1000]),
        ((0.01, 1e9), [0.01, 1, 100, 1e4, 1e6, 1e8]),
        ((100, 200), [100, 200]),
    ],
)
def test_ticks_of_a_logarithmic_axis(limits: tuple[float, float], ticks: list[float]) -> None:
    assert scales.log_ticks(*limits) == pytest.approx(ticks)
