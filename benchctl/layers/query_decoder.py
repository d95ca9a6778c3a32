"""Transformer decoder layers whose few learned queries read many tokens, as frozen encoders' readers have them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from benchctl.layers.attention import MultiHeadAttention
from benchctl.spec import Attention

# B batch, Q queries, P tokens, C width


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), CLIP's activation (Hendrycks and Gimpel 2016, arXiv 1606.08415, section 2)."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        # through SiLU, which keeps its input for the backward pass; the product as it is written keeps both of its factors
        return F.silu(1.702 * x) / 1.702


class QueryDecoder(nn.Module):
    """Cross-attention and an MLP of ratio 4 with QuickGELU, each after LayerNorm and with a residual on the queries.

    Weights start as Xavier's uniform distribution has them, biases at zero.

    Args:
        width: C, of queries and tokens.
        heads: heads of the cross-attention.
        attention: its backend.
        dropout: inside the MLP, after its activation.
        shared_norm: whether queries and tokens are normalised by one LayerNorm instead of one each.
    """

    def __init__(self, width: int, heads: int, attention: Attention, *, dropout: float = 0.0, shared_norm: bool = False) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(width)
        self.token_norm = None if shared_norm else nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads, attention)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), QuickGELU(), nn.Dropout(dropout), nn.Linear(4 * width, width))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                # keys and values are two matrices in one
                for matrix in module.weight.chunk(2) if module is self.attention.key_value else (module.weight,):
                    nn.init.xavier_uniform_(matrix)
                nn.init.zeros_(module.bias)

    def forward(self, query_BQC: Tensor, tokens_BPC: Tensor) -> Tensor:
        """(B, Q, C) and (B, P, C) to (B, Q, C)."""
        token_norm = self.query_norm if self.token_norm is None else self.token_norm
        query_BQC = query_BQC + self.attention(self.query_norm(query_BQC), token_norm(tokens_BPC))
        result: Tensor = query_BQC + self.mlp(self.mlp_norm(query_BQC))
        return result
