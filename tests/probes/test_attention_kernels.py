import pytest
import torch
from probe_models import Attending, batch, step

from benchctl.errors import TraceFailed
from benchctl.gpu_models import GPUS, GpuName
from benchctl.probes.prediction import CPU, StepTrace, predict
from benchctl.probes.prediction.attention import Policy

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
aten = torch.ops.aten


def head(dtype: torch.dtype, dim: int = 64, heads: int = 4) -> torch.Tensor:
    return torch.empty(1, heads, 16, dim, dtype=dtype, device="meta")


@pytest.mark.parametrize(
    ("dtype", "dim", "masked", "kernel"),
    [
        (FP32, 64, False, "efficient"),
        (FP16, 64, False, "flash"),
        (BF16, 256, False, "flash"),
        (BF16, 20, False, "flash"),
        (BF16, 264, False, "efficient"),
        (FP16, 64, True, "efficient"),
        (FP32, 6, False, "math"),
        (FP16, 20, True, "math"),
        (torch.float64, 64, False, "math"),
    ],
)
def test_torchs_rules(dtype: torch.dtype, dim: int, masked: bool, kernel: str):
    mask = torch.empty(16, 16, device="meta") if masked else None
    assert Policy("sdpa", GPUS["A100"]).choose(head(dtype, dim), head(dtype, dim), mask) == kernel


@pytest.mark.parametrize(
    ("gpu", "dtype", "dim", "masked", "kernel"),
    [
        ("H200", BF16, 64, False, "cudnn"),
        ("B200", FP16, 128, False, "cudnn"),
        ("H200", BF16, 136, False, "flash"),
        ("H200", BF16, 64, True, "efficient"),
        ("H200", FP32, 64, False, "efficient"),
        ("V100", FP16, 64, False, "efficient"),
    ],
)
def test_torchs_rules_by_gpu(gpu: GpuName, dtype: torch.dtype, dim: int, masked: bool, kernel: str):
    mask = torch.empty(16, 16, device="meta") if masked else None
    assert Policy("sdpa", GPUS[gpu]).choose(head(dtype, dim), head(dtype, dim), mask) == kernel


def test_shared_keys_go_to_flash_or_math():
    for dtype, kernel in ((BF16, "flash"), (FP32, "math")):
        assert Policy("sdpa", GPUS["A100"]).choose(head(dtype), head(dtype, heads=2), None) == kernel


@pytest.mark.parametrize(
    ("attention", "dtype", "dim", "says"),
    [
        ("flash", FP32, 64, "takes fp16 and bf16, not float32"),
        ("flash", FP16, 264, "heads are 264 wide"),
        ("efficient", torch.float64, 64, "not float64"),
        ("efficient", FP32, 6, "multiples of 4"),
    ],
)
def test_a_fixed_kernel_that_cuda_would_refuse(attention: str, dtype: torch.dtype, dim: int, says: str):
    with pytest.raises(TraceFailed, match=says):
        Policy(attention, GPUS["A100"]).choose(head(dtype, dim), head(dtype, dim), None)


def trace(attention: str, dtype: torch.dtype | None = None, tokens: int = 512, **options: object) -> StepTrace:
    def build() -> Attending:
        return Attending(**{"heads": 4, "head_dim": 64, **options})

    width = build().out.in_features
    return predict(build, step(dtype=dtype), batch(2, tokens, width), attention=attention)


def test_math_stores_the_attention_matrix_and_the_fused_kernels_do_not():
    matrix = 2 * 4 * 512 * 512 * 4
    math, efficient = (trace(a).peak().by_category["activations"] for a in ("math", "efficient"))
    assert math - efficient > matrix
    math, flash = (trace(a, BF16).peak().by_category["activations"] for a in ("math", "flash"))
    assert math - flash > matrix / 2


@pytest.mark.parametrize(
    ("attention", "dtype", "options", "kernel"),
    [
        ("sdpa", None, {}, "efficient"),
        ("sdpa", BF16, {}, "flash"),
        ("sdpa", BF16, {"masked": True}, "efficient"),
        ("math", BF16, {}, "math"),
        ("auto", None, {}, "efficient"),
        ("sdpa", BF16, {"head_dim": 20}, "flash"),
        ("sdpa", None, {"head_dim": 6}, "math"),
        ("sdpa", BF16, {"is_causal": True, "dropout_p": 0.1}, "flash"),
        ("efficient", None, {"masked": True}, "efficient"),
    ],
)
def test_what_ran_is_recorded(attention: str, dtype: torch.dtype | None, options: dict[str, object], kernel: str):
    assert trace(attention, dtype, 50, **options).attention_kernels == {kernel: 2}


def test_a_mask_is_padded_to_rows_of_sixteen():
    """50 keys: bool 50 x 50, additive fp32 50 x 50, padded 50 x 64."""
    sizes = [s.size_bytes for s in trace("efficient", None, 50, masked=True).storages]
    assert 50 * 64 * 4 in sizes
    assert 50 * 64 * 4 not in [s.size_bytes for s in trace("efficient", None, 64, masked=True).storages]


def test_efficient_does_not_exist_on_the_cpu():
    with pytest.raises(TraceFailed, match="does not exist on the CPU"):
        predict(Attending, step(), batch(1, 8, 256), attention="efficient", device=CPU)


@pytest.mark.parametrize(("attention", "operator"), [("sdpa", True), ("flash", True), ("math", False)])
def test_the_cpu_follows_its_own_rules(attention: str, operator: bool):
    found = predict(Attending, step(), batch(1, 64, 256), attention=attention, device=CPU)
    assert any("flash_attention_for_cpu" in s.operator for s in found.storages) == operator
