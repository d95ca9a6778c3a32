"""Tables in the forms that people and programs read: text, Markdown, CSV, JSON and LaTeX."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from benchctl.report.grid import Field, Grid, grid
from benchctl.report.table import Absent, Table

Form = Literal["text", "markdown", "csv", "json", "latex"]

SCHEMA_VERSION = 1

_GAP = "  "
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
    }
)


def render(table: Table, form: Form, *, width: int | None = None) -> str:
    """`table` in one form, without a line break at its end.

    Args:
        table: what to write.
        form: `csv` (RFC 4180) and `json` have every column in base units; the others what a reader needs, in G, M and GiB.
        width: characters in a line of the `text` form; a wider table continues below itself. None: as wide as it is.
    """
    if form == "json":
        return _json(table)
    if form == "csv":
        return _csv(table)
    writers = {"markdown": _markdown, "latex": _latex}
    return _text(grid(table), width) if form == "text" else writers[form](grid(table))


def columns(titles: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()) -> str:
    """Words in aligned columns under their titles, those named in `right` to the right."""
    texts = list(zip(*rows)) if rows else [()] * len(titles)
    return "\n".join(_lines([Field((title,), tuple(each), title in right, key=False) for title, each in zip(titles, texts)]))


def _text(table: Grid, width: int | None) -> str:
    head = [table.title]
    if table.common:
        head.append(f"every row: {', '.join(table.common)}")
    bands = ["\n".join(_lines(band)) for band in _bands(table.fields, width)]
    paragraphs = ["\n".join(_wrapped(head, width)), *bands]
    if table.notes:
        paragraphs.append("\n".join(_wrapped(table.notes, width)))
    return "\n\n".join(paragraphs)


def _lines(fields: Sequence[Field]) -> list[str]:
    height = max(len(field.heading) for field in fields)
    padded = []
    for field in fields:
        width = field.width
        texts = ("",) * (height - len(field.heading)) + field.heading + ("-" * width,) + field.texts
        padded.append([text.rjust(width) for text in texts] if field.right else [text.ljust(width) for text in texts])
    return [_GAP.join(line).rstrip() for line in zip(*padded)]


def _bands(fields: Sequence[Field], width: int | None) -> list[list[Field]]:
    """The columns in groups of at most `width` characters, each with the columns that name the rows; never less than a column."""
    key = [field for field in fields if field.key]
    rest = [field for field in fields if not field.key]
    if width is None or not rest:
        return [list(fields)]
    bands: list[list[Field]] = [[]]
    for field in rest:
        if bands[-1] and _width([*key, *bands[-1], field]) > width:
            bands.append([])
        bands[-1].append(field)
    return [[*key, *band] for band in bands]


def _width(fields: Sequence[Field]) -> int:
    return sum(field.width for field in fields) + len(_GAP) * (len(fields) - 1)


def _wrapped(lines: Sequence[str], width: int | None) -> list[str]:
    if width is None:
        return list(lines)
    return [part for line in lines for part in textwrap.wrap(line, max(width, 20), subsequent_indent="  ", break_long_words=False)]


def markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()) -> str:
    """As `columns`, in Markdown."""

    def line(texts: Sequence[str]) -> str:
        return "| " + " | ".join(" ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|") for text in texts) + " |"

    rule = "| " + " | ".join("---:" if title in right else "---" for title in titles) + " |"
    return "\n".join([line(titles), rule, *map(line, rows)])


def _markdown(table: Grid) -> str:
    parts = [f"**{table.title}**"]
    if table.common:
        parts.append(f"Every row: {', '.join(table.common)}.")
    titles = [" ".join(field.heading) for field in table.fields]
    parts.append(markdown_table(titles, table.rows(), right={title for title, field in zip(titles, table.fields) if field.right}))
    if table.notes:
        parts.append("\n".join(f"- {note}" for note in table.notes))
    return "\n\n".join(parts)


def _latex(table: Grid) -> str:
    def line(texts: Sequence[str]) -> str:
        return " & ".join(text.translate(_LATEX) for text in texts) + r" \\"

    common = f" Every row: {', '.join(table.common)}." if table.common else ""
    caption = f"{table.title[:1].upper()}{table.title[1:]}.{common}".translate(_LATEX)
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{caption}}}",
        rf"  \begin{{tabular}}{{{''.join('r' if field.right else 'l' for field in table.fields)}}}",
        r"    \toprule",
        f"    {line([' '.join(field.heading) for field in table.fields])}",
        r"    \midrule",
        *(f"    {line(row)}" for row in table.rows()),
        r"    \bottomrule",
        r"  \end{tabular}",
        *(rf"  \par{{\footnotesize {note.translate(_LATEX)}}}" for note in table.notes),
        r"\end{table}",
    ]
    return "\n".join(lines)


def _csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([column.name for column in table.columns])
    writer.writerows(["" if value.__class__ is Absent else value for value in row] for row in table.rows)
    return out.getvalue().removesuffix("\r\n")


def _json(table: Table) -> str:
    """One row a line: it compares well, and is written ten times as fast as an indented document."""
    names = [column.name for column in table.columns]
    parts = {
        "schema_version": str(SCHEMA_VERSION),
        "table": json.dumps(table.name),
        "columns": _json_lines({"name": column.name, "unit": column.unit} for column in table.columns),
        "rows": _json_lines(dict(zip(names, (None if value.__class__ is Absent else value for value in row))) for row in table.rows),
        "notes": _json_lines(table.notes),
    }
    return "{\n" + ",\n".join(f'  "{key}": {text}' for key, text in parts.items()) + "\n}"


def _json_lines(values: Iterable[object]) -> str:
    lines = list(map(_ENCODER.encode, values))
    return "[\n    " + ",\n    ".join(lines) + "\n  ]" if lines else "[]"


_ENCODER = json.JSONEncoder(allow_nan=False)
