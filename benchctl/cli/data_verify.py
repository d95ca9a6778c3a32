"""`benchctl data verify`: whether every clip of a data set can be read, and what is in it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchctl.cli.clip_progress import say, shown
from benchctl.cli.data import data
from benchctl.cli.options import Json, setting
from benchctl.errors import DataMissing
from benchctl.folders import cache_folder, data_root

if TYPE_CHECKING:
    from benchctl.data.clip_set import ClipSet
    from benchctl.data.verify import Balance, SplitSummary, Summary, Verification

#: unreadable and missing clips that the answer names
_NAMED = 5


@data.command()
def verify(
    name: Annotated[str, typer.Argument(metavar="DATASET", help="A data set: it is made if it can be, else it must be present.")],
    options: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the data set. Repeatable.")] = None,
    root: Annotated[Path | None, typer.Option("--root", metavar="FOLDER", help="Its folder; default: its name in $BENCHCTL_DATA.")] = None,
    processes: Annotated[int | None, typer.Option("--processes", min=1, metavar="N", help="Default: one per core.")] = None,
    as_json: Json = False,
) -> None:
    """Decode every clip of a data set completely, and keep what was found so that training need not look again.

    The same command again looks only at clips that are new or changed. Clips that are trained on and tested on are an error.
    """
    from benchctl.data import index
    from benchctl.data.named import open_named
    from benchctl.data.verify import Verification

    given = dict(setting(text) for text in options or ())
    clips = open_named(name, given, data_root=data_root(), cache=cache_folder(), root=root)
    total = len(clips.train) + len(clips.test)
    verification = Verification(clips)
    if verification.torn:
        say(f"benchctl: {verification.file}: {verification.torn}; the index is made anew")
    if verification.outdated:
        say(f"benchctl: {verification.file}: made with other decoders than those that are here; every clip is decoded again")
    try:
        with shown(total, "clips", unreadable="unreadable:") as show:
            for ended in verification.run(processes or _processes()):
                show(ended)
    except KeyboardInterrupt:
        done = verification.looked_at + verification.known
        say(f"benchctl: interrupted with {done} of {total} clips looked at; the same command goes on from there")
        raise typer.Exit(130) from None
    summary = verification.summary()
    typer.echo(json.dumps(_document(clips, verification, summary), indent=2) if as_json else _text(clips, verification, summary))
    if not summary.decoders:
        raise DataMissing(f"none of the {total} clips of '{clips.name}' can be read", fix="see above why")
    index.refuse(clips.name, summary.leaks)


def _processes() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _document(clips: ClipSet, verification: Verification, summary: Summary) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "dataset": clips.name,
        "fingerprint": clips.fingerprint,
        "index": str(verification.file),
        "decoder_versions": verification.decoders,
        "looked_at": verification.looked_at,
        "known_before": verification.known,
        "listed": len(clips.train) + len(clips.test) + len(clips.missing),
        "missing": list(clips.missing),
        "unreadable": [{"clip": clip, "reason": reason} for clip, reason in summary.unreadable.items()],
        "train": asdict(summary.train),
        "test": asdict(summary.test),
        "decoders": summary.decoders,
        "leakage": [{"train": leak.train.id, "test": leak.test.id} for leak in summary.leaks],
    }


def _text(clips: ClipSet, verification: Verification, summary: Summary) -> str:
    """The answer, for people."""
    listed = len(clips.train) + len(clips.test) + len(clips.missing)
    decoders = ", ".join(f"{decoder} {count}" for decoder, count in summary.decoders.items()) or "none"
    seconds = summary.train.duration_seconds + summary.test.duration_seconds
    lines = [
        f"{clips.name}: {listed} clips listed, {len(clips.missing)} missing, {len(summary.unreadable)} unreadable",
        *_named("missing", clips.missing),
        *_named("unreadable", [f"{clip}: {reason}" for clip, reason in summary.unreadable.items()]),
        _split("train", summary.train),
        *_balance(summary.train.balance),
        _split("test", summary.test),
        *_balance(summary.test.balance),
        f"duration: {_duration(seconds)}",
        f"decoders: {decoders}",
        f"in train and in test: {len(summary.leaks) or 'no clip'}",
        f"index: {verification.file} ({verification.looked_at} clips decoded now, {verification.known} known before)",
    ]
    return "\n".join(lines)


def _named(what: str, clips: tuple[str, ...] | list[str]) -> list[str]:
    """The first few."""
    more = [f"  and {len(clips) - _NAMED} more {what}"] if len(clips) > _NAMED else []
    return [*(f"  {what}: {clip}" for clip in clips[:_NAMED]), *more]


def _split(name: str, split: SplitSummary) -> str:
    size = f"{split.size_bytes / 2**20:,.1f} MiB"
    line = f"{name}: {split.readable} of {split.clips} clips readable, {_duration(split.duration_seconds)}, {size}"
    return f"{line}; {split.repeated} have the content of another" if split.repeated else line


def _balance(balance: Balance | None) -> list[str]:
    if balance is None:
        return []
    line = f"  readable clips per class: min {balance.least}, median {balance.median:g}, max {balance.most}"
    if balance.least == balance.most:
        return [line]
    return [line, f"  fewest: {', '.join(balance.fewest_in)}; most: {', '.join(balance.most_in)}"]


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} s"
