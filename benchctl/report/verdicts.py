"""Verdicts of the gate in the forms that people and CI read: text, Markdown, JSON and JUnit XML."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal
from xml.etree import ElementTree

from benchctl.gate import Verdict, Word, exit_code
from benchctl.report.render import columns, markdown_table

Form = Literal["text", "json", "markdown", "junit"]

SCHEMA_VERSION = 1
#: what a reader must see first
_ORDER = (Word.REGRESSED, Word.INCONCLUSIVE, Word.NOT_COMPARABLE, Word.IMPROVED, Word.PASS)
_TITLES = ("verdict", "cell", "what", "pinned", "found", "change", "rule")
_NUMBERS = ("pinned", "found", "change")
_SAYS = {0: "passed", 1: "regressed", 4: "not decided"}
_MIB, _GIB = 2**20, 2**30


def render(verdicts: Sequence[Verdict], form: Form, *, title: str, every: bool = False) -> str:
    """`verdicts` in one form, without a line break at its end.

    Args:
        verdicts: of the gate.
        form: `json` and `junit` have all of them.
        title: what was compared with what.
        every: the other forms, too, have all of them: else those that passed are only counted.
    """
    if form == "json":
        return _json(verdicts, title)
    if form == "junit":
        return _junit(verdicts, title)
    shown = [v for v in _sorted(verdicts) if every or v.warning or v.word is not Word.PASS]
    head = f"{title}: {_SAYS[exit_code(verdicts)]} ({_counted(verdicts)})"
    rows = [_row(verdict) for verdict in shown]
    if form == "text":
        return f"{head}\n\n{columns(_TITLES, rows, right=_NUMBERS)}" if rows else head
    return f"**{head}**\n\n{markdown_table(_TITLES, rows, right=_NUMBERS)}" if rows else f"**{head}**"


def _sorted(verdicts: Sequence[Verdict]) -> list[Verdict]:
    return sorted(verdicts, key=lambda verdict: _ORDER.index(verdict.word))


def _counted(verdicts: Sequence[Verdict]) -> str:
    counts = Counter(verdict.word for verdict in verdicts)
    said = [f"{counts[word]} {word}" for word in _ORDER if counts[word]]
    warnings = sum(verdict.warning for verdict in verdicts)
    return ", ".join(said + ([f"{warnings} to look at"] if warnings else [])) or "nothing is pinned"


def _row(verdict: Verdict) -> tuple[str, ...]:
    pinned, found = _amounts(verdict)
    word = f"{verdict.word} (look)" if verdict.warning else str(verdict.word)
    return (word, verdict.label, verdict.subject, pinned, found, _change(verdict), verdict.rule)


def _change(verdict: Verdict) -> str:
    """How far it moved: points of a share, and else a share of what it was."""
    before, after = verdict.pinned, verdict.found
    if isinstance(before, str) or isinstance(after, str) or before is None or after is None:
        return ""
    if verdict.unit == "fraction":
        return f"{100 * (after - before):+.2f}"
    if not verdict.unit or not before:
        return f"{after - before:+.3g}"
    return f"{100 * (after / before - 1):+.2f} %"


def _amounts(verdict: Verdict) -> tuple[str, str]:
    """Both numbers in one unit, with the digits that tell them apart."""
    both = (verdict.pinned, verdict.found)
    numbers = [each for each in both if isinstance(each, int | float)]
    scale, unit = 1.0, ""
    if verdict.unit == "bytes" and numbers:
        scale, unit = (_GIB, " GiB") if max(numbers) >= _GIB else (_MIB, " MiB")
    if verdict.unit == "fraction":
        scale, unit = 0.01, " %"

    def written(value: float | int | str | None) -> str:
        if value is None or isinstance(value, str):
            return value or "none"
        if verdict.unit in ("bytes", "fraction"):
            return f"{value / scale:.2f}{unit}"
        return f"{value:,}"

    first, second = map(written, both)
    if verdict.unit == "bytes" and first == second and both[0] != both[1]:
        first, second = (f"{each:,} B" for each in both)
    return first, second


def _json(verdicts: Sequence[Verdict], title: str) -> str:
    content = {
        "schema_version": SCHEMA_VERSION,
        "title": title,
        "exit_code": exit_code(verdicts),
        "counts": dict(Counter(str(verdict.word) for verdict in verdicts)),
        "verdicts": [{**asdict(verdict), "word": str(verdict.word)} for verdict in _sorted(verdicts)],
    }
    return json.dumps(content, indent=2, allow_nan=False)


def _junit(verdicts: Sequence[Verdict], title: str) -> str:
    """Testcases: one for each verdict. Nothing is `skipped`: what could not be compared is no pass."""
    failed, undecided = (sum(test(v) for v in verdicts) for test in (_failed, _undecided))
    suite = ElementTree.Element(
        "testsuite", name=title, tests=str(len(verdicts)), failures=str(failed), errors=str(undecided), skipped="0", time="0"
    )
    for verdict in verdicts:
        case = ElementTree.SubElement(suite, "testcase", classname=verdict.label, name=verdict.subject, time="0")
        pinned, found = _amounts(verdict)
        said = f"{found}, pinned {pinned}: {verdict.rule}"
        if _failed(verdict) or _undecided(verdict):
            kind = "failure" if _failed(verdict) else "error"
            ElementTree.SubElement(case, kind, type=str(verdict.word), message=f"{verdict.word}: {said}")
        else:
            ElementTree.SubElement(case, "system-out").text = f"{verdict.word}: {said}"
    root = ElementTree.Element("testsuites", tests=suite.get("tests", ""), failures=str(failed), errors=str(undecided))
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode")


def _failed(verdict: Verdict) -> bool:
    return verdict.word is Word.REGRESSED


def _undecided(verdict: Verdict) -> bool:
    return verdict.decides and not _failed(verdict)
