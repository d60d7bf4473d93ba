"""What the two-tower models share: a user is a profile and a pooled history, an item its id and its
content, and a network on each side maps them to one space, where their cosine is the score."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from contract.features import Block
from offline.layers import FieldEmbedding, SeparatePooling, perceptron


class PooledUser(nn.Module):
    """The user side, out of the three parts that a subclass makes."""

    interests = 1
    user_fields: FieldEmbedding
    pooling: SeparatePooling
    user_tower: nn.Sequential

    def sequence_vectors(
        self,
        identity: Tensor,
        codes: Tensor,
        numbers: Tensor,
        history: Tensor,
        mask: Tensor,
        kinds: Tensor,
        *,
        last: int | None = None,
    ) -> Tensor:
        profile = torch.cat([identity, self.user_fields(codes, numbers)], dim=1)
        pooled = self.pooling.along(history, mask, kinds, last or history.shape[1])
        profile = profile.unsqueeze(1).expand(-1, pooled.shape[1], -1)
        vectors = self.user_tower(torch.cat([profile, pooled], dim=2))  # (B, W, D)
        return normalize(vectors, dim=-1).unsqueeze(2)

    def user_vectors(
        self,
        identity: Tensor,
        codes: Tensor,
        numbers: Tensor,
        history: Tensor,
        mask: Tensor,
        kinds: Tensor,
    ) -> Tensor:
        pooled = self.pooling(history, mask, kinds)
        parts = [identity, self.user_fields(codes, numbers), pooled]
        vectors = self.user_tower(torch.cat(parts, dim=1))  # (B, D)
        return normalize(vectors, dim=-1).unsqueeze(1)


class TwoTower(PooledUser):
    """A subclass may read fields in another way, or have deeper towers."""

    reader: type[FieldEmbedding] = FieldEmbedding
    depth = 1
    """Hidden layers of a tower."""

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
        histories: int,
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
        for identity in (self.user_identity, self.item_identity):
            nn.init.normal_(identity.weight, std=0.1)
            if not id_dropout:  # training never meets the unknown id
                nn.init.zeros_(identity.weight[0])
        self.user_fields = self.reader(user_blocks, user_numbers, field_dim)
        self.item_fields = self.reader(item_blocks, item_numbers, field_dim)
        item_width = item_identity_dim + self.item_fields.width
        self.as_history = nn.Linear(item_width, history_dim)
        self.pooling = SeparatePooling(history_length, histories)
        user_width = user_identity_dim + self.user_fields.width + self.pooling.means * history_dim
        middle = [hidden] * self.depth
        self.user_tower = perceptron([user_width, *middle, dim], dropout)
        self.item_tower = perceptron([item_width, *middle, dim], dropout)

    def item_inputs(self, identity: Tensor, codes: Tensor, numbers: Tensor) -> Tensor:
        return torch.cat([identity, self.item_fields(codes, numbers)], dim=1)

    def item_vectors(self, inputs: Tensor) -> Tensor:
        return normalize(self.item_tower(inputs), dim=-1)

    def history_vectors(self, inputs: Tensor) -> Tensor:
        vectors: Tensor = self.as_history(inputs)
        return vectors
