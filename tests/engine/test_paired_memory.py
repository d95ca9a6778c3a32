"""What is predicted, beside what was measured on a GPU (`baselines/memory`)."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from benchctl import plan, suite_file
from benchctl.engine import profile
from benchctl.probes.prediction import CALIBRATION

KINDS = ("allocated", "reserved")


def recorded(file: Path) -> dict[str, dict[str, dict[str, int]]]:
    return {pair["cell"]: pair for pair in YAML(typ="safe").load(file.read_text())["pairs"]}


H200 = recorded(Path(__file__).parents[2] / "baselines" / "memory" / "h200.yaml")


def off(pair: dict[str, dict[str, int]], kind: str) -> float:
    return pair["predicted"][kind] / pair["measured"][kind] - 1


def test_what_is_said_of_predictions_is_what_was_found():
    allocated, reserved = (sorted(abs(off(pair, kind)) for pair in H200.values()) for kind in KINDS)
    most = reserved[-(-len(reserved) * 95 // 100) - 1]
    assert (
        f"predictions were within {allocated[-1]:.1%} (allocated) and, 19 times of 20, {most:.1%} (reserved; at worst {reserved[-1]:.1%}) "
        f"of {len(H200)} steps measured on an H200"
    ).replace("%", " %") == CALIBRATION


def test_every_pair_is_of_a_cell_of_the_suite():
    assert set(H200) == {cell.label for cell in plan.expand(suite_file.load("paired_memory")).cells}


@pytest.mark.parametrize(
    "label",
    [
        "vit-b/profile/2x16x224/bf16/sdpa/seed0",
        "videomae-b/profile/4x16x224/bf16/efficient/seed0",
        "videomae-b/profile/1x8x448/fp32/sdpa/seed0",
        "resnet50/profile/2x16x224/fp32/none/seed0",
    ],
)
def test_this_torch_predicts_what_was_measured(label: str):
    cell = next(cell for cell in plan.expand(suite_file.load("paired_memory")).cells if cell.label == label)
    found, _, _ = profile.predict_memory(cell.model_copy(update={"gpu": "H200"}))
    values = {m.kind: m.value for m in found if m.metric == "peak_memory_bytes"}
    measured = H200[label]["measured"]
    assert values["allocated"] == pytest.approx(measured["allocated"], rel=0.005)
    assert values["reserved"] == pytest.approx(measured["reserved"], rel=0.056)
