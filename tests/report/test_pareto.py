"""The Pareto figure: the front by its definition, and names that do not lie over each other."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import add_run, learned, record, training_cell

from benchctl.errors import Inconclusive, UsageError
from benchctl.record import Measurement
from benchctl.report import figure, pareto
from benchctl.report.over_seeds import read
from benchctl.report.pareto import Panel, Point, draw, panels, with_front
from benchctl.report.table import Selection
from benchctl.statistics import sample
from benchctl.store.store import Store


def point(macs: float, top1: float, *, matched: bool = True) -> Point:
    return Point("x", "x", macs, sample([top1]), matched)


def found(store: Store) -> list[Panel]:
    return panels(read(store, Selection()))


def stored(store: Store, *given: tuple[str, float, float], used: float = 1.0, seeds: int = 2) -> Store:
    """Trainings by method, GMACs and accuracy."""
    cells = [training_cell(name, seed=s) for name, _, _ in given for s in range(seeds)]
    about = {name: (macs, top1) for name, macs, top1 in given}
    macs = {name: Measurement(metric="macs", kind="all", value=int(1e9 * about[name][0])) for name in about}
    results = [learned(c, about[c.method][1] + 0.01 * c.seed, macs[c.method], used=used if c.method == "off" else 1.0) for c in cells]
    add_run(store, record("r"), cells, results)
    return store


def test_the_front_worked_by_hand() -> None:
    points = [point(1, 0.5), point(2, 0.4), point(3, 0.7), point(3, 0.6), point(9, 0.7), point(10, 0.9, matched=False), point(0.5, 0.5)]
    assert [each.front for each in with_front(points)] == [False, False, True, False, False, False, True]


def test_equals_are_both_on_the_front_and_drawn_once() -> None:
    equal = with_front([point(1, 0.5), point(1, 0.5)])
    assert [each.front for each in equal] == [True, True]
    assert len(Panel("", tuple(equal), ()).front) == 1


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6), st.booleans()), min_size=1, max_size=12))
def test_the_front_is_what_none_beats(given: list[tuple[int, int, bool]]) -> None:
    made = with_front([point(macs, top1 / 10, matched=matched) for macs, top1, matched in given])
    for macs, top1, matched, on in ((m, t, f, p.front) for (m, t, f), p in zip(given, made)):
        beats = [(m, t) for m, t, f in given if f and m <= macs and t >= top1 and (m < macs or t > top1)]
        assert on == (matched and not beats)
    front = Panel("", tuple(made), ()).front
    assert [p.macs for p in front] == sorted({p.macs for p in front})
    assert [p.score.mean for p in front] == sorted({p.score.mean for p in front})


def test_points_are_trainings_with_their_macs(store: Store) -> None:
    (panel,) = found(stored(store, ("a", 2.0, 0.5), ("off", 1.0, 0.6), used=0.5))
    assert panel.title == "motion_shapes, 4,800 clips"
    assert {(p.label, p.macs, round(p.score.mean, 6), p.front) for p in panel.points} == {
        ("a", 2e9, 0.505, True),
        ("off †", 1e9, 0.605, False),
    }
    assert "†: budget not matched, as the accuracy table says; not on the front." in pareto._caption([panel])


def test_what_was_not_counted_is_named(store: Store) -> None:
    cells = [training_cell("a"), training_cell("b")]
    add_run(store, record("r"), cells, [learned(cells[0], 0.5, Measurement(metric="macs", kind="all", value=9)), learned(cells[1], 0.6)])
    (panel,) = found(store)
    assert ([p.label for p in panel.points], panel.uncounted) == (["a"], ("b",))
    said = pareto._caption([panel])
    assert "Not drawn, since their MACs were not counted: b." in said
    assert "One seed each: there are no intervals." in said


@pytest.mark.parametrize("crowd", [1, 30])
def test_names_are_in_the_picture_and_not_over_each_other(store: Store, crowd: int) -> None:
    """Thirty trainings in a narrow band, so that names must move, and one."""
    spread = [(f"method-{i}", 10 * 1.05**i, 0.5 + 0.05 * ((i * 7) % 11) / 11) for i in range(crowd)]
    drawn = found(stored(store, *spread, seeds=1))
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with figure.style():
        made = pareto._figure(drawn)
        FigureCanvasAgg(made).draw()
        (axes,) = made.axes
        edge = axes.get_window_extent()
        boxes = [text.get_window_extent() for text in axes.texts]
        assert len(boxes) == crowd
        assert all(edge.x0 - 1 <= b.x0 and b.x1 <= edge.x1 + 1 and edge.y0 - 1 <= b.y0 and b.y1 <= edge.y1 + 1 for b in boxes)
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_a_file_only_changes_with_what_it_shows(store: Store, tmp_path: Path, suffix: str) -> None:
    stored(store, ("a", 2.0, 0.5), ("b", 1.0, 0.6), ("c", 4.0, 0.7))
    digests = set()
    for name in ("a", "b"):
        draw(store, Selection(), tmp_path / f"{name}{suffix}")
        digests.add(hashlib.sha256((tmp_path / f"{name}{suffix}").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_nothing_to_draw(scaling: Store, tmp_path: Path) -> None:
    with pytest.raises(Inconclusive, match="no selected training has both an accuracy and a count of MACs"):
        draw(scaling, Selection(), tmp_path / "figure.png")
    with pytest.raises(UsageError, match=r"not written as '\.jpg'"):
        draw(scaling, Selection(), tmp_path / "figure.jpg")
