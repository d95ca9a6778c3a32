"""Writing an answer: to standard output, or whole to a file."""

from __future__ import annotations

from pathlib import Path

import typer

from benchctl.atomic_file import replacing
from benchctl.errors import MissingError


def write(text: str, file: Path | None) -> None:
    """Print `text`, or write it to `file`.

    Raises:
        MissingError: the file cannot be written.
    """
    if file is None:
        typer.echo(text.rstrip("\n"))
        return
    try:
        with replacing(file) as whole:
            whole.write((text.rstrip("\n") + "\n").encode())
    except OSError as problem:
        raise MissingError(f"cannot be written: {problem.strerror}", where=str(file), fix="name a file in a folder that exists") from None
