"""Figures as png files: whole or absent, and the same whatever matplotlib settings a user has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchctl.atomic_file import replacing
from benchctl.errors import MissingError, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT = "#222222", "#6b6b6b"
_SETTINGS = {"font.family": "DejaVu Sans", "font.size": 8, "text.color": INK, "axes.edgecolor": FAINT, "axes.linewidth": 0.5}
_DOTS_PER_INCH = 200
_SUFFIX = ".png"


def check(file: Path) -> None:
    """Refuse what `write` could not write, before anything is computed.

    Raises:
        UsageError: the name does not end in .png.
        MissingError: its folder is not there.
    """
    if file.suffix != _SUFFIX:
        raise UsageError("the figure is a png", where=f"--output {file}", fix=f"end the name in {_SUFFIX}")
    if not file.parent.is_dir():
        raise MissingError("no such folder", where=str(file.parent), fix="make it, or name a file elsewhere")


def write(draw: Callable[[], Figure], file: Path) -> None:
    """Save the figure that `draw` makes, outside of matplotlib's global state, into `file`.

    Raises:
        MissingError: it cannot be written.
    """
    import matplotlib

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_SETTINGS}):
        made = draw()
        try:
            with replacing(file) as whole:
                made.savefig(whole, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
        except OSError as problem:
            raise MissingError(f"cannot be written: {problem.strerror}", where=str(file), fix="name a file elsewhere") from None
