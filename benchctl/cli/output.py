"""Writing an answer: to standard output, or whole to a file."""

from __future__ import annotations

from pathlib import Path

import typer

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
        file.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")
    except OSError as problem:
        raise MissingError(f"cannot be written: {problem.strerror}", where=str(file), fix="name a file in a folder that exists") from None
