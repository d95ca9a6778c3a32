"""What figures share: colours and markers that survive colour blindness and grey print, and files that come out the same each time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchctl.errors import MissingError, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: colours that the colour-blind can tell apart (after Okabe and Ito), those that are dark on white first, and a marker for each
_STYLES = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#AA4499", "D"),
    ("#222222", "v"),
    ("#56B4E9", "P"),
    ("#E69F00", "p"),
)
INK = "#222222"
FAINT = "#8a8a8a"
CAPTION = "#555555"
GRID = "#e4e4e4"
#: behind what is beyond a limit
BEYOND = "#f7f5f2"

#: without a time or a version of the writer in it, a file only changes with what it shows
_METADATA: dict[str, dict[str, Any]] = {
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".png": {"Software": None},
}
_SETTINGS = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "svg.hashsalt": "benchctl",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}
_DOTS_PER_INCH = 300


def line_style(number: int) -> tuple[str, str]:
    """Colour and marker of the line with this number; the pairs repeat after 49."""
    return _STYLES[number % len(_STYLES)][0], _STYLES[(number + number // len(_STYLES)) % len(_STYLES)][1]


def new(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches, outside of matplotlib's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def style() -> Any:
    """Context in which figures are drawn and saved: the user's matplotlib settings have no part in it."""
    import matplotlib

    return matplotlib.rc_context({**matplotlib.rcParamsDefault, **_SETTINGS})


def check(file: Path) -> None:
    """Refuse a file that `save` could not write, before anything is drawn.

    Raises:
        UsageError: the suffix is not .svg, .png or .pdf.
    """
    if file.suffix not in _METADATA:
        raise UsageError(
            f"figures are not written as '{file.suffix or file.name}'", where=str(file), fix="end the name in .svg, .png or .pdf"
        )


def save(figure: Figure, file: Path) -> None:
    """Write `figure`, inside `style()`, in the format that the suffix of `file` names.

    Raises:
        MissingError: the file cannot be written.
    """
    try:
        figure.savefig(file, dpi=_DOTS_PER_INCH, metadata=_METADATA[file.suffix])
    except OSError as problem:
        raise MissingError(f"cannot be written: {problem.strerror}", where=str(file), fix="name a file in a folder that exists") from None
