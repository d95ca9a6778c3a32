"""`benchctl calibrate`: how fast this machine trains, and how many times as fast as another one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from benchctl.cli.app import app
from benchctl.cli.options import DeviceName, Json

if TYPE_CHECKING:
    from benchctl.probes.calibration import Calibration


@app.command()
def calibrate(
    device: DeviceName = "auto",
    against: Annotated[
        Path | None, typer.Option("--against", metavar="FILE", help="What this command stored on another machine: gives the ratio.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Time a fixed training workload on this machine, store its rate, and compare it with another machine's."""
    from benchctl.cli import machine
    from benchctl.probes import calibration
    from benchctl.probes.device import cuda_name

    facts = machine.facts(device)
    there = calibration.load(against) if against is not None else None
    kind: Literal["cpu", "cuda"] = "cuda" if device != "cpu" and facts.cuda else "cpu"
    name = cuda_name() if kind == "cuda" else facts.environment.cpu
    typer.echo(f"timing {calibration.WORKLOADS[kind].name} on {name}", err=True)
    here = calibration.measure(kind, name)
    file = calibration.store(here)
    times = calibration.ratio(here, there) if there is not None else None
    if as_json:
        import json

        document = {"schema_version": 1, "calibration": here.model_dump(mode="json"), "file": str(file), "ratio": times}
        typer.echo(json.dumps(document, indent=2))
        return
    _print(here, file)
    if there is None or times is None:
        typer.echo(
            f"\nThis is a rate and not a V100 factor, which only the file of a V100 can give. It can be compared with any machine that ran "
            f"{here.workload}: benchctl calibrate --against FILE"
        )
        return
    _print_ratio(here, there, times)


def _print(here: Calibration, file: Path) -> None:
    from benchctl.probes.calibration import STEADY_SPREAD

    rows = [
        ("workload", here.workload),
        (
            "device",
            here.device_name
            + (f", torch on {here.threads} {'thread' if here.threads == 1 else 'threads'}" if here.device == "cpu" else ""),
        ),
        ("rate", f"{here.clips_per_second:.4g} clips/s, median of {here.steps} steps"),
        ("torch", here.torch),
        ("stored", str(file)),
    ]
    for label, text in rows:
        typer.echo(f"{label:<8}  {text}")
    if here.spread > STEADY_SPREAD:
        typer.echo(
            f"unsteady  a tenth of the steps took over {here.spread:.0%} longer: other work ran beside it, run it again without", err=True
        )


def _print_ratio(here: Calibration, there: Calibration, times: float) -> None:
    from benchctl.gpu_rates import is_v100

    typer.echo(f"\n{times:.3g} times the rate of {there.device_name} ({there.clips_per_second:.4g} clips/s, measured {there.measured_at})")
    if there.torch != here.torch:
        typer.echo(f"with torch {here.torch} here and {there.torch} there")
    if is_v100(there.device_name):
        typer.echo(f"That is a V100: for this workload, the measured V100 factor of {here.device_name} is {times:.3g}")
    else:
        typer.echo("That is not a V100: the ratio is no V100 factor")
