"""Cadence, a gated transformer over the history: Tandem's own.

SASRec's idea with what was learned since. Each sublayer is normalised before and gated after
(LiGR; Borisyuk et al., "From Features to Transformers: Redefining Ranking for Scalable Impact",
2025), the inner layer is a SwiGLU (Shazeer, "GLU Variants Improve Transformer", 2020), and distance
is a fixed slope on the attention of each head instead of learned positions (ALiBi; Press et al.,
"Train Short, Test Long", ICLR 2022): some heads see the last few items, some see all alike.

Differs from these papers: the first head has no slope, so that it reads the whole history; the
vectors are compared by cosine.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from contract.features import Block
from offline.layers import causal_mask
from offline.models.sequence import SequenceModel

STEEPEST = 1.0
"""Of the slopes: what one step back takes off the logarithm of an item's weight."""


class Cadence(SequenceModel):
    def __init__(
        self,
        *,
        users: int,
        items: int,
        user_blocks: Sequence[Block],
        item_blocks: Sequence[Block],
        user_numbers: int,
        item_numbers: int,
        history_length: int,
        dim: int = 64,
        layers: int = 2,
        heads: int = 4,
        inner: int = 128,
        field_dim: int = 16,
        dropout: float = 0.2,
        id_dropout: float = 0.05,
    ) -> None:
        super().__init__(
            users,
            items,
            user_blocks,
            item_blocks,
            user_numbers,
            item_numbers,
            dim,
            field_dim,
            id_dropout,
        )
        if dim % heads:
            raise ValueError(f"dim is {dim}, expected a multiple of heads, {heads}")
        self.register_buffer("slopes", _slopes(heads), persistent=False)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(_Layer(dim, heads, inner, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def read(self, history: Tensor, mask: Tensor) -> Tensor:
        return self.read_last(history, mask, history.shape[1])

    def read_last(self, history: Tensor, mask: Tensor, last: int) -> Tensor:
        states, bias = self.dropout(history), self._bias(mask)
        for layer in self.layers[:-1]:
            states = layer(states, bias, history.shape[1])
        # Nobody reads the last layer but at these positions.
        return cast(Tensor, self.norm(self.layers[-1](states, bias, last))).unsqueeze(2)

    def _bias(self, mask: Tensor) -> Tensor:
        """(B, W) -> (B, heads, W, W), added to the attention."""
        columns = torch.arange(mask.shape[1], device=mask.device)
        back = (columns.unsqueeze(1) - columns).clamp(min=0)
        slopes = cast(Tensor, self.slopes)[:, None, None]
        return torch.where(causal_mask(mask), -slopes * back, float("-inf"))


class _Layer(nn.Module):
    def __init__(self, dim: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 4 * dim), nn.Linear(dim, dim)
        self.wide, self.narrow = nn.Linear(dim, 2 * inner + dim), nn.Linear(inner, dim)
        self.inner = inner
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, bias: Tensor, last: int) -> Tensor:
        """states (B, W, D), bias (B, heads, W, W) -> the last positions, (B, last, D)."""
        batch, width, dim = states.shape
        qkv, gate = self.qkv(self.before(states)).split([3 * dim, dim], dim=2)
        query, key, value = qkv.view(batch, width, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if last < width:  # the way back of a slice writes all of it once more
            query, bias = query[:, :, -last:], bias[:, :, -last:]
            states, gate = states[:, -last:], gate[:, -last:]
        found = scaled_dot_product_attention(query, key, value, attn_mask=bias)
        found = self.out(found.transpose(1, 2).reshape(states.shape))
        states = states + gate.sigmoid() * self.dropout(found)
        left, right, gate = self.wide(self.between(states)).split([self.inner, self.inner, dim], 2)
        inner = self.narrow(self.dropout(silu(left) * right))
        return cast(Tensor, states + gate.sigmoid() * self.dropout(inner))


def _slopes(heads: int) -> Tensor:
    """(heads,): 0, then halved from STEEPEST on."""
    return torch.tensor([0.0, *(STEEPEST / 2**head for head in range(heads - 1))])
