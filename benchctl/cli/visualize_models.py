"""`benchctl visualize gradcam` and `benchctl visualize tsne`: what a method looks at, and what it makes of clips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchctl.cli.options import setting
from benchctl.cli.visualize import Checkpoint, Frames, Pretrained, Resolution, Stride, visualize
from benchctl.errors import UsageError
from benchctl.folders import cache_folder, data_root


@visualize.command()
def gradcam(
    clip: Annotated[str, typer.Argument(metavar="CLIP", help="A video file, or toy: two groups of moving shapes.")],
    method: Annotated[str, typer.Option("--method", metavar="PRESET", help="A method preset.")],
    label: Annotated[int | None, typer.Option("--class", min=0, metavar="INDEX", help="Default: the one that it predicts.")] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", metavar="NAME", help="A module of the model. Default: the last one that gives a feature grid.")
    ] = None,
    options: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Another value of the preset's option. Repeatable.")
    ] = None,
    frames: Frames = 8,
    stride: Stride = None,
    resolution: Resolution = 224,
    pretrained: Pretrained = False,
    checkpoint: Checkpoint = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE.png", help="Default: gradcam-CLIP-PRESET.png")] = None,
) -> None:
    """Draw where a clip raises the logit of a class (Grad-CAM), and print the file's name."""
    from benchctl.visualize import clip as clips
    from benchctl.visualize import gradcam_figure, png
    from benchctl.visualize.gradcam import grad_cam
    from benchctl.visualize.model import load_model

    changes = dict(setting(text) for text in options or ())
    file = output or Path(f"gradcam-{Path(clip).stem}-{method}.png")
    png.check(file)
    shown = clips.read(clip, frames=frames, resolution=resolution, stride=stride)
    loaded = load_model(method, frames=frames, resolution=resolution, pretrained=pretrained, checkpoint=checkpoint, changes=changes)
    gradcam_figure.save(gradcam_figure.Picture(shown, loaded, grad_cam(loaded, shown.frames, label=label, layer=layer)), file)
    typer.echo(str(file))


@visualize.command()
def tsne(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A registered data set, for example motion_shapes.")],
    method: Annotated[
        list[str],
        typer.Option("--method", metavar="PRESET[=CHECKPOINT]", help="A method preset, and weights that a training left. Repeatable."),
    ],
    options: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the data set. Repeatable.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Test clips, spread over the classes. Default: all.")
    ] = None,
    perplexity: Annotated[float, typer.Option("--perplexity", metavar="P", help="Neighbours that t-SNE keeps near, about.")] = 15,
    frames: Frames = 8,
    stride: Stride = None,
    resolution: Resolution = 224,
    pretrained: Pretrained = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE.png", help="Default: tsne-DATASET.png")] = None,
) -> None:
    """Draw the test clips of a data set as methods embed them (t-SNE), and print the file's name and each 5-neighbour accuracy."""
    from benchctl.visualize import png, tsne_figure
    from benchctl.visualize import tsne as embeddings
    from benchctl.visualize.model import load_model

    file = output or Path(f"tsne-{dataset}.png")
    png.check(file)
    asked = [_method(text) for text in method]
    clips = embeddings.test_clips(dataset, dict(setting(text) for text in options or ()), data_root(), cache_folder())
    clips = embeddings.limited(clips, limit) if limit is not None else clips
    embeddings.check(len(clips.test), perplexity)
    models = [
        load_model(preset, frames=frames, resolution=resolution, pretrained=pretrained, checkpoint=checkpoint)
        for preset, checkpoint in asked
    ]
    found = embeddings.embed(models, clips, frames=frames, resolution=resolution, stride=stride)
    panels = embeddings.panels(models, found, perplexity)
    picture = tsne_figure.Picture(clips.name, clips.classes, found.labels, panels, perplexity, len(found.unreadable), frames, resolution)
    tsne_figure.save(picture, file)
    for clip, reason in found.unreadable.items():
        typer.echo(f"left out: {clip}: {reason}", err=True)
    typer.echo(str(file))
    for panel in panels:
        typer.echo(f"{panel.preset} ({panel.weights}): {100 * panel.neighbour_accuracy:.1f} % by {embeddings.NEIGHBOURS} neighbours")


def _method(text: str) -> tuple[str, Path | None]:
    preset, equals, name = text.partition("=")
    if not equals:
        return preset, None
    if not Path(name).is_file():
        raise UsageError("no such checkpoint", where=f"--method {text}", fix="write PRESET=CHECKPOINT, with the file that a training left")
    return preset, Path(name)
