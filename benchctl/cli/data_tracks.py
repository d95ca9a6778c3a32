"""`benchctl data tracks`: point tracks of every clip, estimated once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from benchctl.cli.clip_progress import say, shown
from benchctl.cli.data import data
from benchctl.cli.options import setting
from benchctl.errors import DataMissing, MissingError
from benchctl.folders import cache_folder, data_root, tracks_folder

if TYPE_CHECKING:
    from benchctl.data.clip_set import ClipSet
    from benchctl.data.track_files import TrackSet
    from benchctl.spec import TrackEstimatorName

Estimator = Annotated[
    Literal["auto", "cotracker3", "lucas-kanade"],
    typer.Option("--estimator", help="auto: cotracker3 where its package and weights are there, else lucas-kanade."),
]


@data.command()
def tracks(
    name: Annotated[str, typer.Argument(metavar="DATASET", help="A data set: it is made if it can be, else it must be present.")],
    options: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the data set. Repeatable.")] = None,
    root: Annotated[Path | None, typer.Option("--root", metavar="FOLDER", help="Its folder; default: its name in $BENCHCTL_DATA.")] = None,
    estimator: Estimator = "auto",
    processes: Annotated[int | None, typer.Option("--processes", min=1, metavar="N", help="Default: one per core; one on a GPU.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="FOLDER", help="Where; default: $BENCHCTL_TRACKS, else tracks in the cache folder.")
    ] = None,
) -> None:
    """Track points through every clip of a data set. The same command again goes on where the last one ended."""
    from benchctl.data.named import open_named
    from benchctl.data.track_files import TrackSet, make

    counts: Counter[str] = Counter()
    total = 0
    try:
        given = dict(setting(text) for text in options or ())
        asked = _estimator(estimator)
        clips = open_named(name, given, data_root=data_root(), cache=cache_folder(), root=root)
        total = len(clips.train) + len(clips.test)
        track_set = TrackSet(folder or tracks_folder(), asked)
        with shown(total, "tracks") as show:
            for ended in make((*clips.train, *clips.test), track_set, processes or _processes(asked)):
                counts.update({ended.word: 1, "bytes": ended.size_bytes})
                show(ended)
    except KeyboardInterrupt:
        done = counts["done"] + counts["there"]
        say(f"benchctl: interrupted with the tracks of {done} of {total} clips done; the same command goes on from there")
        raise typer.Exit(130) from None
    _report(clips, track_set, counts, moved=track_set.folder != tracks_folder())


def _estimator(asked: str) -> TrackEstimatorName:
    from benchctl.data.tracks import cotracker_missing

    if asked == "lucas-kanade":
        return "lucas-kanade"
    missing = cotracker_missing()
    if asked == "cotracker3":
        if missing:
            raise MissingError(missing, where="--estimator cotracker3", fix="or use lucas-kanade")
        return "cotracker3"
    if missing:
        say(f"estimator lucas-kanade: {missing}, for cotracker3")
    return "lucas-kanade" if missing else "cotracker3"


def _processes(estimator: TrackEstimatorName) -> int:
    import os

    if estimator == "cotracker3":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _report(clips: ClipSet, track_set: TrackSet, counts: Counter[str], *, moved: bool) -> None:
    """The answer; an error where no clip has tracks."""
    if not counts["done"] + counts["there"]:
        raise DataMissing(f"none of the {counts['unreadable']} clips of '{clips.name}' has tracks", fix="see above why")
    clips_word = "clip" if counts["done"] == 1 else "clips"
    typer.echo(
        f"{clips.name}, tracks by {track_set.estimator}: {counts['done']} {clips_word} done, {counts['there']} there before, "
        f"{counts['unreadable']} unreadable; {counts['bytes'] / 2**20:,.1f} MiB in {track_set.path}"
    )
    if moved:
        say(f"set BENCHCTL_TRACKS={track_set.folder} so that suites find them")
