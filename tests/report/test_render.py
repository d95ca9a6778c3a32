"""Each form holds every number, escaped as the form asks, and converted only where people read it."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchctl.report import efficiency, memory
from benchctl.report.render import columns, render
from benchctl.report.table import Absent, Column, Selection, Table
from benchctl.store.store import Store

COLUMNS = (
    Column("method", "method"),
    Column("batch_size", "batch", text="varying"),
    Column("macs", "MACs", "count", show="G"),
    Column("memory_source", "source", text="never"),
    Column("peak_memory_bytes", "peak\nmemory", "bytes", show="GiB", split=("memory_source",)),
    Column("top1", "top-1", "fraction", show="%", text="present"),
    Column("outcome", "outcome", text="varying"),
)
NASTY = r"a|b_c&d%e$f#g{h}i~j^k\l<m>"


def table(*rows: tuple[object, ...], notes: tuple[str, ...] = ()) -> Table:
    return Table("t", "the title", COLUMNS, rows, notes)


SIMPLE = table(
    ("moss-s", 1, 148_370_000_000, "predicted", 2.38 * 2**30, Absent("n/a"), "ok"),
    ("moss-b", 1, 179_340_000_000, "measured", 110.0 * 2**30, Absent("n/a"), "oom"),
    ("mose", 1, Absent("failed"), Absent("failed"), Absent("failed"), Absent("n/a"), "failed"),
    notes=("One.", "Two."),
)


def test_text() -> None:
    assert render(SIMPLE, "text").splitlines() == [
        "the title",
        "every row: batch 1",
        "",
        "                    peak       peak",
        "                  memory     memory",
        "          MACs  measured  predicted",
        "method     (G)     (GiB)      (GiB)  outcome",
        "------  ------  --------  ---------  -------",
        "moss-s  148.37                 2.38  ok",
        "moss-b  179.34    110.00             oom",
        "mose    failed    failed             failed",
        "",
        "One.",
        "Two.",
    ]


def test_markdown() -> None:
    assert render(SIMPLE, "markdown").splitlines() == [
        "**the title**",
        "",
        "Every row: batch 1.",
        "",
        "| method | MACs (G) | peak memory measured (GiB) | peak memory predicted (GiB) | outcome |",
        "| --- | ---: | ---: | ---: | --- |",
        "| moss-s | 148.37 |  | 2.38 | ok |",
        "| moss-b | 179.34 | 110.00 |  | oom |",
        "| mose | failed | failed |  | failed |",
        "",
        "- One.",
        "- Two.",
    ]


def test_json_has_base_units_and_null() -> None:
    document = json.loads(render(SIMPLE, "json"))
    assert document["columns"][2] == {"name": "macs", "unit": "count"}
    assert document["columns"][4] == {"name": "peak_memory_bytes", "unit": "bytes"}
    assert document["rows"][0]["macs"] == 148_370_000_000
    assert [row["peak_memory_bytes"] for row in document["rows"]] == [2.38 * 2**30, 110 * 2**30, None]
    assert [row["top1"] for row in document["rows"]] == [None] * 3
    assert document["notes"] == ["One.", "Two."]


def test_json_refuses_what_is_not_a_number() -> None:
    with pytest.raises(ValueError, match="JSON"):
        render(table(("m", 1, float("nan"), "measured", 1, 1, "ok")), "json")


def test_csv_is_rfc_4180() -> None:
    text = render(table(('say "hi",\nthere', 1, 2, "measured", 3, Absent("n/a"), "ok")), "csv")
    assert "\r\n" in text
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["method"] == 'say "hi",\nthere'
    assert (row["macs"], row["top1"]) == ("2", "")


def test_markdown_escapes() -> None:
    line = render(table((NASTY, 1, 2, "measured", 3, 4, "ok")), "markdown").splitlines()[-1]
    assert line.startswith(r"| a\|b_c&d%e$f#g{h}i~j^k\\l<m> |")
    assert len(re.findall(r"(?<!\\)\|", line)) == 5, "four columns: the others are above the table"


def test_latex_escapes() -> None:
    text = render(table((NASTY, 1, 2, "measured", 3, 4, "ok"), notes=("50 % of_it",)), "latex")
    escaped = r"a\textbar{}b\_c\&d\%e\$f\#g\{h\}i\textasciitilde{}j\textasciicircum{}k\textbackslash{}l\textless{}m\textgreater{}"
    assert escaped in text
    assert r"50 \% of\_it" in text
    assert r"\toprule" in text
    for line in text.splitlines():
        if line.endswith(r" \\"):
            assert len(re.findall(r"(?<!\\)&", line)) == len(re.search(r"\{tabular\}\{(\w+)\}", text)[1]) - 1


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_latex_compiles(scaling: Store, tmp_path: Path) -> None:
    body = render(efficiency.build(scaling, Selection()), "latex")
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{body}\end{{document}}"
    (tmp_path / "t.tex").write_text(document)
    subprocess.run(["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.parametrize("width", [10, 20, 40, 60, 80, 100, 132, 200])
@pytest.mark.parametrize("build", [efficiency.build, memory.build])
def test_no_width_loses_a_number(scaling: Store, build, width: int) -> None:
    built = build(scaling, Selection())
    whole, banded = render(built, "text"), render(built, "text", width=width)
    numbers = re.findall(r"\d+\.\d+", whole)
    assert numbers, "a table without numbers proves nothing"
    assert sorted(set(re.findall(r"\d+\.\d+", banded))) == sorted(set(numbers))
    assert "..." not in banded
    assert "\x1b" not in banded
    assert "\u2026" not in banded
    if width >= 80:
        assert max(map(len, banded.splitlines())) <= width


@pytest.mark.parametrize("form", ["text", "markdown", "latex"])
def test_predicted_never_stands_under_measured(training: Store, form: str) -> None:
    text = render(memory.build(training, Selection()), form)
    lines = [re.split(r" {2,}|[|&]", line) for line in text.splitlines()]
    assert not any("3.00" in line and "2.00" in line for line in lines)
    if form == "text":
        heading = next(line for line in text.splitlines() if "predicted" in line and "measured" in line)
        for value, word in (("3.00", "measured"), ("2.00", "predicted")):
            line = next(line for line in text.splitlines() if value in line)
            start = heading.index(word)
            assert start <= line.index(value) < start + len(word)


def test_small_numbers_do_not_read_as_nothing() -> None:
    text = render(table(("tiny", 1, 12_345, "measured", 5 * 2**20, 0.5, "ok"), ("big", 1, 10**12, "measured", 2**36, 0.0, "ok")), "text")
    assert "1.2e-05" in text
    assert "1000.0000" in text
    assert "0.0049" in text
    assert "50.00" in text
    assert "0.00" in text, "what is zero reads as zero"


def test_what_all_rows_share_is_said_once() -> None:
    row = ("m", 4, 1, "measured", 1, Absent("n/a"), "ok")
    assert "every row: batch 4, outcome ok" in render(table(row, row), "text")
    assert "batch" not in render(table(row, row), "text").splitlines()[6]


def test_a_table_of_no_rows() -> None:
    assert render(table(), "text")
    assert json.loads(render(table(), "json"))["rows"] == []


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12)


@given(
    st.lists(st.tuples(words, st.integers(1, 9), st.integers(0, 10**15), st.sampled_from(["measured", "predicted"]), st.floats(0, 1e12)))
)
def test_csv_and_json_give_back_what_they_were_given(given_rows: list[tuple[object, ...]]) -> None:
    built = table(*((*row, Absent("n/a"), "ok") for row in given_rows))
    back = json.loads(render(built, "json"))["rows"]
    assert [tuple(row.values())[:5] for row in back] == given_rows
    read = list(csv.reader(io.StringIO(render(built, "csv"), newline="")))[1:]
    assert [(r[0], int(r[1]), int(r[2]), r[3], float(r[4])) for r in read] == given_rows
    for form in ("text", "markdown", "latex"):
        assert render(built, form, width=80)


def test_columns_align_words_and_numbers() -> None:
    assert columns(("cell", "MACs"), [("a", "1.00 G"), ("bcdef", "10.00 G")], right=("MACs",)).splitlines() == [
        "cell      MACs",
        "-----  -------",
        "a       1.00 G",
        "bcdef  10.00 G",
    ]
    assert columns(("cell", "MACs"), []).splitlines()[0] == "cell  MACs"


def test_a_report_imports_neither_torch_nor_pandas(scaling: Store, database: Path) -> None:
    script = (
        "import sys\n"
        "from benchctl import lookup\n"
        "from benchctl.report.render import render\n"
        "from benchctl.report.table import Selection\n"
        "from benchctl.store.store import Store\n"
        f"with Store.open({str(database)!r}, read_only=True) as store:\n"
        "    for name in lookup.entries('table'):\n"
        "        render(lookup.load('table', name).build(store, Selection()), 'text')\n"
        "print(*{'torch', 'pandas', 'matplotlib', 'numpy'} & set(sys.modules))\n"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "\n"
