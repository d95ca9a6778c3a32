"""Writes what a suite's trainings came to, as they stand in a results database, into a file of pins.

python benchmarks/pin_results.py matched_budget --db results/benchctl.db baselines/pins/matched_budget.yaml
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchctl.record import Outcome
from benchctl.store.store import Store

#: metric and kind, in the order of the file
NUMBERS = (
    ("top1", "25%"),
    ("top1", "50%"),
    ("top1", "75%"),
    ("top1", ""),
    ("steps", ""),
    ("budget_used", ""),
    ("train_flops", "executed"),
    ("train_seconds", ""),
)


def pins(suite: str, db: str) -> dict[str, Any]:
    """Every cell that trained and ended well, with all that it takes to compare it again."""
    with Store.open(db, read_only=True) as store:
        with store.snapshot(suite=suite) as snapshot:
            rows, contents = snapshot.cells(), snapshot.contents()
        results = store.latest_results([row.cell_id for row in rows])
        cells = []
        for row in rows:
            found = results.get(row.cell_id)
            if found is None or found.outcome is not Outcome.OK or row.task != "train":
                continue
            values = {(m.metric, m.kind): m.value for m in store.measurements(found.result_id) if m.source == "measured"}
            numbers = {f"{metric} {kind}".strip(): values[metric, kind] for metric, kind in NUMBERS if (metric, kind) in values}
            cells.append(
                {
                    "cell": row.cell_id,
                    "method": f"{row.method}({row.options})" if row.options else row.method,
                    "frames": row.frames,
                    "seed": row.seed,
                    **numbers,
                    "correct": found.notes["correct"]["bits"],
                }
            )
        last = next(iter(results.values()))
        content = json.loads(contents[rows[0].cell_id])
        runs = {found.run_id for found in results.values()}
        environment = last.environment.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    return {
        "suite": suite,
        "runs": sorted(runs),
        "dataset": content["dataset"],
        # a generated set is known by its options
        "data_fingerprint": content.get("data_fingerprint", "generated"),
        "test_clips_sha256": last.notes["correct"]["ids_sha256"],
        "budget": content["budget"],
        "environment": environment,
        "cells": cells,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite")
    parser.add_argument("file", type=Path)
    parser.add_argument("--db", default="results/benchctl.db")
    options = parser.parse_args()
    yaml = YAML()
    yaml.width = 1000
    yaml.default_flow_style = None
    with options.file.open("w") as stream:
        yaml.dump(pins(options.suite, options.db), stream)


if __name__ == "__main__":
    main()
