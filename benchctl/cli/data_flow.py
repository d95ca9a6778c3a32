"""`benchctl data flow`: optical flow of every clip, estimated once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from benchctl.cli.clip_progress import say, shown
from benchctl.cli.data import data
from benchctl.cli.options import setting
from benchctl.errors import DataMissing, UsageError
from benchctl.folders import cache_folder, data_root, flow_folder

if TYPE_CHECKING:
    from benchctl.data.clip_set import ClipSet
    from benchctl.data.flow_files import Estimate, FlowSet
    from benchctl.layers.flow import FlowEstimator

Estimator = Annotated[
    Literal["auto", "raft-large", "raft-small", "dis", "farneback"],
    typer.Option("--estimator", help="auto: raft-large where its weights can be had, else dis."),
]


@data.command()
def flow(
    name: Annotated[str, typer.Argument(metavar="DATASET", help="A data set: it is made if it can be, else it must be present.")],
    options: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the data set. Repeatable.")] = None,
    root: Annotated[Path | None, typer.Option("--root", metavar="FOLDER", help="Its folder; default: its name in $BENCHCTL_DATA.")] = None,
    estimator: Estimator = "auto",
    weights: Annotated[
        str | None, typer.Option("--weights", metavar="NAME|FILE", help="Of RAFT: a name in torchvision's list, a file, or random.")
    ] = None,
    stride: Annotated[int, typer.Option("--stride", min=1, metavar="N", help="To the frame N later: the recipe's frame_stride.")] = 8,
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option("--device", help="Where to estimate. auto: a GPU if there is one; OpenCV's never use it."),
    ] = "auto",
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="FOLDER", help="Where; default: $BENCHCTL_FLOW, else flow in the cache folder.")
    ] = None,
) -> None:
    """Estimate the optical flow of every clip of a data set. The same command again goes on where the last one ended."""
    from benchctl.data.flow_files import FlowSet, make
    from benchctl.data.named import open_named

    counts: Counter[str] = Counter()
    total = 0
    try:
        given = dict(setting(text) for text in options or ())
        clips = open_named(name, given, data_root=data_root(), cache=cache_folder(), root=root)
        total = len(clips.train) + len(clips.test)
        model = _estimator(estimator, weights)
        flow_set = FlowSet(folder or flow_folder(), model.name, model.weights, stride)
        flow_set.announce(weights)
        with shown(total, "flow") as show:
            for ended in make((*clips.train, *clips.test), flow_set, _estimate(model, device)):
                counts.update({ended.word: 1, "bytes": ended.size_bytes})
                show(ended)
    except KeyboardInterrupt:
        done = counts["done"] + counts["there"]
        say(f"benchctl: interrupted with the flow of {done} of {total} clips done; the same command goes on from there")
        raise typer.Exit(130) from None
    _report(clips, flow_set, counts, moved=flow_set.folder != flow_folder())


def _estimator(asked: str, weights: str | None) -> FlowEstimator:
    from benchctl.layers.flow import FlowEstimator, best_available

    if asked != "auto":
        return FlowEstimator(asked, weights=weights)  # type: ignore[arg-type]  # a Literal less `auto`
    if weights is not None:
        raise UsageError("whose weights?", where=f"--weights {weights}", fix="name the --estimator too")
    name, why = best_available()
    say(f"estimator {name}: {why}")
    return FlowEstimator(name)


def _estimate(model: FlowEstimator, device: str) -> Estimate:
    """The estimator on `device`, as the making of files calls it."""
    from benchctl.errors import DeviceMissing
    from benchctl.probes.device import cuda_unavailable

    missing = cuda_unavailable()
    if device == "cuda" and missing:
        raise DeviceMissing(f"no GPU can be used: {missing}", where="--device cuda", fix="run 'benchctl doctor', or leave --device out")
    place = "cpu" if device == "cpu" or missing else "cuda"
    model.to(place)

    def estimate(pairs: Any) -> Any:
        return model(pairs.to(place)).squeeze(1)

    return estimate


def _report(clips: ClipSet, flow_set: FlowSet, counts: Counter[str], *, moved: bool) -> None:
    """The answer; an error where no clip has flow."""
    if not counts["done"] + counts["there"]:
        raise DataMissing(f"none of the {counts['unreadable']} clips of '{clips.name}' has flow", fix="see above why")
    by = f"{flow_set.estimator} ({flow_set.weights})" if flow_set.weights else flow_set.estimator
    clips_word = "clip" if counts["done"] == 1 else "clips"
    typer.echo(
        f"{clips.name}, flow by {by}, stride {flow_set.stride}: {counts['done']} {clips_word} done, {counts['there']} there before, "
        f"{counts['unreadable']} unreadable; {counts['bytes'] / 2**20:,.1f} MiB in {flow_set.path}"
    )
    if moved:
        say(f"set BENCHCTL_FLOW={flow_set.folder} so that suites find it")
