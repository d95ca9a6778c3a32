"""The real bindings against a driver of our own making, loaded by the name that the real one has. Its answers are synthetic."""

import json
from pathlib import Path

import pytest
from synthetic_driver import compiled, said

from benchctl.errors import DeviceMissing
from benchctl.probes import nvml


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="module")
def old_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("old_driver"), "-DOLD_DRIVER")


def ask(library: Path, expression: str, *, uuid: str = "1234", **environment: str) -> str:
    """What `expression` about `nvml` and the opened `gpu` prints in a process that finds the stub first; an error as its text."""
    code = f"""
import sys
from benchctl.errors import DeviceMissing
from benchctl.probes import device, nvml
try:
    with nvml.OpenGpu({uuid!r}) as gpu:
        answer = {expression}
    assert "torch" not in sys.modules
except DeviceMissing as missing:
    answer = missing
sys.stdout.write(str(answer))
"""
    return said(library, code, **environment)


def test_the_driver_and_its_gpus(library: Path):
    found = ask(library, "(d := nvml.driver()).version, d.cuda, d.gpus[0].model_dump(), len(d.gpus)")
    assert found == f"('600.1', '13.2', {{'name': 'Stub 3000', 'uuid': 'GPU-1234', 'memory_bytes': {48 * 2**30}}}, 1)"
    assert ask(library, "device.gpus().driver") == "600.1"


@pytest.mark.parametrize("uuid", ["1234", "GPU-1234"])
def test_this_process_is_found_by_number(library: Path, uuid: str):
    assert ask(library, "gpu.process_bytes(pid=42)", uuid=uuid) == str(5 * 2**30 + 3)
    assert ask(library, "gpu.process_bytes(pid=1)", uuid=uuid) == "111"


def test_a_process_that_is_not_listed_is_a_reason_and_not_zero(library: Path):
    assert (
        ask(library, "gpu.process_bytes(pid=43)")
        == "the driver does not list process 43, as in a container with process numbers of its own"
    )
    assert ask(library, "gpu.process_bytes(pid=42)", STUB_NO_MEMORY="1") == "the driver lists process 42 without its memory"


def test_the_numbers_of_a_gpu(library: Path):
    found = ask(
        library, "gpu.energy_millijoules(), gpu.sm_clock_megahertz(), gpu.utilisation_percent(), gpu.clock_reasons()", STUB_REASONS="0x24"
    )
    assert found == "(7, 1410, 80, 36)"


LACKING = {
    "energy_millijoules": "this GPU has no energy counter",
    "sm_clock_megahertz": "this GPU does not tell its clock",
    "utilisation_percent": "this GPU does not tell its utilisation",
    "clock_reasons": "this GPU does not tell why its clock is lowered",
    "process_bytes": "this GPU lists no processes",
}


def test_what_a_gpu_lacks_is_a_reason(library: Path):
    ask_all = f"""
import json, sys
from benchctl.errors import DeviceMissing
from benchctl.probes import nvml
said = {{}}
with nvml.OpenGpu("1234") as gpu:
    for name in {list(LACKING)}:
        try:
            said[name] = getattr(gpu, name)()
        except DeviceMissing as missing:
            said[name] = str(missing)
print(json.dumps(said))
"""
    names = "energy,clock,utilisation,reasons,processes"
    assert json.loads(said(library, ask_all, STUB_UNSUPPORTED=names)) == LACKING
    assert set(json.loads(said(library, ask_all, STUB_FAILS=names)).values()) == {"the driver does not answer: Driver Not Loaded"}


def test_a_driver_that_has_the_older_name_for_the_reasons_of_the_clock(old_library: Path):
    assert ask(old_library, "gpu.clock_reasons()", STUB_REASONS="4") == "4"


def test_reasons_have_the_names_of_the_bindings():
    assert nvml.reason_names(0) == ()
    assert nvml.reason_names(1 | 4 | 32) == ("GpuIdle", "SwPowerCap", "SwThermalSlowdown")
    assert nvml.reason_names(1 << 40) == ("0x10000000000",)


@pytest.mark.parametrize(("reasons", "slow"), [(0, False), (1, False), (2, False), (16, False), (4, True), (8, True), (32, True), (64, True), (128, True), (256, False), (1 | 4, True)])  # fmt: skip
def test_which_reasons_slow_a_gpu_down(reasons: int, slow: bool):
    assert nvml.slows(reasons) == slow


def test_a_driver_that_does_not_answer(library: Path):
    assert ask(library, "nvml.driver()", STUB_FAILS="init") == "the driver does not answer: Driver Not Loaded"
    assert ask(library, "gpu.process_bytes()", STUB_FAILS="init") == "the driver does not answer: Driver Not Loaded"
    assert ask(library, "gpu.process_bytes()", uuid="nope") == "the driver lists no GPU GPU-nope"
    assert ask(library, "device.cuda_unavailable()", STUB_FAILS="init") == "the driver does not answer: Driver Not Loaded"


def test_no_driver(monkeypatch: pytest.MonkeyPatch):
    import pynvml

    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    with nvml.OpenGpu("1234") as gpu:
        for question in (nvml.driver, gpu.process_bytes, gpu.energy_millijoules):
            with pytest.raises(DeviceMissing) as raised:
                question()
            assert str(raised.value) == "no driver"
    with pytest.raises(DeviceMissing, match="no session"):
        nvml.OpenGpu("1234").process_bytes()
