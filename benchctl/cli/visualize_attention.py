"""`benchctl visualize attention` and `benchctl visualize flow`: where models look, and what moves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from benchctl.cli.options import setting
from benchctl.cli.visualize import Checkpoint, Frames, Pretrained, Resolution, Stride, visualize
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from benchctl.visualize.attention import Layers
    from benchctl.visualize.clip import Clip
    from benchctl.vocabulary import ClipShape

ClipName = Annotated[str, typer.Argument(metavar="CLIP", help="A video file, or toy: two groups of moving shapes.")]
Methods = Annotated[list[str], typer.Option("--method", metavar="PRESET", help="Whose attention; repeatable, each one is drawn below.")]
Options = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change an option of the preset, for example layers=2. Repeatable.")
]
LayerNumbers = Annotated[
    str, typer.Option("--layers", metavar="last|all|N,...", help="Whose attention: each layer, counted from 1, is a row of its own.")
]
Estimator = Annotated[
    Literal["auto", "raft-large", "raft-small", "dis", "farneback"],
    typer.Option("--estimator", help="auto: raft-large where its weights can be had, else dis."),
]
Weights = Annotated[str | None, typer.Option("--weights", metavar="NAME|FILE", help="RAFT's weights. Default: those for Sintel.")]


@visualize.command()
def attention(
    clip: ClipName,
    method: Methods,
    layers: LayerNumbers = "last",
    frames: Frames = 8,
    stride: Stride = None,
    resolution: Resolution = 224,
    pretrained: Pretrained = False,
    checkpoint: Checkpoint = None,
    settings: Options = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE.png", help="Default: attention-CLIP.png")] = None,
) -> None:
    """Draw where methods look in a clip, as heatmaps over its frames, and print the file's name."""
    from benchctl.visualize import attention, attention_figure, png
    from benchctl.visualize import clip as clips
    from benchctl.visualize.model import load_model
    from benchctl.vocabulary import ClipShape

    for option, given in (("--checkpoint", checkpoint), ("--set", settings)):
        if given and len(method) > 1:
            raise UsageError(f"{len(method)} methods", where=option, fix="it is for one: name a single --method")
    changes = dict(setting(text) for text in settings or ())
    asked = _layers(layers)
    file = output or Path(f"attention-{Path(clip).stem}.png")
    png.check(file)
    for preset in method:
        attention.check(preset)

    shown: dict[ClipShape, Clip] = {}
    maps: list[attention.AttentionMaps] = []
    for preset in dict.fromkeys(method):
        # attention is written out, since other backends do not show their weights
        loaded = load_model(
            preset,
            frames=frames,
            resolution=resolution,
            pretrained=pretrained,
            checkpoint=checkpoint,
            changes=changes,
            attention="eager",
        )
        # a TIME layer reads more frames, and smaller ones
        shape = loaded.read or ClipShape(frames=frames, resolution=resolution)
        if shape not in shown:
            shown[shape] = clips.read(clip, frames=shape.frames, resolution=shape.resolution, stride=stride)
        maps += attention.attention_maps(loaded, shown[shape].frames, asked)
    attention_figure.save(attention_figure.Picture(shown[shape].name, tuple(maps)), file)
    typer.echo(str(file))


def _layers(text: str) -> Layers:
    words: dict[str, Layers] = {"last": "last", "all": "all"}
    if text in words:
        return words[text]
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        fix = "for example --layers 1,6,12"
        raise UsageError("expected last, all, or numbers with commas between them", where=f"--layers {text}", fix=fix) from None


@visualize.command()
def flow(
    clip: ClipName,
    estimator: Estimator = "auto",
    weights: Weights = None,
    frames: Frames = 8,
    stride: Stride = None,
    resolution: Resolution = 224,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE.png", help="Default: flow-CLIP.png")] = None,
) -> None:
    """Draw the optical flow of a clip, as arrows on its frames and as colours, and print the file's name."""
    from benchctl.layers.flow import best_available
    from benchctl.visualize import clip as clips
    from benchctl.visualize import flow, flow_figure, png

    if estimator == "auto" and weights is not None:
        raise UsageError("whose weights?", where=f"--weights {weights}", fix="name an --estimator beside auto")
    file = output or Path(f"flow-{Path(clip).stem}.png")
    png.check(file)
    shown = clips.read(clip, frames=frames, resolution=resolution, stride=stride)
    if estimator == "auto":
        estimator, reason = best_available()
        typer.echo(f"benchctl: flow by {estimator}: {reason}", err=True)
    flow_figure.save(flow_figure.Picture(shown, flow.estimate(shown.frames, estimator, weights)), file)
    typer.echo(str(file))
