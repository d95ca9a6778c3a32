"""`benchctl doctor`: what this machine can measure, and what it cannot."""

from __future__ import annotations

import json
from typing import Any

import typer

from benchctl.cli.app import app
from benchctl.cli.options import Json, database_url
from benchctl.errors import BenchctlError
from benchctl.folders import cache_folder, data_root


@app.command()
def doctor(db: str = typer.Option(None, "--db", metavar="URL", help="Results database to look at."), as_json: Json = False) -> None:
    """Say what this machine can measure, and what it cannot and why."""
    from benchctl.cli import machine
    from benchctl.probes.device import capabilities

    facts = machine.facts("auto")
    here = facts.environment
    can = [{"what": c.what, "available": c.available, "detail": c.detail} for c in capabilities()]
    rates = {name: _calibration(name) for name in (*dict.fromkeys(g.name for g in here.gpus), here.cpu)}
    if as_json:
        document = {"schema_version": 1, "environment": here.model_dump(mode="json"), "capabilities": can, "calibrations": rates}
        typer.echo(json.dumps(document, indent=2))
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
    rows += [(str(c["what"]), ("yes" if c["available"] else "unavailable") + (f": {c['detail']}" if c["detail"] else "")) for c in can]
    rows += [("calibration", _shown(name, rate)) for name, rate in rates.items()]
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        typer.echo(f"{name:<{width}}  {text}")


def _calibration(name: str) -> dict[str, Any]:
    """The stored calibration of the device of that name, or the reason why there is none."""
    from benchctl.probes import calibration

    file = calibration.file_of(name)
    if not file.exists():
        return {"reason": "none stored; 'benchctl calibrate' makes one"}
    try:
        return calibration.load(file).model_dump(mode="json")
    except BenchctlError as problem:
        return {"reason": str(problem)}


def _shown(name: str, rate: dict[str, Any]) -> str:
    if "reason" in rate:
        return f"{name}: {rate['reason']}"
    return f"{name}: {rate['clips_per_second']:.4g} clips/s of {rate['workload']}, torch {rate['torch']}, {rate['measured_at']}"
