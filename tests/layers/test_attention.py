"""Every backend against the definition, and the kernel that is really used."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchctl.errors import DeviceMissing, UsageError
from benchctl.layers.attention import BACKENDS, MultiHeadAttention, attend, fixed_kernel, transformers_backend
from benchctl.spec import Attention

ON_CPU: tuple[Attention, ...] = tuple(b for b in BACKENDS if b != "efficient")


def written_out(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key, value = query.double(), key.double(), value.double()
    out = torch.zeros(*query.shape[:-1], value.shape[-1], dtype=torch.float64)
    for batch in range(query.shape[0]):
        for head in range(query.shape[1]):
            for i in range(query.shape[2]):
                scores = [float(query[batch, head, i] @ key[batch, head, j]) / query.shape[3] ** 0.5 for j in range(key.shape[2])]
                weights = torch.tensor(scores, dtype=torch.float64).exp()
                weights = weights / weights.sum()
                for j in range(key.shape[2]):
                    out[batch, head, i] += weights[j] * value[batch, head, j]
    return out


def inputs(requires_grad: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    shapes = ((2, 3, 5, 8), (2, 3, 6, 8), (2, 3, 6, 8))
    q, k, v = (torch.randn(shape, generator=g).requires_grad_(requires_grad) for shape in shapes)
    return q, k, v


@pytest.mark.parametrize("attention", ON_CPU)
def test_equals_definition(attention: Attention) -> None:
    query, key, value = inputs()
    torch.testing.assert_close(attend(query, key, value, attention).double(), written_out(query, key, value), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("attention", ON_CPU)
def test_gradients_equal_those_of_eager(attention: Attention) -> None:
    ours, reference = inputs(requires_grad=True), inputs(requires_grad=True)
    attend(*ours, attention).square().sum().backward()
    attend(*reference, "eager").square().sum().backward()
    for a, b in zip(ours, reference):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-4)


def test_efficient_is_refused_on_the_cpu() -> None:
    with pytest.raises(DeviceMissing, match="CUDA only"):
        attend(*inputs(), "efficient")


def test_a_kernel_that_refuses_its_inputs_says_so() -> None:
    query, key, value = inputs()
    with pytest.raises(UsageError, match="'flash' refuses"):
        attend(query, key, value[..., :4], "flash")


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(RuntimeError, match="something else"), fixed_kernel("math", torch.device("cpu")):
        raise RuntimeError("something else")


@pytest.mark.parametrize(("attention", "node"), [("math", None), ("flash", "ScaledDotProductFlashAttentionForCpuBackward0")])
def test_the_named_kernel_runs(attention: Attention, node: str | None) -> None:
    out = attend(*inputs(requires_grad=True), attention)
    fused = type(out.grad_fn).__name__ == "ScaledDotProductFlashAttentionForCpuBackward0"
    assert fused == (node is not None)


def allowed_kernels() -> tuple[bool, bool, bool]:
    cuda = torch.backends.cuda
    return cuda.math_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.flash_sdp_enabled()


def test_recomputation_by_activation_checkpointing_uses_the_same_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    fused = F.scaled_dot_product_attention

    def spy(*args: Tensor, **kwargs: Tensor | None) -> Tensor:
        seen.append(allowed_kernels())
        return fused(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    before = allowed_kernels()
    query, key, value = inputs(requires_grad=True)
    checkpoint(attend, query, key, value, "math", use_reentrant=False).sum().backward()
    assert seen == [(True, False, False)] * 2
    assert allowed_kernels() == before


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_transformers_own_backends_keep_their_names(attention: Attention) -> None:
    assert transformers_backend(attention) == attention


def test_a_fixed_kernel_reaches_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import VideoMAEConfig, VideoMAEModel

    seen = []
    fused = F.scaled_dot_product_attention

    def spy(*args: Tensor, **kwargs: object) -> Tensor:
        seen.append(allowed_kernels())
        return fused(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "image_size": 32,
        "num_frames": 2,
    }
    model = VideoMAEModel(VideoMAEConfig(**sizes, attn_implementation=transformers_backend("math")))
    model(torch.zeros(1, 2, 3, 32, 32))
    assert seen == [(True, False, False)] * 2


@pytest.mark.parametrize("attention", ["sdpa", "eager", "math"])
def test_multi_head_attention_is_that_of_torch(attention: str) -> None:
    torch.manual_seed(0)
    module = MultiHeadAttention(12, 3, attention).double()  # type: ignore[arg-type]
    query, tokens = torch.randn(2, 2, 12, dtype=torch.float64), torch.randn(2, 7, 12, dtype=torch.float64)
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    parts = (module.query, module.key_value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        theirs.in_proj_bias.copy_(torch.cat([p.bias.normal_() for p in parts]))
        theirs.out_proj.weight.copy_(module.out.weight)
        theirs.out_proj.bias.copy_(module.out.bias.normal_())
    torch.testing.assert_close(module(query, tokens), theirs(query, tokens, tokens, need_weights=False)[0])
    mask = torch.tensor([[True] * 4 + [False] * 3, [False] * 2 + [True] * 5])
    # torch's mask is true where a query may not look
    masked = theirs(query, tokens, tokens, need_weights=False, attn_mask=~mask)[0]
    torch.testing.assert_close(module(query, tokens, mask), masked)
