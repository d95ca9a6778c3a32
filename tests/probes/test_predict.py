"""CUDA memory predicted without a GPU. The figures of TimeSformer are those that an H200 was seen to take."""

import gc
from collections.abc import Callable

import pytest
import torch
from probe_models import SMALL, Attending, Mlp, PlainStep, batch, step, timesformer, timm_model, videomae
from torch import nn
from torch.utils.checkpoint import checkpoint

from benchctl.errors import TraceFailed
from benchctl.gpu_models import GPUS
from benchctl.probes.prediction import CPU, CUDA, FAKE_DEVICE, StepTrace, TracedDevice, predict
from benchctl.probes.prediction.cuda_workspaces import CUBLAS_WORKSPACE_BYTES, CUBLASLT_WORKSPACE_BYTES

GIB = 2**30
MLP_PARAMETER_BYTES = 4 * (256 * 1024 + 1024 + 1024 * 10 + 10)


def mlp(make_step: Callable[[nn.Module], PlainStep] | None = None, rows: int = 64, **options: object) -> StepTrace:
    return predict(Mlp, make_step or step(), batch(rows, 256), attention="sdpa", **options)


@pytest.mark.parametrize(
    ("clips", "frames", "resolution", "allocated", "reserved"),
    [
        (1, 8, 224, 2.443, 2.744),
        (1, 8, 448, 9.150, 9.713),
        (1, 8, 1024, 116.256, 122.416),
        (16, 16, 224, 47.782, 49.998),
    ],
)
def test_timesformer_b(clips: int, frames: int, resolution: int, allocated: float, reserved: float):
    build = timesformer(num_frames=frames, image_size=resolution)
    h200 = TracedDevice("cuda", GPUS["H200"])
    trace = predict(build, step(), batch(clips, frames, 3, resolution, resolution), attention="eager", device=h200)
    peak = trace.peak()
    assert peak.allocated_bytes / GIB == pytest.approx(allocated, rel=0.002)
    assert peak.reserved_bytes / GIB == pytest.approx(reserved, rel=0.01)
    assert sum(peak.by_category.values()) == peak.allocated_bytes
    assert trace.peak(cap_bytes=48 * GIB).fits == (reserved < 48)


@pytest.mark.parametrize(("attention", "allocated", "kernels"), [("eager", 20.5, {}), ("sdpa", 7.9, {"efficient": 24})])
def test_videomae_b(attention: str, allocated: float, kernels: dict[str, int]):
    trace = predict(videomae(attn_implementation=attention), step(), batch(8, 16, 3, 224, 224), attention=attention)
    assert trace.peak().allocated_bytes / GIB == pytest.approx(allocated, rel=0.03)
    assert trace.attention_kernels == kernels


def test_worked_example_by_category():
    """Rounded up to 512 bytes: weights 1 MiB + 40 KiB, biases 4 KiB + 512."""
    rounded = 1024 * 1024 + 40 * 1024 + 4 * 1024 + 512
    peak = mlp(rows=4096).peak()
    assert peak.step == 2
    assert peak.by_category["parameters"] == peak.by_category["optimizer"] == rounded
    assert peak.by_category["inputs"] == 4096 * 256 * 4 + 4096 * 8
    # forward and backward run on threads of their own, and each has a cuBLAS handle; biases are added by cuBLASLt, in forward alone
    kept = 2 * CUBLAS_WORKSPACE_BYTES + CUBLASLT_WORKSPACE_BYTES
    assert peak.by_category["workspace"] >= kept
    assert sum(peak.by_category.values()) == peak.allocated_bytes


def test_adamw_keeps_two_moments_where_sgd_keeps_one():
    def optimizer_bytes(name: str) -> int:
        return mlp(step(optimizer=name), rows=4096).peak().by_category["optimizer"]

    assert optimizer_bytes("adamw") - optimizer_bytes("sgd") == pytest.approx(MLP_PARAMETER_BYTES, rel=0.01)


def test_optimizer_state_is_there_in_the_second_step_only():
    trace = mlp(rows=4096)
    sizes = {1: 0, 2: 0}
    for number in (1, 2):
        sizes[number] = sum(s.size_bytes for s in trace.storages if s.step == number and s.phase == "update" and s.category == "optimizer")
    assert sizes[1] - sizes[2] >= MLP_PARAMETER_BYTES


def test_half_precision_halves_activations_and_adds_casts():
    fp32, bf16 = (mlp(step(dtype=dtype), rows=8192).peak().by_category["activations"] for dtype in (None, torch.bfloat16))
    assert 0.5 < bf16 / fp32 < 0.75


def test_fp16_includes_gradient_scaling():
    plain, scaled = (mlp(step(optimizer="adamw", dtype=torch.float16, scaled=s)) for s in (False, True))
    operators = {s.operator for s in scaled.storages}
    assert "aten::_amp_update_scale_" not in operators  # in place
    assert scaled.operators > plain.operators
    # the scale and its growth counter, and the overflow flags: some scalars of 512 bytes, in each of the two steps
    assert 0 < scaled.peak().allocated_bytes - plain.peak().allocated_bytes <= 16 * 512


@pytest.mark.parametrize("build", [timm_model("resnet18"), timm_model("vit_tiny_patch16_224", img_size=64, drop_path_rate=0.1)])
@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_other_families(build: Callable[[], nn.Module], dtype: torch.dtype | None):
    peak = predict(build, step(dtype=dtype, scaled=dtype is torch.float16), batch(2, 3, 64, 64), attention="sdpa").peak()
    assert peak.fits
    assert peak.by_category["activations"] > 0


class Checkpointed(nn.Module):
    """Attention blocks whose activations are recomputed in backward, on autograd's thread."""

    def __init__(self, checkpointed: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(64, 4, 256, batch_first=True) for _ in range(6))
        self.head = nn.Linear(64, 10)
        self.checkpointed = checkpointed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointed else block(x)
        return self.head(x.mean(1))


def test_checkpointing():
    peaks = [
        predict(lambda c=c: Checkpointed(c), step(dtype=torch.bfloat16), batch(8, 256, 64), attention="math")
        .peak()
        .by_category["activations"]
        for c in (False, True)
    ]
    assert peaks[1] < peaks[0] / 2


def test_inference_is_a_step_that_only_goes_forward():
    class Inference:
        def __init__(self, model: nn.Module) -> None:
            self.model = model

        def forward(self, data: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
            with torch.no_grad():
                return self.model(data[0])

        def backward(self, loss: torch.Tensor) -> None: ...

        def update(self) -> None: ...

    peak = mlp(Inference, rows=4096).peak()
    assert peak.by_category["gradients"] == peak.by_category["optimizer"] == 0
    # the wide layer before and after its activation function
    assert peak.by_category["activations"] == 2 * 4096 * 1024 * 4


def test_frozen_parameters_have_neither_gradients_nor_state():
    def half_frozen() -> nn.Module:
        model = Mlp()
        model.up.requires_grad_(False)
        return model

    def make_step(model: nn.Module) -> PlainStep:
        made = PlainStep(model)
        assert sum(p.numel() for g in made.optimizer.param_groups for p in g["params"]) == 1024 * 10 + 10
        return made

    trace = predict(half_frozen, make_step, batch(4, 256), attention="sdpa")
    assert sum(s.size_bytes for s in trace.storages if s.category == "gradients") == 2 * 4 * (1024 * 10 + 10)


def test_shared_parameters_count_once():
    class Tied(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.again = nn.Linear(256, 1024)
            self.again.weight = self.up.weight

    plain, tied = (predict(build, step(), batch(4, 256), attention="sdpa").peak() for build in (Mlp, Tied))
    assert tied.by_category["parameters"] - plain.by_category["parameters"] == 4096


def test_cublas_workspace_is_a_property_of_the_device():
    hopper = TracedDevice("cuda", GPUS["H200"])
    assert mlp(device=hopper).peak().by_category["workspace"] == 64 * 2**20 + CUBLASLT_WORKSPACE_BYTES


def test_predictions_do_not_depend_on_what_ran_before():
    first = mlp(step(optimizer="adamw", dtype=torch.float16, scaled=True))
    predict(timesformer(**SMALL, num_frames=2, image_size=32), step(dtype=torch.bfloat16), batch(1, 2, 3, 32, 32), attention="eager")
    with pytest.raises(TraceFailed):
        predict(lambda: Attending(head_dim=6), step(), batch(1, 8, 24), attention="flash")
    mlp(device=CPU)
    again = mlp(step(optimizer="adamw", dtype=torch.float16, scaled=True))
    assert again == first


def test_a_prediction_leaves_the_process_as_it_was():
    torch.manual_seed(7)
    state, collecting = torch.get_rng_state(), gc.isenabled()
    mlp()
    assert torch.equal(torch.get_rng_state(), state)
    assert gc.isenabled() == collecting
    assert not torch.is_autocast_enabled(FAKE_DEVICE)
    model = Mlp(8)
    assert model(torch.ones(1, 8)).isfinite().all()


def failing(what: str) -> type[Mlp]:
    class Failing(Mlp):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if what == "item" and super().forward(x).sum().item() > 0:
                return x
            if what == "other device":
                return super().forward(x + torch.ones(256, device="cpu"))
            if what == "shape":
                return self.down(x)
            if what == "data-dependent shape":
                return super().forward(x[x > 0])
            return super().forward(x)

    return Failing


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("item", "reads a tensor's value"),
        ("other device", "device"),
        ("shape", "reduction dim"),
        ("data-dependent shape", "cannot be traced"),
    ],
)
@pytest.mark.parametrize("device", [CUDA, CPU])
def test_what_cannot_be_traced_is_one_line(what: str, says: str, device: TracedDevice, capfd: pytest.CaptureFixture[str]):
    if what == "other device" and device is CPU:
        pytest.skip("one device")
    with pytest.raises(TraceFailed) as raised:
        predict(failing(what), step(), batch(4, 256), attention="sdpa", device=device)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    assert capfd.readouterr().err == ""


def test_a_build_that_fails_is_a_trace_that_fails():
    def build() -> nn.Module:
        raise KeyError("no such layer")

    with pytest.raises(TraceFailed, match="KeyError: 'no such layer'"):
        predict(build, step(), batch(1, 256), attention="sdpa")


def test_another_owner_of_the_device_slot_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch._C._get_privateuse1_backend_name", lambda: "npu")
    with pytest.raises(TraceFailed, match="'npu' takes torch's one slot"):
        mlp()


class Resizing(Mlp):
    """Writes into a result that is too small, which torch then enlarges."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            out = torch.empty(1, device=x.device).resize_(64, 1024)
            torch.mul(self.up.weight[:64, :1], torch.ones(1, 1024, device=x.device), out=out)
            out.resize_(128, 1024)
        return super().forward(x) + out.sum()


def test_a_storage_that_is_resized_is_recorded_anew():
    trace = predict(Resizing, step(), batch(64, 256), attention="sdpa")
    live: set[int] = set()
    for event in trace.events:
        if event >= 0:
            live.add(event)
        else:
            live.remove(~event)
    sizes = [s.size_bytes for s in trace.storages if s.operator == "aten::resize_"]
    assert sizes == [64 * 1024 * 4, 128 * 1024 * 4] * 2
