"""MIND, several interests by dynamic routing.

Li et al., "Multi-Interest Network with Dynamic Routing for Recommendation at Tmall", CIKM 2019. The
items of the history are clustered into capsules, as many as the history is long enough for, and
each becomes a user vector of its own. Training moves the one that is nearest to an item.

Differs from the paper:
- routing begins with products of the items and fixed random directions instead of random numbers
  drawn for each user: the same history always gives the same interests;
- its layers after the capsules, here one hidden one, add to an interest and do not replace it;
- instead of attention by the target, an item's score is that of the interest nearest to it, for the
  negatives too: as it is searched;
- how far back an item lies counts, by a learned weight; to the paper's capsules it does not;
- the gradient passes through all rounds of the routing, not the last one alone;
- the profile is added to the interests, not put through their layers;
- an interest that a short history has not is a copy of the first one.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from contract.features import Block
from offline.layers import Following, Recency
from offline.models.prefix import PrefixModel
from offline.models.routing import route


class Mind(PrefixModel):
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
        interests: int = 4,
        rounds: int = 3,
        hidden: int = 256,
        field_dim: int = 16,
        dropout: float = 0.2,
        id_dropout: float = 0.1,
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
        self.interests, self.rounds = interests, rounds
        self.recency = Recency(interests, history_length)
        self.bilinear = nn.Linear(dim, dim, bias=False)
        self.register_buffer("directions", torch.randn(interests, dim))
        self.register_buffer("needed", _needed(interests), persistent=False)
        self.following = Following(dim, hidden, dropout)

    def pool(self, items: Tensor, visible: Tensor) -> Tensor:
        active = visible.sum(dim=2, keepdim=True) >= cast(Tensor, self.needed)  # (B, Q, K)
        logits = cast(Tensor, self.directions) @ items.transpose(1, 2)  # (B, K, W)
        off = ~active.transpose(1, 2).unsqueeze(3)  # (B, K, Q, 1)
        logits = logits.unsqueeze(2).masked_fill(off, float("-inf"))
        votes = self.bilinear(items).unsqueeze(1).expand(-1, self.interests, -1, -1)
        capsules = route(votes, logits, self.recency.weights(visible), self.rounds)
        capsules = torch.where(active.unsqueeze(3), capsules, capsules[:, :, :1])
        return cast(Tensor, self.following(capsules))


def _needed(interests: int) -> Tensor:
    """(K,): the fewest items that have each interest; n items have the first log2(n), and one."""
    return torch.tensor([1.0, *(2.0**capsule for capsule in range(2, interests + 1))])
