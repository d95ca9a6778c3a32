"""`benchctl doctor`: what this machine can measure, and what it cannot."""

from __future__ import annotations

import json

import typer

from benchctl.cli.app import app
from benchctl.cli.options import Json, database_url
from benchctl.folders import cache_folder, data_root


@app.command()
def doctor(db: str = typer.Option(None, "--db", metavar="URL", help="Results database to look at."), as_json: Json = False) -> None:
    """Say what this machine can measure, and what it cannot and why."""
    from benchctl.cli import machine
    from benchctl.probes.device import capabilities

    facts = machine.facts("auto")
    here = facts.environment
    can = [{"what": c.what, "available": c.available, "detail": c.detail} for c in capabilities()]
    if as_json:
        typer.echo(json.dumps({"schema_version": 1, "environment": here.model_dump(mode="json"), "capabilities": can}, indent=2))
        return
    rows = [
        ("benchctl", f"{here.benchctl}, Python {here.python}, {here.platform}"),
        ("CPU", f"{here.cpu}, {here.cpu_cores} cores, {here.memory_bytes / 2**30:.1f} GiB"),
        ("GPU", "; ".join(f"{g.name}, {g.memory_bytes / 2**30:.1f} GiB" for g in here.gpus) or "none"),
        ("packages", ", ".join(f"{name} {version}" for name, version in here.packages.items())),
        ("database", database_url(db)),
        ("data", str(data_root() or "BENCHCTL_DATA is not set: generated data is used where a suite allows it")),
        ("cache", str(cache_folder())),
    ]
    rows += [(str(c["what"]), ("yes" if c["available"] else "no") + (f": {c['detail']}" if c["detail"] else "")) for c in can]
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        typer.echo(f"{name:<{width}}  {text}")
