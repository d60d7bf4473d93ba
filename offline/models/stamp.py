"""STAMP, attention with the last item in mind.

Liu et al., "STAMP: Short-Term Attention/Memory Priority Model for Session-based Recommendation",
KDD 2018. The last item and the mean of the history ask which items of the history matter; what they
find and the last item itself, each through a layer of its own, are multiplied to be the user.

Differs from the paper:
- the attention is a scaled product of query and key under a softmax instead of a perceptron per
  pair of items whose weights are not bounded: D times cheaper, and as sure for a long history;
- how far back an item lies is a learned bias of the attention: the paper's sessions are short;
- cosine and a temperature (see the recipe).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from contract.features import Block
from offline.layers import Recency
from offline.models.prefix import PrefixModel


class Stamp(PrefixModel):
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
            history_length,
            dim,
            field_dim,
            dropout,
            id_dropout,
        )
        self.recency = Recency(1, history_length)
        self.key = nn.Linear(dim, dim, bias=False)
        self.from_last, self.from_mean = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)
        self.general, self.current = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def pool(self, items: Tensor, visible: Tensor) -> Tensor:
        last = items[:, -visible.shape[1] :]  # (B, Q, D)
        mean = visible.float() @ items / visible.sum(dim=2, keepdim=True)
        query = self.from_last(last) + self.from_mean(mean)
        bias = self.recency(visible).masked_fill(~visible, float("-inf")).unsqueeze(1)
        query, key, value = (part.unsqueeze(1) for part in (query, self.key(items), items))
        found = scaled_dot_product_attention(query, key, value, attn_mask=bias)
        found = found.squeeze(1)  # (B, Q, D)
        vectors = torch.tanh(self.general(found)) * torch.tanh(self.current(last))
        return vectors.unsqueeze(2)
