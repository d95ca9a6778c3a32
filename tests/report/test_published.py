"""Published numbers: the reader, and the table that shows ours beside them."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import GIB, UNCALIBRATED, add_run, cell, record, result

from benchctl.errors import Inconclusive, UsageError
from benchctl.record import Measurement
from benchctl.report import comparison, published
from benchctl.report.render import render
from benchctl.report.table import Absent, Selection, Table
from benchctl.spec import Cell, DatasetRef
from benchctl.store.store import Store

PAPER = """\
paper: lamp
title: A Lamp
venue: nowhere
year: 2024
tables:
  - table: "1"
    caption: Costs
    protocol: {frames: 8}
    columns:
      - {name: FLOPs, metric: macs, unit: G, kind: without_correlation, counted_views: 3}
      - {name: TP, metric: trainable_params, unit: M}
      - {name: Mem, metric: peak_memory_bytes, unit: GB, kind: not stated, protocol: {batch_size: 32}, note: GB may be GiB.}
      - {name: HMDB, metric: top1, unit: "%", dataset: hmdb51, protocol: {frames: 16, crops: 3, clips: 2}}
    rows:
      - {label: ours, values: [528, 21, 18.8, 70.2], cell: {method: side4video-b, frames: 8, resolution: 224, batch_size: 32}}
      - {label: ours 1st, values: [300, 20.5, "-", illegible], note: printed twice., exception: {macs: another head.},
         cell: {method: side4video-b, options: {orders: [1], window: [[3, 9, 9], [5, 9, 9]]}, frames: 8, resolution: 224}}
      - {label: theirs, values: [1.5, 2, 3, blank], protocol: {frames: 4}, kind: not stated}
"""


def parse(text: str) -> published.Paper:
    return published.parse(text, Path("lamp.yaml"))


def numbers(text: str = PAPER) -> dict[tuple[str, str], published.Number]:
    return {(n.row, n.column): n for entry in published.entries(parse(text)) for n in entry.numbers}


# the reader


def test_a_number_stands_alone_in_base_units():
    n = numbers()["ours", "FLOPs"]
    assert (n.paper, n.table, n.metric, n.value, n.unit, n.printed) == ("lamp", "1", "macs", 528_000_000_000, "count", "528 G")
    assert (n.kind, n.counted_views, n.protocol.frames, n.half_digit) == ("without_correlation", 3, 8, 5e8)
    memory, score = numbers()["ours", "Mem"], numbers()["ours", "HMDB"]
    assert (memory.value, memory.unit, memory.half_digit, memory.protocol.batch_size) == (18_800_000_000, "bytes", 5e7, 32)
    assert (score.value, score.half_digit, score.dataset) == (0.702, pytest.approx(5e-4), "hmdb51")
    assert score.protocol == published.Protocol(frames=16, crops=3, clips=2), "a column says more than its table"


def test_absence_is_the_papers_word():
    found = numbers()
    for column, word in (("Mem", "-"), ("HMDB", "illegible")):
        n = found["ours 1st", column]
        assert (n.value, n.half_digit, n.absent, n.printed) == (None, None, word, word)


def test_a_row_changes_what_its_table_says():
    n = numbers()["theirs", "FLOPs"]
    assert (n.protocol.frames, n.kind) == (4, "not stated")
    assert numbers()["theirs", "TP"].kind == "", "a kind is about operations"


@given(st.decimals("0.1", "9999", places=1), st.sampled_from(["T", "G", "M", "count", "GB", "%", "h"]))
def test_units_convert_exactly(printed, unit):
    table = (
        f'  - {{table: "1", caption: c, columns: [{{name: x, metric: y, unit: "{unit}"}}], rows: [{{label: a, values: [{printed}]}}]}}\n'
    )
    (n,) = numbers(PAPER[: PAPER.index("  - table")] + table).values()
    scale = {"T": 10**12, "G": 10**9, "M": 10**6, "count": 1, "GB": 10**9, "h": 3600}.get(unit)
    expected = printed * scale if scale else printed / 100
    assert n.value == pytest.approx(float(expected), rel=1e-15)
    assert isinstance(n.value, int) == (expected == int(expected))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("year: 2024", "jear: 2024", "lamp.yaml:4:1: jear: unknown key; did you mean 'year'?"),
        ("metric: trainable_params, unit: M", "metric: trainable_params, unit: Q", "lamp.yaml:11:46: tables[0].columns[1].unit: 'Q' is not one of"),
        ("TP, metric: trainable_params, unit: M", "TP, metric: trainable_params, unit: GB", "lamp.yaml:11:46: tables[0].columns[1].unit: trainable_params is in count, and 'GB' is not"),
        ("kind: not stated, protocol", "kind: guessed, protocol", "peak_memory_bytes has no kind 'guessed'; kinds: allocated, reserved, device, rss, not stated"),
        ("unit: M}", "unit: M, kind: all}", "trainable_params has no kind 'all'; kinds: none"),
        (", counted_views: 3}", "}", "lamp.yaml:10:9: tables[0].columns[0].counted_views: a column of macs must say how many views its numbers contain"),
        ("unit: M}", "unit: M, counted_views: 1}", "a column of trainable_params contains no views"),
        (", dataset: hmdb51", "", "a column of top1 must say of which data set"),
        ("[528, 21, 18.8, 70.2]", "[528, 21, 18.8]", "lamp.yaml:15:23: tables[0].rows[0].values: 3 values in 4 columns; one each for FLOPs, TP, Mem, HMDB"),
        ("[528, 21", "[528, none", "lamp.yaml:15:37: tables[0].rows[0].values[1]: 'none' is neither a number nor one of '-', 'blank', 'illegible'"),
        ("[528, 21", "[528, true", "True is neither a number"),
        ("[528, 21", "[528, .nan", "nan is neither a number"),
        ("label: ours 1st", "label: ours", "lamp.yaml:16:10: tables[0].rows[1].label: 'ours' is there twice"),
        ("{name: TP", "{name: Mem", "'Mem' is there twice"),
        ("paper: lamp", "paper: lump", "lamp.yaml:1:1: paper: 'lump' is in a file called 'lamp.yaml'; call one as the other: lump.yaml"),
        ("kind: not stated}", "kind: most}", "lamp.yaml:18:76: tables[0].rows[2].kind: operations have no kind 'most'"),
        ("exception: {macs", "exception: {flops", "tables[0].rows[1].exception.flops: the table has no column of 'flops'"),
        ("kind: without_correlation, counted", "kind: not stated, counted", "tables[0].rows[0].kind: FLOPs cannot be compared while its kind is not stated"),
        ("frames: 8, resolution: 224, batch_size: 32}", "frames: 16, resolution: 224, batch_size: 32}", "tables[0].rows[0].cell.frames: FLOPs is about 8 frames"),
        (", batch_size: 32}}", ", batch_size: 16}}", "tables[0].rows[0].cell.batch_size: the memory is about a batch of 32"),
        (", batch_size: 32}}", "}}", "the memory is about a batch of 32"),
        ("frames: 8, resolution: 224}}", "frames: 8, resolution: 224, batch_size: 8}}", "tables[0].rows[1].cell.batch_size: the row has no memory"),
        ("frames: 8, resolution: 224}}", "frames: 0, resolution: 224}}", "tables[0].rows[1].cell.frames: input should be greater than 0"),
        ("year: 2024", "year: 2024\nyear: 2025", "lamp.yaml:5:1: found duplicate key 'year'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(old: str, new: str, message: str):
    assert PAPER.count(old) >= 1, "the example has changed"
    with pytest.raises(UsageError) as caught:
        parse(PAPER.replace(old, new, 1))
    assert message in str(caught.value)
    assert str(caught.value).startswith("lamp.yaml:")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lamp.yaml: the file is empty; a file of published numbers needs at least paper, title, venue and tables"),
        ("- 1\n", "lamp.yaml:1:1: a file of published numbers is a mapping of keys to values; begin with 'paper: ...'"),
        ("paper: [\n", "not valid YAML"),
    ],
)
def test_what_is_no_such_file(text: str, message: str):
    with pytest.raises(UsageError, match=r"lamp\.yaml") as caught:
        parse(text)
    assert message in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        published.load(tmp_path / "lamp.yaml")
    (tmp_path / "lamp.yaml").write_bytes(b"paper: \xff")
    with pytest.raises(UsageError, match="not UTF-8 text"):
        published.load(tmp_path / "lamp.yaml")


def test_counts_by_table():
    counted = published.counts(parse(PAPER))
    assert counted == {"1": (3, 9, 2)}
    assert str(counted["1"]) == "9 numbers in 3 rows, of which benchctl can run 2"


# ours beside them


@pytest.fixture
def lamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The only published file is the one above."""
    file = tmp_path / "lamp.yaml"
    file.write_text(PAPER)
    monkeypatch.setattr(published, "shipped", lambda: {"lamp": file})


def counted(**macs: int) -> list[Measurement]:
    return [Measurement(metric="macs", kind=kind, value=value) for kind, value in macs.items()]


def profile(of: Cell, *more: Measurement, **changes):
    params = Measurement(metric="trainable_params", value=21_105_454)
    macs = counted(all=180_000_000_000, without_attention=1, without_correlation=176_000_000_000)
    return result(of, params, *macs, *more, notes={"prediction_calibration": UNCALIBRATED}, **changes)


def memory(value: int, source: str = "predicted") -> Measurement:
    return Measurement(metric="peak_memory_bytes", kind="allocated", value=value, source=source, device="cuda")


def rows(table: Table) -> list[dict[str, object]]:
    return [dict(zip([c.name for c in table.columns], row, strict=True)) for row in table.rows]


@pytest.mark.usefixtures("lamp")
def test_one_cell_and_one_row_by_hand(store: Store):
    c = cell("side4video-b", batch=32)
    add_run(store, record("r"), [c], [profile(c, memory(9_400_000_000))])
    table = comparison.build(store, Selection())
    (row,) = rows(table)
    assert (row["paper"], row["table"], row["row"], row["method"], row["batch_size"]) == ("lamp", "1", "ours", "side4video-b", 32)
    # 3 views of 176 G are the published 528 G, to the digit
    assert (row["ours_macs"], row["published_macs"], row["ratio_macs"]) == (528_000_000_000, 528_000_000_000, 1.0)
    assert (row["macs_kind"], row["macs_views"], row["macs_source"]) == ("without_correlation", 3, "measured")
    assert (row["ours_trainable_params"], row["published_trainable_params"]) == (21_105_454, 21_000_000)
    assert row["ratio_trainable_params"] == 21_105_454 / 21_000_000
    assert (row["ours_peak_memory_bytes"], row["published_peak_memory_bytes"], row["ratio_peak_memory_bytes"]) == (9.4e9, 18.8e9, 0.5)
    assert (row["memory_source"], row["memory_kind"], row["memory_device"]) == ("predicted", "allocated", "cuda")
    assert (row["ours_top1"], row["published_top1"]) == (Absent("n/a"), Absent("n/a")), "a profile has no accuracy to compare"
    assert table.notes == (
        f"Predicted memory is {UNCALIBRATED} (the cell).",
        "Published peak memory: GB may be GiB.",
        "Rounding of the published number alone explains 1 of 2 differences.",
        "Published rows without a stored cell: 1 of 2 (lamp 1: 1).",
    )


@pytest.mark.usefixtures("lamp")
def test_options_name_the_row(store: Store):
    c = cell("side4video-b", options={"orders": [1], "window": [[3, 9, 9], [5, 9, 9]]})
    other = cell("side4video-b", options={"orders": [2]})
    add_run(store, record("r"), [c, other], [profile(c), profile(other)])
    table = comparison.build(store, Selection())
    (row,) = rows(table)
    assert (row["row"], row["options"]) == ("ours 1st", "orders=1 window=3x9x9,5x9x9")
    assert row["ratio_macs"] == 528 / 300
    assert row["published_peak_memory_bytes"] == row["memory_source"] == Absent("n/a"), "the paper prints a dash"
    assert "Exception: lamp Table 1, ours 1st, MACs: another head." in table.notes
    assert not any("lamp 1 ours 1st (MACs)" in note for note in table.notes), "its reason is recorded"
    assert "lamp Table 1, ours 1st: printed twice." in table.notes


@pytest.mark.usefixtures("lamp")
@pytest.mark.parametrize(
    ("macs", "params", "named"),
    [
        (177_700_000_000, 21_000_000, []),  # 533.1 G: 0.97 % over
        (178_000_000_000, 21_000_000, ["MACs"]),  # 534 G: 1.1 % over
        (174_000_000_000, 21_600_000, ["MACs"]),  # 522 G: 1.1 % under; parameters 2.9 % over
        (176_000_000_000, 21_700_000, ["trainable parameters"]),  # 3.3 % and 0.7 M over
        (176_000_000_000, 20_500_000, []),  # 21 M stands for it
    ],
)
def test_differences_without_a_reason_are_named(store: Store, macs: int, params: int, named: list[str]):
    c = cell("side4video-b", batch=32)
    counts = [*counted(without_correlation=macs), Measurement(metric="trainable_params", value=params)]
    add_run(store, record("r"), [c], [result(c, *counts)])
    notes = " ".join(comparison.build(store, Selection()).notes)
    for word in ("MACs", "trainable parameters"):
        assert (f"lamp 1 ours ({word})" in notes) == (word in named)


@pytest.mark.usefixtures("lamp")
def test_another_batch_stands_in_for_all_but_the_memory(store: Store):
    small, large = cell("side4video-b", batch=1), cell("side4video-b", batch=16)
    add_run(store, record("r"), [large, small], [profile(large, memory(5)), profile(small, memory(1))])
    table = comparison.build(store, Selection())
    (row,) = rows(table)
    assert (row["batch_size"], row["ratio_macs"]) == (1, 1.0)
    assert "The published memory of 1 of these rows is of another batch than the stored cell, and is not compared." in table.notes
    assert row["ours_peak_memory_bytes"] == row["published_peak_memory_bytes"] == row["ratio_peak_memory_bytes"] == Absent("n/a")
    right = cell("side4video-b", batch=32)
    add_run(store, record("s"), [large, small, right], [profile(right, memory(18_800_000_000))])
    table = comparison.build(store, Selection())
    (row,) = rows(table)
    assert (row["batch_size"], row["ratio_peak_memory_bytes"]) == (32, 1.0)
    assert not any("another batch" in note for note in table.notes)


@pytest.mark.usefixtures("lamp")
def test_other_shapes_and_methods_are_not_compared(store: Store):
    others = [cell("side4video-b", frames=16), cell("side4video-b", resolution=336), cell("timesformer-b")]
    add_run(store, record("r"), others, [profile(c) for c in others])
    with pytest.raises(Inconclusive) as caught:
        comparison.build(store, Selection())
    assert "no cell stored is about a published row; run one first: benchctl run " in str(caught.value)
    assert "memory_scaling" in str(caught.value), "a shipped suite with side4video-b"
    with pytest.raises(Inconclusive, match="no cell of suite 'memory_scaling' is about a published row"):
        comparison.build(store, Selection(suite="memory_scaling"))


@pytest.mark.usefixtures("lamp")
def test_sources_never_share_a_column(store: Store):
    measured, guessed = cell("side4video-b", batch=32, precision="fp16"), cell("side4video-b", batch=32)
    add_run(store, record("r"), [measured, guessed], [profile(measured, memory(4 * GIB, "measured")), profile(guessed, memory(3 * GIB))])
    table = comparison.build(store, Selection())
    assert [(r["precision"], r["memory_source"]) for r in rows(table)] == [("fp16", "measured"), ("fp32", "predicted")]
    heads = render(table, "markdown").splitlines()[4]
    for head in (
        "our peak memory measured, allocated, cuda (GiB)",
        "our peak memory predicted, allocated, cuda (GiB)",
        "our MACs measured (G)",
    ):
        assert head in heads
    assert heads.count("published peak memory (GiB)") == 1


@pytest.mark.usefixtures("lamp")
def test_no_other_count_stands_in_for_the_papers_convention(store: Store):
    c = cell("side4video-b", batch=32)
    add_run(store, record("r"), [c], [result(c, *counted(all=176_000_000_000))])
    table = comparison.build(store, Selection())
    (row,) = rows(table)
    assert row["published_macs"] == 528_000_000_000
    assert row["ours_macs"] == row["ratio_macs"] == row["macs_source"] == Absent("n/a")
    assert "MACs counted 'without_correlation' are not recorded for 1 of these rows: no other count stands in for them." in table.notes


@pytest.mark.usefixtures("lamp")
def test_a_cell_that_failed_or_was_not_run_says_so(store: Store):
    failed, waiting = cell("side4video-b", batch=32), cell("side4video-b", batch=32, precision="bf16")
    add_run(store, record("r"), [failed, waiting], [result(failed, outcome="failed", reason="no such kernel")])
    table = comparison.build(store, Selection())
    words = {r["precision"]: (r["ours_macs"], r["ratio_macs"], r["ours_peak_memory_bytes"]) for r in rows(table)}
    assert words == {"fp32": (Absent("failed"),) * 3, "bf16": (Absent("not run"),) * 3}
    assert "Failed: no such kernel (1 of 2 cells: side4video-b)." in table.notes


@pytest.mark.usefixtures("lamp")
def test_accuracy_is_compared_on_the_same_data_and_frames(store: Store):
    hmdb, other = DatasetRef(name="hmdb51"), DatasetRef(name="egogestar")
    right = cell("side4video-b", task="evaluate", frames=16, dataset=hmdb)
    wrong = [cell("side4video-b", task="evaluate", frames=8, dataset=hmdb), cell("side4video-b", task="evaluate", frames=16, dataset=other)]
    top1 = Measurement(metric="top1", value=0.351)
    add_run(store, record("r"), [right, *wrong], [result(c, top1) for c in [right, *wrong]])
    table = comparison.build(store, Selection())
    (row,) = rows(table)
    assert (row["task"], row["dataset"], row["ours_top1"], row["published_top1"]) == ("evaluate", "hmdb51", 0.351, 0.702)
    assert row["ratio_top1"] == pytest.approx(0.5)
    assert row["published_macs"] == Absent("n/a"), "it was not profiled"
    assert any(note.startswith("Published accuracies are those of the paper's training") for note in table.notes)


@pytest.mark.usefixtures("lamp")
@pytest.mark.parametrize("form", ["text", "markdown", "csv", "json", "latex"])
def test_every_form(store: Store, form):
    c = cell("side4video-b", batch=32)
    add_run(store, record("r"), [c], [profile(c, memory(9_400_000_000))])
    text = render(comparison.build(store, Selection()), form)
    assert "published" in text
    if form == "json":
        (row,) = json.loads(text)["rows"]
    elif form == "csv":
        (row,) = csv.DictReader(io.StringIO(text))
    else:
        assert "528.00" in text
        assert "100.50" in text, "21.105 M over 21 M, as a share"
        return
    assert float(row["published_peak_memory_bytes"]) == 18.8e9
    assert float(row["published_trainable_params_half_digit"]) == 5e5


# the command line


def benchctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "benchctl", *arguments], capture_output=True, text=True, check=False)


def test_the_command_compares(store: Store, database: Path):
    c = cell("side4video-b", batch=32)
    add_run(store, record("r"), [c], [profile(c, memory(9_400_000_000))])
    ended = benchctl("report", "--table", "efficiency", "--published", "--db", str(database), "--format", "json")
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert document["table"] == "efficiency-published"
    (row,) = [r for r in document["rows"] if r["table"] == "3"]
    assert (row["row"], row["published_macs"], row["ratio_macs"]) == ("B/16 Side4Video", 528_000_000_000, 1.0)


def test_the_command_says_what_has_no_published_numbers(tmp_path: Path):
    ended = benchctl("report", "--table", "memory", "--published", "--db", str(tmp_path / "none.db"))
    assert ended.returncode == 2
    assert ended.stderr == "benchctl: --published: table 'memory' has no published numbers beside it; tables that have: efficiency\n"


@pytest.mark.parametrize("arguments", ["list published", "report --table efficiency --published"])
def test_the_commands_never_import_torch(store: Store, database: Path, arguments: str):
    c = cell("side4video-b", batch=32)
    add_run(store, record("r"), [c], [profile(c)])
    code = f"import sys; from benchctl.cli.app import app; app({[*arguments.split(), '--db', str(database)]!r}, standalone_mode=False)"
    code = f"from benchctl.cli import app as a; a._register(); {code}; assert not {{'torch', 'pandas', 'matplotlib'}} & set(sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "MOSS" in ended.stdout or "moss" in ended.stdout


def test_the_command_lists_papers_and_their_tables():
    listed = json.loads(benchctl("list", "published", "--json").stdout)["published"]
    names = {entry["name"]: entry["summary"] for entry in listed}
    assert "numbers in" in names["moss"]
    assert names["moss 3"] == "Efficiency comparison: 56 numbers in 14 rows, of which benchctl can run 14"
