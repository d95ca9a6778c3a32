from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchctl.errors import BenchctlError, MissingError, UsageError
from benchctl.probes import calibration
from benchctl.probes.calibration import WORKLOADS, Calibration, Workload, file_of, load, measure, ratio, store

TINY = Workload("tiny-v1", 16, 1, 2, clips=3, frames=2, resolution=32, warmup=1, steps=4, half=False)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHCTL_CACHE", str(tmp_path / "cache"))


def made(**changes: object) -> Calibration:
    fields = {"workload": "w-v1", "device": "cuda", "device_name": "NVIDIA H200", "clips_per_second": 30.0, "step_seconds_p50": 0.1}
    fields |= {"step_seconds_p90": 0.125, "steps": 20, "threads": 1, "torch": "2", "measured_at": "2026-01-01T00:00:00+00:00"}
    return Calibration.model_validate(fields | changes)


def test_a_rate_is_clips_over_the_median_step():
    found = measure("cpu", "Some CPU", TINY)
    assert (found.workload, found.device, found.device_name, found.steps) == ("tiny-v1", "cpu", "Some CPU", 4)
    assert found.clips_per_second * found.step_seconds_p50 == pytest.approx(3)
    assert 0 < found.step_seconds_p50 <= found.step_seconds_p90
    assert (found.torch, found.threads) == (torch.__version__, torch.get_num_threads())


def test_a_slow_machine_times_fewer_steps(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(calibration, "LIMIT_SECONDS", 0.0)
    assert measure("cpu", "Some CPU", replace(TINY, steps=9)).steps == calibration.LEAST_STEPS


def test_steps_train(monkeypatch: pytest.MonkeyPatch):
    losses: list[float] = []
    real = torch.nn.functional.cross_entropy

    def noted(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        losses.append((loss := real(logits, labels)).item())
        return loss

    monkeypatch.setattr(calibration.F, "cross_entropy", noted)
    state = torch.random.get_rng_state()
    measure("cpu", "Some CPU", TINY)
    assert len(losses) == 5
    assert losses[-1] < losses[0]
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's random numbers are its own"


def test_the_workloads_are_what_their_names_say():
    # parameters of ViT-B/16 and ViT-Ti/16 without class tokens, with a classifier of 400: worked out from their sizes
    for device, width, resolution in (("cuda", 768, 224), ("cpu", 192, 112)):
        sizes = WORKLOADS[device]
        block = 4 * width * width + 4 * width + 8 * width * width + 5 * width + 4 * width
        patches = 3 * 16 * 16 * width + width + (resolution // 16) ** 2 * width
        with torch.device("meta"):
            model = calibration._Transformer(sizes)
        assert sum(p.numel() for p in model.parameters()) == 12 * block + patches + 2 * width + 400 * width + 400


def test_a_file_is_found_by_the_name_of_its_device_and_read_back():
    found = made()
    assert store(found) == file_of("NVIDIA H200")
    assert file_of("NVIDIA H200").name == "nvidia-h200.json"
    assert load(file_of("NVIDIA H200")) == found
    store(again := made(clips_per_second=31.0))
    assert load(file_of("NVIDIA H200")) == again
    assert file_of("  ").name == "unnamed.json"


def test_a_ratio_is_of_one_workload():
    assert ratio(made(), made(clips_per_second=12.0)) == 2.5
    with pytest.raises(UsageError, match=r"workload w-v2 was run there and w-v1 here, which cannot be compared; run"):
        ratio(made(), made(workload="w-v2"))


def test_the_spread_worked_example():
    assert made().spread == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "is not a calibration: workload: Field required"),
        ("rate: 3", "is not a calibration: its JSON: Invalid JSON"),
        (made().model_dump_json().replace("30.0", "0.0"), "is not a calibration: clips_per_second: Input should be greater than 0"),
        (made().model_dump_json().replace('version":1', 'version":2'), "is not a calibration: schema_version"),
    ],
)
def test_a_file_that_is_something_else(tmp_path: Path, content: str, message: str):
    (tmp_path / "file.json").write_text(content)
    with pytest.raises(BenchctlError) as raised:
        load(tmp_path / "file.json")
    assert str(raised.value).startswith(f"{tmp_path / 'file.json'}: {message}")


def test_a_file_that_is_not_there_and_a_folder_that_cannot_be_made(tmp_path: Path):
    with pytest.raises(MissingError, match="cannot be read: No such file"):
        load(tmp_path / "none.json")
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(MissingError, match="cannot be written"):
        store(made())


def test_a_name_that_carries_its_version_stands_in_the_docstring():
    for sizes in WORKLOADS.values():
        assert f"    {sizes.name} " in (calibration.__doc__ or "")
