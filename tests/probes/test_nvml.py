"""The real bindings against a driver of our own making, loaded by the name that the real one has. Its answers are synthetic."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchctl.errors import DeviceMissing
from benchctl.probes import nvml

# `process` is nvmlProcessInfo_v2_t and `memory` nvmlMemory_t, as nvml.h lays them out
STUB = r"""
#include <string.h>
#include <stdlib.h>
typedef struct { unsigned int pid; unsigned long long used; unsigned int instance, compute; } process;
typedef struct { unsigned long long total, free, used; } memory;
static int fails(const char *name) { const char *f = getenv("STUB_FAILS"); return f && !strcmp(f, name); }
int nvmlInitWithFlags(unsigned int flags) { return fails("init") ? 9 : 0; }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == 9 ? "Driver Not Loaded" : "Not Found"; }
int nvmlDeviceGetCount_v2(unsigned int *n) { *n = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int i, void **device) { *device = (void *)1; return i ? 6 : 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) { *device = (void *)1; return strcmp(uuid, "GPU-1234") ? 6 : 0; }
int nvmlDeviceGetName(void *d, char *out, unsigned int n) { strncpy(out, "Stub 3000", n); return 0; }
int nvmlDeviceGetUUID(void *d, char *out, unsigned int n) { strncpy(out, "GPU-1234", n); return 0; }
int nvmlSystemGetDriverVersion(char *out, unsigned int n) { strncpy(out, "600.1", n); return 0; }
int nvmlSystemGetCudaDriverVersion(int *v) { *v = 13020; return 0; }
int nvmlDeviceGetMemoryInfo(void *d, memory *m) { m->total = 48ull << 30; m->free = 1; m->used = 2; return 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned int *n, process *out) {
    unsigned int room = *n;
    *n = 2;
    if (room < 2) return 7;
    out[0] = (process){1, 111, 0, 0};
    out[1] = (process){42, getenv("STUB_NO_MEMORY") ? ~0ull : (5ull << 30) + 3, 0, 0};
    return 0;
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "stub.c").write_text(STUB)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", folder / "stub.c"], check=True)
    return folder


def ask(library: Path, expression: str, **environment: str) -> str:
    """What `expression` about `nvml` prints in a process that finds the stub first; an error as its text."""
    code = f"""
from benchctl.errors import DeviceMissing
from benchctl.probes import device, nvml
try:
    answer = {expression}
    import sys
    assert "torch" not in sys.modules
except DeviceMissing as missing:
    answer = missing
sys.stdout.write(str(answer))
"""
    env = {**os.environ, "LD_LIBRARY_PATH": str(library), **environment}
    code = "import sys\n" + code.replace("    import sys\n", "")
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout


def test_the_driver_and_its_gpus(library: Path):
    found = ask(library, "(d := nvml.driver()).version, d.cuda, d.gpus[0].model_dump(), len(d.gpus)")
    assert found == f"('600.1', '13.2', {{'name': 'Stub 3000', 'uuid': 'GPU-1234', 'memory_bytes': {48 * 2**30}}}, 1)"
    assert ask(library, "device.gpus().driver") == "600.1"


@pytest.mark.parametrize("uuid", ["1234", "GPU-1234"])
def test_this_process_is_found_by_number(library: Path, uuid: str):
    assert ask(library, f"nvml.process_bytes('{uuid}', pid=42)") == str(5 * 2**30 + 3)
    assert ask(library, f"nvml.process_bytes('{uuid}', pid=1)") == "111"


def test_a_process_that_is_not_listed_is_a_reason_and_not_zero(library: Path):
    said = ask(library, "nvml.process_bytes('1234', pid=43)")
    assert said == "the driver does not list process 43, as in a container with process numbers of its own"
    assert ask(library, "nvml.process_bytes('1234', pid=42)", STUB_NO_MEMORY="1") == "the driver lists process 42 without its memory"


def test_a_driver_that_does_not_answer(library: Path):
    assert ask(library, "nvml.driver()", STUB_FAILS="init") == "the driver does not answer: Driver Not Loaded"
    assert ask(library, "nvml.process_bytes('nope', pid=1)") == "the driver does not answer: Not Found"
    assert ask(library, "device.cuda_unavailable()", STUB_FAILS="init") == "the driver does not answer: Driver Not Loaded"


def test_no_driver(monkeypatch: pytest.MonkeyPatch):
    import pynvml

    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    for question in (nvml.driver, lambda: nvml.process_bytes("1234")):
        with pytest.raises(DeviceMissing) as raised:
            question()
        assert str(raised.value) == "no driver"
