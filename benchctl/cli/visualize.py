"""`benchctl visualize`: pictures of what a model sees."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchctl.cli.app import app
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from benchctl.visualize.clip import Query

Queries = Annotated[
    list[str] | None,
    typer.Option(
        "--query",
        metavar="FRAME,X,Y",
        help="A point: shown frame from 0, pixel of the shown frame. Repeatable, up to 4. Default: where most moves.",
    ),
]
Orders = Annotated[str, typer.Option("--orders", metavar="N,...", help="Orders of self-similarity, 1 to 4.")]
Sides = Annotated[
    str | None,
    typer.Option("--window", metavar="L,U,V", help="Frames, rows and columns, odd, in grid cells. Default: the encoder's."),
]
Encoder = Annotated[
    str, typer.Option("--encoder", metavar="pixels|METHOD", help="Colours and gradients, or a method preset that has STSS.")
]
Frames = Annotated[int, typer.Option("--frames", min=1, metavar="N", help="Frames to show.")]
Stride = Annotated[
    int | None,
    typer.Option("--stride", min=1, metavar="N", help="Frames of the file from one shown to the next. Default: spread over all of it."),
]
Resolution = Annotated[int, typer.Option("--resolution", min=1, metavar="R", help="Pixels a side.")]
Pretrained = Annotated[bool, typer.Option("--pretrained", help="A method's published weights; otherwise they are random.")]
Checkpoint = Annotated[
    Path | None,
    typer.Option("--checkpoint", metavar="FILE", exists=True, dir_okay=False, help="Weights that a training of this preset left."),
]

visualize = typer.Typer(help="Look inside a model.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(visualize, name="visualize")


@visualize.callback()
def root() -> None:
    """Pictures, each of its own command."""


@visualize.command()
def stss(
    clip: Annotated[str, typer.Argument(metavar="CLIP", help="A video file, or toy: two groups of moving shapes.")],
    query: Queries = None,
    orders: Orders = "1,2,3",
    window: Sides = None,
    encoder: Encoder = "pixels",
    frames: Frames = 8,
    stride: Stride = None,
    resolution: Resolution = 224,
    pretrained: Pretrained = False,
    checkpoint: Checkpoint = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE.png", help="Default: stss-CLIP.png")] = None,
) -> None:
    """Draw the space-time self-similarity of a clip at a point, order by order, and print the file's name."""
    from benchctl.visualize import clip as clips
    from benchctl.visualize import png, stss_figure
    from benchctl.visualize.method_source import method_source
    from benchctl.visualize.pixels import NAME, pixel_source
    from benchctl.visualize.stss import check_orders, check_window, order_maps

    asked_orders = _integers("--orders", orders)
    check_orders(asked_orders)
    asked_window = check_window(_integers("--window", window)) if window is not None else None
    queries = tuple(_query(text) for text in query or ())
    if len(queries) > len(stss_figure.COLOURS):
        raise UsageError(f"{len(queries)} queries", where="--query", fix=f"a figure shows {len(stss_figure.COLOURS)} at most")
    if encoder == NAME and (pretrained or checkpoint):
        raise UsageError(
            f"'{NAME}' has no weights", where="--pretrained" if pretrained else "--checkpoint", fix="name a method in --encoder"
        )
    file = output or Path(f"stss-{Path(clip).stem}.png")
    png.check(file)

    shown = clips.read(clip, frames=frames, resolution=resolution, stride=stride)
    for each in queries:
        shown.check(each)
    if encoder == NAME:
        source = pixel_source(shown.frames, asked_window)
    else:
        source = method_source(
            encoder, shown.frames, orders=asked_orders, window=asked_window, pretrained=pretrained, checkpoint=checkpoint
        )
    queries = queries or shown.suggested
    cells = [source.cell(each, shown.resolution) for each in queries]
    stss_figure.save(stss_figure.Picture(shown, source, queries, order_maps(source, cells, asked_orders)), file)
    typer.echo(str(file))


def _integers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError("expected whole numbers with commas between them", where=f"{option} {text}") from None


def _query(text: str) -> Query:
    from benchctl.visualize.clip import Query

    numbers = _integers("--query", text)
    if len(numbers) != 3:
        raise UsageError("expected FRAME,X,Y", where=f"--query {text}", fix="for example --query 4,120,80")
    return Query(*numbers)
