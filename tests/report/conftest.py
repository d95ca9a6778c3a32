"""Stores that hold what a suite leaves behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from report_samples import add_run, cell, predicted, record, sweep, trained

from benchctl.recipe import Recipe
from benchctl.spec import DatasetRef
from benchctl.store.store import Store


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
def store(database: Path) -> Iterator[Store]:
    with Store.open(database) as opened:
        yield opened


@pytest.fixture
def scaling(store: Store) -> Store:
    """The memory_scaling suite, as a machine without a GPU runs it."""
    cells = sweep()
    add_run(store, record("scaling"), cells, [predicted(c) for c in cells])
    return store


@pytest.fixture
def training(store: Store) -> Store:
    """One training cell, executed on a GPU."""
    cells = [cell("timesformer-tiny", task="train", dataset=DatasetRef(name="egogestar"), recipe=Recipe())]
    add_run(store, record("training", suite="quickstart"), cells, [trained(c) for c in cells])
    return store
