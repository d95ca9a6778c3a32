import re
from pathlib import Path

import pytest
import torch
from probe_models import Mlp, PlainStep, batch, step
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from benchctl.probes.prediction import FAKE_DEVICE, StepTrace, autocast, fake_device, predict

FP32, BF16 = torch.float32, torch.bfloat16
HEADER = Path(torch.__file__).parent / "include/ATen/autocast_mode.h"


@pytest.mark.parametrize(
    ("macro", "ours"),
    [
        ("LOWER_PRECISION_FP", autocast.LOWER_PRECISION),
        ("FP32", autocast.FLOAT32),
        ("FP32_SET_OPT_DTYPE", autocast.FLOAT32_RESULT),
        ("PROMOTE", autocast.WIDEST),
    ],
)
def test_the_lists_are_torchs(macro: str, ours: list[str]):
    if not HEADER.exists():
        pytest.skip("this torch ships no headers")
    body = re.search(rf"#define AT_FORALL_{macro}\(_\)((?:.*\\\n)*.*)", HEADER.read_text())
    assert body is not None
    theirs = [".".join(re.split(r",\s*", entry)) for entry in re.findall(r"_\(([\w, ]+)\)", body[1])]
    if "linalg_vecdot" not in theirs and macro == "LOWER_PRECISION_FP":
        pytest.skip("an older torch")
    assert sorted(ours) == sorted(theirs)


def dtypes(device: str) -> list[torch.dtype]:
    """What a row of operators returns under bf16 autocast."""
    x, half = torch.ones(4, 4, device=device), torch.ones(4, 4, device=device, dtype=BF16)
    weight = torch.ones(4, 4, device=device)
    with torch.autocast(device, BF16):
        return [
            (x @ x).dtype,
            F.linear(x, weight).dtype,
            F.conv1d(x[None], torch.ones(4, 4, 1, device=device)).dtype,
            F.layer_norm(half, (4,)).dtype,
            half.softmax(-1).dtype,
            half.softmax(-1, dtype=BF16).dtype,
            half.sum().dtype,
            F.gelu(half).dtype,
            (x + half).dtype,
            torch.einsum("ij,jk->ik", x, x).dtype,
            F.cross_entropy(half, torch.zeros(4, dtype=torch.long, device=device)).dtype,
            torch.addcmul(half, half, x).dtype,
            (x.double() @ x.double()).dtype,
        ]


def test_results_have_the_types_that_cuda_gives():
    fake_device.register()
    with FakeTensorMode():
        found = dtypes(FAKE_DEVICE)
    assert found == [BF16, BF16, BF16, FP32, FP32, BF16, FP32, BF16, FP32, BF16, FP32, FP32, torch.float64]


def casts(trace: StepTrace) -> list[int]:
    return [s.size_bytes for s in trace.storages if s.step == 1 and s.phase == "forward" and s.operator == "aten::_to_copy"]


class Twice(Mlp):
    """Uses the same weight twice in one forward pass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + super().forward(x * 2)


def test_a_weight_is_cast_once_in_a_forward_pass():
    found = casts(predict(Twice, step(dtype=BF16), batch(4, 256), attention="sdpa"))
    assert found.count(256 * 1024 * 2) == 1


class Uncached(PlainStep):
    def forward(self, data: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        with torch.autocast(self.device, BF16, cache_enabled=False):
            return F.cross_entropy(self.model(data[0]), data[1])


def test_without_the_cache_it_is_cast_at_every_use():
    assert casts(predict(Twice, Uncached, batch(4, 256), attention="sdpa")).count(256 * 1024 * 2) == 2


class Nested(nn.Module):
    """A float32 region in the middle must not empty the cache."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(256, 256)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x)
        with torch.autocast(x.device.type, enabled=False):
            x = x.float().exp()
        return self.layer(x)[:, :10]


def test_a_nested_region_keeps_the_cache():
    assert casts(predict(Nested, step(dtype=BF16), batch(4, 256), attention="sdpa")).count(256 * 256 * 2) == 1


def test_casts_die_with_the_autocast_block():
    """In inference nothing else holds them: the second forward pass casts again."""

    class Inference(PlainStep):
        def forward(self, data: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
            return super().forward(data).detach()

        def backward(self, loss: torch.Tensor) -> None: ...

        def update(self) -> None: ...

    trace = predict(Mlp, lambda model: Inference(model, dtype=BF16), batch(4, 256), attention="sdpa")
    weight = [i for i, s in enumerate(trace.storages) if s.size_bytes == 256 * 1024 * 2]
    assert [trace.storages[i].step for i in weight] == [1, 2]
    assert trace.events.index(~weight[0]) < trace.events.index(weight[1])
