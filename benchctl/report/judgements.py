"""What becomes of papers' claims, in the forms that people and programs read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from benchctl.claims import Judgement, Word
from benchctl.pins import ValueKey
from benchctl.report.render import markdown_table

Form = Literal["text", "json", "markdown"]

SCHEMA_VERSION = 1
_TITLES = ("claim", "judged", "left", "right", "effect", "95 % interval", "decided by", "says")
_NUMBERS = ("left", "right", "effect")


def render(judgements: Sequence[Judgement], form: Form) -> str:
    """`judgements` in one form, without a line break at its end; below the table, what would decide the rest."""
    if form == "json":
        return _json(judgements)
    counts = Counter(each.word for each in judgements)
    head = f"{len(judgements)} claim{'s' if len(judgements) > 1 else ''}: " + ", ".join(f"{counts[word]} {word}" for word in Word)
    if form == "markdown":
        listed = "\n".join(f"- {note}" for note in _notes(judgements))
        table = markdown_table(_TITLES, [_row(each) for each in judgements], right=_NUMBERS)
        return "\n\n".join(part for part in (f"**{head}**", table, listed) if part)
    return "\n\n".join([head, *map(_paragraph, judgements)])


def _paragraph(judged: Judgement) -> str:
    """One claim in a few lines: what is claimed, what there is, and what would decide it."""
    claim, row = judged.claim, _row(judged)
    name, word, left, right, effect, interval, test, says = row
    sides = [f"{side.variant} {value}" for side, value in zip(claim.sides, (left, right)) if value]
    numbers = ", ".join(sides) + (f": {effect}" if effect else "") + (f" ({interval})" if interval else "")
    lines = [f"{word:<12}  {name}", says, numbers, test]
    if judged.word is not Word.UNDECIDED and claim.note:
        lines.append(claim.note)
    if judged.command:
        lines.append(judged.command)
    return "\n              ".join(line for line in lines if line)


def _row(judged: Judgement) -> tuple[str, ...]:
    claim = judged.claim
    interval = "" if judged.interval is None else " to ".join(f"{100 * value:+.1f}" for value in judged.interval)
    return (
        f"{judged.paper}/{claim.name}",
        str(judged.word),
        _value(judged, judged.left),
        _value(judged, judged.right),
        _effect(judged),
        interval,
        judged.test,
        f"{claim.says} ({claim.where})",
    )


def _value(judged: Judgement, value: float | int | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    metric = ValueKey.parse(judged.claim.metric or "").metric
    if metric == "peak_memory_bytes":
        return f"{value / 2**30:.2f} GiB"
    if metric in ("macs", "flops"):
        return f"{value / 1e9:.2f} G"
    if metric in ("params", "trainable_params"):
        return f"{value / 1e6:.2f} M"
    return f"{100 * value:.1f} %"


def _effect(judged: Judgement) -> str:
    if judged.effect is None:
        return ""
    return f"{judged.effect:.3f} x" if judged.claim.ratio is not None else f"{100 * judged.effect:+.1f} points"


def _notes(judgements: Sequence[Judgement]) -> list[str]:
    """How what was run differs from the paper, and what would fill what is missing."""
    notes = [
        f"{each.paper}/{each.claim.name}: {each.claim.note}" for each in judgements if each.claim.note and each.word is not Word.UNDECIDED
    ]
    return notes + [f"{each.paper}/{each.claim.name}: to decide it: {each.command}" for each in judgements if each.command]


def _json(judgements: Sequence[Judgement]) -> str:
    listed = [
        {
            "paper": each.paper,
            **each.claim.model_dump(mode="json", exclude_none=True, include={"name", "says", "where", "suite", "metric", "note"}),
            "judged": str(each.word),
            "left": each.left,
            "right": each.right,
            "effect": each.effect,
            "interval": each.interval,
            "test": each.test,
            "missing": each.missing,
            "command": each.command or None,
        }
        for each in judgements
    ]
    return json.dumps({"schema_version": SCHEMA_VERSION, "claims": listed}, indent=2, allow_nan=False)
