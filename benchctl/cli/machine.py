"""What the commands need to know of this machine."""

from __future__ import annotations

import re
import secrets
import shlex
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from benchctl.errors import DeviceMissing

if TYPE_CHECKING:
    from benchctl.record import Environment, RunRecord
    from benchctl.suite_file import LoadedSuite


@dataclass(frozen=True)
class Facts:
    """This machine, for one command."""

    cuda: bool
    cores: int
    environment: Environment


def facts(device: str) -> Facts:
    """Read the machine.

    Raises:
        DeviceMissing: `device` is cuda and there is none.
    """
    from benchctl.probes.device import cuda_unavailable, gpus
    from benchctl.run.provenance import environment

    missing = cuda_unavailable()
    if device == "cuda" and missing:
        raise DeviceMissing(f"no GPU can be used: {missing}", where="--device cuda", fix="run 'benchctl doctor', or leave --device out")
    found = gpus()
    here = environment(found.gpus, found.driver, found.cuda)
    return Facts(cuda=missing is None, cores=here.cpu_cores, environment=here)


def run_record(loaded: LoadedSuite, machine: Facts) -> RunRecord:
    """A new run of `loaded` by this command line."""
    from benchctl.record import RunRecord

    now = datetime.now(UTC)
    return RunRecord(
        # many may begin in the same second
        run_id=f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}",
        suite=loaded.suite.name,
        suite_json=loaded.canonical,
        command=without_passwords(shlex.join(["benchctl", *sys.argv[1:]])),
        started_at=now.isoformat(timespec="seconds"),
        environment=machine.environment,
    )


def without_passwords(command: str) -> str:
    """`command` with `***` for passwords in URLs: whoever shares the database reads it."""
    return re.sub(r"([?&]password=)[^&\s']*", r"\1***", re.sub(r"(://[^/@:\s]*):[^/@\s]*@", r"\1:***@", command))
