"""`benchctl calibrate` and what `benchctl doctor` says of it, as a user meets them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchctl.cli.app import main
from benchctl.probes import calibration
from benchctl.probes.calibration import Calibration, Workload


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Runs a command with a small workload, and gives its exit code and what it wrote to stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCHCTL_CACHE", str(tmp_path / "cache"))
    tiny = Workload("tiny-v1", 16, 1, 2, clips=3, frames=2, resolution=32, warmup=1, steps=4, half=False)
    monkeypatch.setitem(calibration.WORKLOADS, "cpu", tiny)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["benchctl", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def other(file: Path, name: str, workload: str = "tiny-v1") -> str:
    fields = {
        "workload": workload,
        "device": "cuda",
        "device_name": name,
        "clips_per_second": 1e-3,
        "step_seconds_p50": 3e3,
        "torch": "2.0",
    }
    made = Calibration.model_validate(
        {**fields, "step_seconds_p90": 3e3, "steps": 4, "threads": 1, "measured_at": "2026-01-01T00:00:00+00:00"}
    )
    file.write_text(made.model_dump_json())
    return str(file)


def test_a_rate_is_stored_and_is_no_factor(command, tmp_path: Path):
    code, printed, said = command("calibrate", "--device", "cpu")
    assert code == 0
    stored = list((tmp_path / "cache" / "calibration").glob("*.json"))
    assert len(stored) == 1
    found = calibration.load(stored[0])
    assert found.workload == "tiny-v1"
    for text in (found.device_name, str(stored[0]), "tiny-v1", "This is a rate and not a V100 factor"):
        assert text in printed
    assert said.startswith("timing tiny-v1 on ")
    document = json.loads(command("doctor", "--json")[1])
    assert document["calibrations"][found.device_name] == found.model_dump(mode="json")
    assert f"{found.clips_per_second:.4g} clips/s of tiny-v1" in command("doctor")[1]


def test_against_another_machine(command, tmp_path: Path):
    code, printed, _ = command("calibrate", "--device", "cpu", "--against", other(tmp_path / "a.json", "NVIDIA H200"))
    assert code == 0
    assert "times the rate of NVIDIA H200 (0.001 clips/s" in printed
    assert "That is not a V100: the ratio is no V100 factor" in printed
    assert "and 2.0 there" in printed
    _, printed, _ = command("calibrate", "--device", "cpu", "--against", other(tmp_path / "v.json", "Tesla V100-SXM2-32GB"))
    assert "That is a V100: for this workload, the measured V100 factor of " in printed
    document = json.loads(command("calibrate", "--device", "cpu", "--json", "--against", str(tmp_path / "v.json"))[1])
    assert document["ratio"] == pytest.approx(document["calibration"]["clips_per_second"] / 1e-3)


def test_files_that_cannot_be_compared(command, tmp_path: Path):
    code, printed, said = command("calibrate", "--device", "cpu", "--against", other(tmp_path / "w.json", "NVIDIA H200", "vit-b16-fp16-v1"))
    assert (code, printed) == (2, "")
    assert "workload vit-b16-fp16-v1 was run there and tiny-v1 here, which cannot be compared" in said
    code, _, said = command("calibrate", "--against", "none.json")
    assert code == 3
    assert "none.json: cannot be read" in said


def test_doctor_without_a_calibration_and_with_a_broken_one(command, tmp_path: Path):
    printed = command("doctor")[1]
    assert "none stored; 'benchctl calibrate' makes one" in printed
    name = next(iter(json.loads(command("doctor", "--json")[1])["calibrations"]))
    file = tmp_path / "cache" / "calibration" / calibration.file_of(name).name
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    code, printed, _ = command("doctor")
    assert code == 0
    assert "is not a calibration" in printed
