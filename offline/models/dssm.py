"""DSSM, the two-tower model.

Huang et al., "Learning Deep Structured Semantic Models for Web Search using Clickthrough Data",
CIKM 2013. Two independent networks map a user and an item to one space; their cosine is the score.

Differs from the paper:
- the user side reads an id, a profile and a history of items instead of a query text; the history
  is pooled twice, by the mean and by learned weights of recency;
- the item side reads an id besides its content; the id is dropped at random in training, so that
  the out-of-vocabulary id of a new item is one that the tower knows;
- one hidden layer, and in-batch negatives instead of four drawn ones (see the recipe).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from contract.features import Block
from offline.layers import FieldEmbedding, RecencyPooling, perceptron


class Dssm(nn.Module):
    interests = 1

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
        history_dim: int = 64,
        user_identity_dim: int = 32,
        item_identity_dim: int = 64,
        field_dim: int = 16,
        hidden: int = 256,
        dropout: float = 0.1,
        id_dropout: float = 0.1,
    ) -> None:
        """id_dropout: share of the ids in a batch that are replaced by the unknown id."""
        super().__init__()
        self.dim, self.history_dim, self.id_dropout = dim, history_dim, id_dropout
        self.user_identity = nn.Embedding(users + 1, user_identity_dim)
        self.item_identity = nn.Embedding(items + 1, item_identity_dim)
        nn.init.normal_(self.user_identity.weight, std=0.1)
        nn.init.normal_(self.item_identity.weight, std=0.1)
        self.user_fields = FieldEmbedding(user_blocks, user_numbers, field_dim)
        self.item_fields = FieldEmbedding(item_blocks, item_numbers, field_dim)
        item_width = item_identity_dim + self.item_fields.width
        user_width = user_identity_dim + self.user_fields.width + 2 * history_dim
        self.as_history = nn.Linear(item_width, history_dim)
        self.pooling = RecencyPooling(history_length)
        self.user_tower = perceptron([user_width, hidden, dim], dropout)
        self.item_tower = perceptron([item_width, hidden, dim], dropout)

    def user_vectors(
        self, identity: Tensor, codes: Tensor, numbers: Tensor, history: Tensor, mask: Tensor
    ) -> Tensor:
        parts = [
            identity,
            self.user_fields(codes, numbers),
            self.pooling(history, mask),
        ]
        vectors = self.user_tower(torch.cat(parts, dim=1))  # (B, D)
        return normalize(vectors, dim=-1).unsqueeze(1)

    def item_vectors(self, identity: Tensor, codes: Tensor, numbers: Tensor) -> Tensor:
        return normalize(self.item_tower(self._item(identity, codes, numbers)), dim=-1)

    def history_vectors(self, identity: Tensor, codes: Tensor, numbers: Tensor) -> Tensor:
        vectors: Tensor = self.as_history(self._item(identity, codes, numbers))
        return vectors

    def _item(self, identity: Tensor, codes: Tensor, numbers: Tensor) -> Tensor:
        return torch.cat([identity, self.item_fields(codes, numbers)], dim=1)
