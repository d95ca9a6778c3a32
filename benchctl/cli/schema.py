"""`benchctl schema`: the JSON Schema of suite files."""

from __future__ import annotations

import json

import typer

from benchctl.cli.app import app


@app.command()
def schema() -> None:
    """Print the JSON Schema of suite files, for editors."""
    from benchctl import suite_file

    typer.echo(json.dumps(suite_file.schema(), indent=2))
