from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchctl.layers.query_decoder import QueryDecoder, QuickGELU


def test_quick_gelu_is_its_formula() -> None:
    x = torch.linspace(-4, 4, 9, dtype=torch.float64)
    torch.testing.assert_close(QuickGELU()(x), x / (1 + torch.exp(-1.702 * x)))


def test_quick_gelu_keeps_one_tensor_for_the_backward_pass() -> None:
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        QuickGELU()(torch.randn(100, requires_grad=True))
    assert len({t.untyped_storage().data_ptr() for t in saved if t.numel() == 100}) == 1


@pytest.mark.parametrize("shared", [False, True])
def test_decoder_is_its_definition(shared: bool) -> None:
    torch.manual_seed(0)
    decoder = QueryDecoder(12, 3, "sdpa", shared_norm=shared).double()
    for norm in (decoder.query_norm, decoder.token_norm, decoder.mlp_norm):
        if norm is not None:
            nn.init.normal_(norm.weight)
    query, tokens = torch.randn(2, 1, 12, dtype=torch.float64), torch.randn(2, 7, 12, dtype=torch.float64)
    token_weight = decoder.query_norm.weight if decoder.token_norm is None else decoder.token_norm.weight
    read = decoder.attention(F.layer_norm(query, (12,), decoder.query_norm.weight), F.layer_norm(tokens, (12,), token_weight))
    middle = query + read
    hidden = decoder.mlp[0](F.layer_norm(middle, (12,), decoder.mlp_norm.weight))
    torch.testing.assert_close(decoder(query, tokens), middle + decoder.mlp[3](hidden * torch.sigmoid(1.702 * hidden)))


def test_a_shared_norm_is_one_set_of_weights() -> None:
    two, one = (QueryDecoder(12, 3, "sdpa", shared_norm=shared) for shared in (False, True))
    assert sum(t.numel() for t in two.state_dict().values()) - sum(t.numel() for t in one.state_dict().values()) == 2 * 12


def test_dropout_is_in_the_mlp() -> None:
    torch.manual_seed(0)
    decoder = QueryDecoder(12, 3, "sdpa", dropout=0.5)
    query, tokens = torch.randn(1, 1, 12), torch.randn(1, 7, 12)
    assert not torch.equal(decoder.train()(query, tokens), decoder(query, tokens))
    assert torch.equal(decoder.eval()(query, tokens), decoder(query, tokens))
