from __future__ import annotations

from pathlib import Path

import pytest
from training_cells import SMALL

from benchctl.spec import DatasetRef


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetRef, Path]:
    """A small generated data set."""
    from benchctl.data import motion_shapes

    options = motion_shapes.Options(**SMALL)
    ref = DatasetRef(name="motion_shapes", options=options.model_dump(mode="json"))
    return ref, motion_shapes.prepare(ref, tmp_path_factory.mktemp("cache"))
