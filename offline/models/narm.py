"""NARM, a recurrent network that looks back.

Li et al., "Neural Attentive Session-based Recommendation", CIKM 2017. The last state of a GRU says
what the user does as a whole; with it as the query, attention over all states collects what he is
after, and both together are the user.

Differs from the paper:
- the attention is a scaled product of query and key instead of a perceptron of both: a perceptron
  per pair of positions would cost D times as much;
- one GRU gives the states of both encoders, as in the authors' program;
- a softmax over the catalogue with cosine and a temperature (see the recipe).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from contract.features import Block
from offline.layers import causal_mask
from offline.models.recurrence import Recurrence
from offline.models.sequence import SequenceModel


class Narm(SequenceModel):
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
        hidden: int = 64,
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
        self.dropout = nn.Dropout(dropout)
        self.recurrence = Recurrence(dim, hidden, layers=1)
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.out = nn.Linear(2 * hidden, dim)

    def read(self, history: Tensor, mask: Tensor) -> Tensor:
        states = self.recurrence(self.dropout(history), mask)  # (B, W, hidden)
        query, key, value = (
            part.unsqueeze(1) for part in (self.query(states), self.key(states), states)
        )
        purpose = scaled_dot_product_attention(query, key, value, attn_mask=causal_mask(mask))
        both = torch.cat([states, purpose.squeeze(1)], dim=2)
        vectors: Tensor = self.out(self.dropout(both))  # (B, W, D)
        return vectors.unsqueeze(2)
