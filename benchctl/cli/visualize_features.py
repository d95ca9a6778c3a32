"""`benchctl visualize features` and `benchctl visualize reconstruction`: what convolutions give, and what pre-training rebuilds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchctl.cli.options import setting
from benchctl.cli.visualize import Frames, Pretrained, Resolution, Stride, visualize

ClipName = Annotated[str, typer.Argument(metavar="CLIP", help="A video file, or toy: two groups of moving shapes.")]
Checkpoints = Annotated[
    list[Path] | None,
    typer.Option(
        "--checkpoint", metavar="FILE", exists=True, dir_okay=False, help="Weights that a training left; repeatable, each is drawn below."
    ),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change an option of the preset, for example grid=2. Repeatable.")
]


@visualize.command()
def features(
    clip: ClipName,
    method: Annotated[str, typer.Option("--method", metavar="PRESET", help="A method preset with convolutions.")],
    checkpoint: Checkpoints = None,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", metavar="NAME", help="A convolution; repeatable. Default: the first one of each resolution."),
    ] = None,
    frames: Frames = 8,
    stride: Stride = None,
    resolution: Resolution = 224,
    pretrained: Pretrained = False,
    settings: Settings = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE.png", help="Default: features-CLIP.png")] = None,
) -> None:
    """Draw feature maps of a clip, a row for each layer, and print the file's name."""
    from benchctl.visualize import clip as clips
    from benchctl.visualize import features, features_figure, png
    from benchctl.visualize.model import load_model

    changes = dict(setting(text) for text in settings or ())
    file = output or Path(f"features-{Path(clip).stem}.png")
    png.check(file)
    found: list[features.Features] = []
    name = clip
    files: list[Path] | list[None] = checkpoint or [None]
    for weights in files:
        loaded = load_model(method, frames=frames, resolution=resolution, pretrained=pretrained, checkpoint=weights, changes=changes)
        shape = features.clip_shape(loaded)
        shown = clips.read(clip, frames=shape.frames, resolution=shape.resolution, stride=stride)
        name = shown.name
        found.append(features.features(loaded, shown.frames, layer or ()))
    features_figure.save(features_figure.Picture(name, tuple(found)), file)
    typer.echo(str(file))


@visualize.command()
def reconstruction(
    clip: ClipName,
    checkpoint: Checkpoints = None,
    method: Annotated[
        str | None, typer.Option("--method", metavar="PRESET", help="A preset that pre-trains, with random weights where no checkpoint is.")
    ] = None,
    mask_ratio: Annotated[
        list[float] | None,
        typer.Option("--mask-ratio", metavar="SHARE", help="Share of the patches to hide; repeatable. Default: as it was trained."),
    ] = None,
    frames: Frames = 8,
    stride: Stride = None,
    resolution: Resolution = 224,
    settings: Settings = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE.png", help="Default: reconstruction-CLIP.png")] = None,
) -> None:
    """Draw what pre-training hides of a clip and rebuilds, and print the file's name and each mean squared error."""
    from benchctl.visualize import clip as clips
    from benchctl.visualize import png, reconstruction, reconstruction_figure
    from benchctl.visualize.model import load_model

    changes = dict(setting(text) for text in settings or ())
    file = output or Path(f"reconstruction-{Path(clip).stem}.png")
    png.check(file)
    for ratio in mask_ratio or ():
        reconstruction.check_ratio(ratio)
    found: list[reconstruction.Rebuilt] = []
    name = clip
    ratios: list[float] | list[None] = mask_ratio or [None]
    for preset, weights in reconstruction.named(method, checkpoint or ()):
        loaded = load_model(preset, frames=frames, resolution=resolution, checkpoint=weights, changes=changes, pretraining=True)
        shape = reconstruction.clip_shape(loaded)
        shown = clips.read(clip, frames=shape.frames, resolution=shape.resolution, stride=stride)
        name = shown.name
        at = tuple(reconstruction.reconstruction(loaded, shown.frames, ratio) for ratio in ratios)
        found.append(reconstruction.Rebuilt(preset, loaded.said, at))
    reconstruction_figure.save(reconstruction_figure.Picture(name, tuple(found)), file)
    typer.echo(str(file))
    for model in found:
        for each in model.at:
            hidden, tubes = each.tubes
            typer.echo(
                f"{model.method} ({model.weights}), {hidden} of {tubes} patches hidden: mean squared error {each.error:.6f}, "
                f"of each patch's own mean {each.error_of_means:.6f}"
            )
