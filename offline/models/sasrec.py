"""SASRec, self-attention over the history.

Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018. Each item looks back at the
items before it and takes from them what helps to say what comes next; the last position is the
user.

Differs from the paper:
- the norm comes before each sublayer, and once more at the end;
- besides the learned positions, how far back an item lies is a learned bias of each head;
- cosine and a temperature, and a softmax over many negatives instead of one negative and a binary
  loss (see the recipe), which is worth more than all else;
- items have content besides their id, users a profile, where the recipe names features.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from contract.errors import RecipeError
from contract.features import Block
from offline.layers import Recency, causal_mask
from offline.models.sequence import SequenceModel


class Sasrec(SequenceModel):
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
        field_dim: int = 16,
        dropout: float = 0.2,
        id_dropout: float = 0.0,
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
        self.positions = nn.Parameter(0.02 * torch.randn(history_length, dim))
        self.recency = Recency(heads, history_length)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(_Layer(dim, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def read(self, history: Tensor, mask: Tensor) -> Tensor:
        return self.read_last(history, mask, history.shape[1])

    def read_last(self, history: Tensor, mask: Tensor, last: int) -> Tensor:
        width, length = history.shape[1], len(self.positions)
        if width > length:
            raise RecipeError(
                f"training.length is {width}, and this model reads {length} items at most; lower "
                "it or raise history_length"
            )
        states = self.dropout(history + self.positions[length - width :])
        visible = causal_mask(mask)
        bias = self.recency(visible).masked_fill(~visible, float("-inf"))  # (B, heads, W, W)
        for layer in self.layers[:-1]:
            states = layer(states, bias, width)
        # Nobody reads the last layer but at these positions.
        return cast(Tensor, self.norm(self.layers[-1](states, bias, last))).unsqueeze(2)


class _Layer(nn.Module):
    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim is {dim}, expected a multiple of heads, {heads}")
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(dim), nn.LayerNorm(dim)])
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.wide, self.narrow = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, bias: Tensor, last: int) -> Tensor:
        """states (B, W, D), bias (B, heads, W, W) -> the last positions, (B, last, D)."""
        batch, width, _ = states.shape
        qkv = self.qkv(self.norms[0](states)).view(batch, width, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, W, dim / heads)
        if last < width:  # the way back of a slice writes all of it once more
            query, bias, states = query[:, :, -last:], bias[:, :, -last:], states[:, -last:]
        found = scaled_dot_product_attention(query, key, value, attn_mask=bias)
        states = states + self.dropout(self.out(found.transpose(1, 2).flatten(2)))
        inner = torch.relu(self.wide(self.norms[1](states)))
        return cast(Tensor, states + self.dropout(self.narrow(self.dropout(inner))))
