"""Writes what a suite's trainings came to, as they stand in one or more results databases, into a file of pins.

python benchmarks/pin_results.py matched_budget --db results/benchctl.db baselines/pins/matched_budget.yaml

Where several databases have a cell, the first one's is taken.
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


def together(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The cells of all of them, which must have been asked for alike."""
    first = parts[0]
    for key in ("suite", "dataset", "data_fingerprint", "test_clips_sha256", "budget", "environment"):
        differing = [part[key] for part in parts if part[key] != first[key]]
        assert not differing, f"{key} differs: {first[key]} and {differing[0]}"
    cells = {cell["cell"]: cell for part in reversed(parts) for cell in part["cells"]}
    ordered = sorted(cells.values(), key=lambda cell: (cell["method"], cell["frames"], cell["seed"]))
    return {**first, "runs": sorted({run for part in parts for run in part["runs"]}), "cells": ordered}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite")
    parser.add_argument("file", type=Path)
    parser.add_argument("--db", default="results/benchctl.db")
    parser.add_argument("--also", action="append", default=[], metavar="DB", help="another database with cells of the suite")
    options = parser.parse_args()
    yaml = YAML()
    yaml.width = 1000
    yaml.default_flow_style = None
    with options.file.open("w") as stream:
        yaml.dump(together([pins(options.suite, db) for db in (options.db, *options.also)]), stream)


if __name__ == "__main__":
    main()
