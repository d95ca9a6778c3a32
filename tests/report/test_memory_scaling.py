"""The memory-scaling figure: what it finds to draw, and that a file only changes with it."""

import hashlib
from pathlib import Path

import pytest
from report_samples import CAP, GIB, METHODS, UNCALIBRATED, add_run, cell, predicted, record, result, sweep

from benchctl.errors import Inconclusive, MissingError, UsageError
from benchctl.record import CellResult, Measurement
from benchctl.report import figure, memory_scaling
from benchctl.report.memory_scaling import _caption, draw
from benchctl.report.memory_sweeps import Sweep, comparable, sweeps
from benchctl.report.table import Selection, selected
from benchctl.spec import Cell
from benchctl.store.store import Store


def found(store: Store) -> list[Sweep]:
    with selected(store, Selection()) as (snapshot, cells):
        return sweeps(cells, comparable(snapshot.readings("peak_memory_bytes")))


def reading(kind: str, source: str, device: str, value: int) -> Measurement:
    return Measurement(metric="peak_memory_bytes", kind=kind, source=source, device=device, value=value)


def test_the_sweeps_are_those_of_the_suite(scaling: Store) -> None:
    by_resolution, by_frames = found(scaling)
    assert (by_resolution.axis, by_resolution.held) == ("resolution", "8 frames, batch 1")
    assert (by_frames.axis, by_frames.held) == ("frames", "224 x 224 pixels, batch 16")
    for each in (by_resolution, by_frames):
        assert [line.label for line in each.lines] == sorted(METHODS)
        assert {line.source for line in each.lines} == {"predicted"}
        assert (each.caps_gib, each.calibrations) == ((48.0,), (UNCALIBRATED,))
    timesformer = next(line for line in by_resolution.lines if line.label == "timesformer-b")
    assert [p.x for p in timesformer.points] == [224, 336, 448, 672, 896, 1024]
    assert [p.oom for p in timesformer.points] == [p.gib * GIB > CAP for p in timesformer.points]
    expected = predicted(cell("timesformer-b", resolution=448)).value("peak_memory_bytes", kind="allocated")
    assert timesformer.points[2].gib == expected / GIB


def test_other_shapes_work_as_well(store: Store) -> None:
    cells = [cell(frames=f, resolution=112, batch=2) for f in (4, 8)] + [cell("videomae-b", frames=32)]
    add_run(store, record("r"), cells, [predicted(c) for c in cells])
    (only,) = found(store)
    assert (only.axis, only.held, [line.label for line in only.lines]) == ("frames", "112 x 112 pixels, batch 2", ["timesformer-b"])


def test_frames_are_those_that_are_counted(store: Store) -> None:
    """A method that reads 9 frames for 8 units stands beside those that read 8."""
    plain = [cell(frames=8, resolution=r) for r in (224, 448)]
    more = [cell("videomae-b", frames=9, resolution=r) for r in (224, 448)]
    counted = [predicted(c).model_copy(update={"notes": {**predicted(c).notes, "counted_frames": 8}}) for c in more]
    add_run(store, record("r"), [*plain, *more], [*(predicted(c) for c in plain), *counted])
    (only,) = found(store)
    assert (only.axis, only.held) == ("resolution", "8 frames, batch 1")
    assert [line.label for line in only.lines] == ["timesformer-b", "videomae-b"]
    assert only.counted == ("videomae-b reads 9 frames for 8",)
    assert "videomae-b reads 9 frames for 8." in _caption([only])


def test_measured_and_predicted_are_two_lines(store: Store) -> None:
    cells = [cell(resolution=r) for r in (224, 448)]
    both = [result(c, reading("allocated", "measured", "cuda", 3 * GIB), reading("allocated", "predicted", "cuda", 2 * GIB)) for c in cells]
    add_run(store, record("r"), cells, both)
    (only,) = found(store)
    assert {(line.label, line.source): [p.gib for p in line.points] for line in only.lines} == {
        ("timesformer-b", "measured"): [3, 3],
        ("timesformer-b", "predicted"): [2, 2],
    }


def test_another_device_is_another_quantity(store: Store) -> None:
    cells = [cell(resolution=r) for r in (224, 448)]
    numbers = (reading("allocated", "predicted", "cuda", 2 * GIB), reading("allocated", "measured", "cpu", 9 * GIB))
    add_run(store, record("r"), cells, [result(c, *numbers) for c in cells])
    (only,) = found(store)
    assert [(line.source, line.points[0].gib) for line in only.lines] == [("predicted", 2)]


def test_what_ran_out_of_memory_is_never_drawn_at_what_it_had_reached(store: Store) -> None:
    fits, fails, known = (cell(resolution=r) for r in (224, 448, 672))
    oom = {"outcome": "oom", "reason": "CUDA out of memory"}
    reached = reading("allocated", "measured", "cuda", 47 * GIB)
    add_run(
        store,
        record("r"),
        [fits, fails, known],
        [
            result(fits, reading("allocated", "measured", "cuda", GIB)),
            result(fails, reached, **oom),
            result(known, reached, reading("allocated", "predicted", "cuda", 90 * GIB), **oom),
        ],
    )
    (only,) = found(store)
    points = {(line.source, p.x): (p.gib, p.oom) for line in only.lines for p in line.points}
    assert points == {("measured", 224): (1, False), ("measured", 448): (None, True), ("predicted", 672): (90, True)}
    said = _caption([only])
    assert "Crosses on the cap: out of memory; what the step would need is not known." in said
    assert "of unknown calibration" in said


def test_what_tells_lines_apart_is_in_their_names(store: Store) -> None:
    cells = [cell(resolution=r, precision=p) for r in (224, 448) for p in ("fp32", "fp16")]
    add_run(store, record("r"), cells, [predicted(c) for c in cells])
    (only,) = found(store)
    assert [line.label for line in only.lines] == ["timesformer-b, fp16", "timesformer-b, fp32"]


def only_outcomes(c: Cell) -> CellResult:
    return result(c, outcome="oom", reason="CUDA out of memory")


@pytest.mark.parametrize("leave", [predicted, only_outcomes])
@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_a_file_only_changes_with_what_it_shows(store: Store, tmp_path: Path, suffix: str, leave) -> None:
    cells = sweep()
    add_run(store, record("r"), cells, [leave(c) for c in cells])
    digests = set()
    for name in ("a", "b"):
        file = tmp_path / f"{name}{suffix}"
        draw(store, Selection(), file)
        digests.add(hashlib.sha256(file.read_bytes()).hexdigest())
    assert len(digests) == 1
    assert file.read_bytes()[:5] == {".svg": b"<?xml", ".png": b"\x89PNG\r", ".pdf": b"%PDF-"}[suffix]


def test_the_picture_says_that_it_is_predicted_and_not_calibrated(scaling: Store) -> None:
    said = _caption(found(scaling))
    assert f"Dashed, hollow: predicted, {UNCALIBRATED}." in said
    assert "Crosses: out of memory, at what the step would need." in said
    assert "measured." not in said


def test_nothing_is_drawn_outside_of_the_picture(scaling: Store) -> None:
    """Every line label and tick label inside the figure, and no two line labels over each other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with figure.style():
        made = memory_scaling._figure(found(scaling), "allocated on cuda", _caption(found(scaling)))
        canvas = FigureCanvasAgg(made)
        canvas.draw()
        edge = made.bbox
        for axes in made.axes:
            boxes = [text.get_window_extent() for text in (*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels(), axes.title)]
            assert all(edge.x0 <= b.x0 and b.x1 <= edge.x1 and edge.y0 <= b.y0 and b.y1 <= edge.y1 for b in boxes)
            names = [text.get_window_extent() for text in axes.texts if text.get_text() in METHODS]
            assert len(names) == len(METHODS)
            assert not any(a.overlaps(b) for i, a in enumerate(names) for b in names[:i])
            ticks = [label.get_window_extent() for label in axes.get_xticklabels()]
            assert not any(a.overlaps(b) for i, a in enumerate(ticks) for b in ticks[:i])


@pytest.mark.parametrize(
    ("limits", "labels"),
    [
        ((1.2, 100), ["2", "4", "8", "16", "32", "64"]),
        ((0.01, 0.07), ["16", "32", "64"]),
        ((0.2, 3), ["0.25", "0.5", "1", "2"]),
        ((0.01, 800), ["0.01562", "0.0625", "0.25", "1", "4", "16", "64", "256"]),
    ],
)
def test_memory_ticks_are_powers_of_two(limits: tuple[float, float], labels: list[str]) -> None:
    assert memory_scaling._ticks(limits)[1] == labels


def test_line_styles_are_told_apart() -> None:
    assert len({figure.line_style(i) for i in range(49)}) == 49


def test_errors(scaling: Store, store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not written as '\.jpg'; end the name in \.svg, \.png or \.pdf"):
        draw(scaling, Selection(), tmp_path / "figure.jpg")
    with pytest.raises(MissingError, match="cannot be written: No such file or directory"):
        draw(scaling, Selection(), tmp_path / "nowhere" / "figure.png")


def test_nothing_to_draw(store: Store, tmp_path: Path) -> None:
    with pytest.raises(Inconclusive, match="the database holds no results yet"):
        draw(store, Selection(), tmp_path / "figure.png")
    add_run(store, record("r"), [cell()], [predicted(cell())])
    with pytest.raises(Inconclusive, match="differ in only their resolution or only their frames; run a suite that sweeps them"):
        draw(store, Selection(), tmp_path / "figure.png")
    assert list(tmp_path.glob("figure*")) == []
