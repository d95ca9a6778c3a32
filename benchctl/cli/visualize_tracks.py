"""`benchctl visualize tracks`: what points of a clip do, and which of them decide."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from benchctl.cli.visualize import Checkpoint, visualize
from benchctl.errors import UsageError

#: of the toy clip
_TOY_FRAMES, _TOY_RESOLUTION = 24, 224


@visualize.command()
def tracks(
    clip: Annotated[str, typer.Argument(metavar="CLIP", help="A video file, or toy: two groups of moving shapes.")],
    method: Annotated[str | None, typer.Option("--method", metavar="PRESET", help="A method that reads tracks: movt or movt-tiny.")] = None,
    checkpoint: Checkpoint = None,
    label: Annotated[int | None, typer.Option("--class", min=0, metavar="INDEX", help="Default: the one that it predicts.")] = None,
    frames: Annotated[int, typer.Option("--frames", min=2, metavar="N", help="Frames that the method is given.")] = 16,
    estimator: Annotated[Literal["lucas-kanade", "cotracker3"], typer.Option("--estimator", help="Who tracks.")] = "lucas-kanade",
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE.png", help="Default: tracks-CLIP.png")] = None,
) -> None:
    """Draw the tracks of a clip; with a method, coloured by how much each matters for a class. Print the file's name."""
    from benchctl.data import tracks as estimators
    from benchctl.data.track_files import of_video
    from benchctl.visualize import clip as clips
    from benchctl.visualize import png, tracks_figure
    from benchctl.visualize.model import load_model
    from benchctl.visualize.tracks import saliency

    if method is None and (checkpoint is not None or label is not None):
        raise UsageError("whose?", where="--checkpoint" if checkpoint else "--class", fix="name the --method too")
    file = output or Path(f"tracks-{Path(clip).stem}.png")
    png.check(file)
    if clip == clips.TOY:
        shown = clips.read(clip, frames=_TOY_FRAMES, resolution=_TOY_RESOLUTION)
        name, frame, found = shown.name, tracks_figure.middle(shown.frames), estimators.estimate(shown.frames, estimator)
    else:
        name, frame, found = Path(clip).name, clips.middle_frame(Path(clip)), of_video(Path(clip), estimator)
    picture = tracks_figure.Picture(name, frame, found, f"by {estimator}")
    if method is not None:
        loaded = load_model(method, frames=frames, resolution=frames, checkpoint=checkpoint)
        judged = saliency(loaded, found, frames, label)
        picture = tracks_figure.Picture(name, frame, found, f"by {estimator}", judged, f"{method}, {loaded.said}")
    tracks_figure.save(picture, file)
    typer.echo(str(file))
