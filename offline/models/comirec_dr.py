"""ComiRec-DR, several interests by dynamic routing, each with a map of its own.

Cen et al., "Controllable Multi-Interest Framework for Recommendation", KDD 2020. Each capsule sees
the items of the history through a bilinear map of its own, and routing divides them among the
capsules; each capsule is a user vector, and training moves the one nearest to the target.

Differs from the paper:
- to each interest a perceptron adds what comes after such items: a mean of them alone finds what is
  like them;
- a map belongs to a capsule, not to a capsule and a position; instead a learned weight of each
  capsule says how much an item counts that lies so far back;
- the gradient passes through all rounds of the routing, not the last one alone;
- an item's score is that of the interest nearest to it, for the negatives too: as it is searched;
- a sampled softmax with cosine and a temperature (see the recipe);
- the controllable aggregation is not a matter of the model: a request asks for diversity.
"""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from contract.features import Block
from offline.layers import Following, Recency
from offline.models.prefix import PrefixModel
from offline.models.routing import route


class ComirecDr(PrefixModel):
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
        self.interests, self.rounds = interests, rounds
        self.recency = Recency(interests, history_length)
        self.maps = nn.Linear(dim, interests * dim, bias=False)
        self.following = Following(dim, hidden, dropout)

    def pool(self, items: Tensor, visible: Tensor) -> Tensor:
        votes = self.maps(items).unflatten(2, (self.interests, self.dim)).transpose(1, 2)
        # Items lean to no capsule at first: it is the maps that differ.
        logits = votes.new_zeros(()).expand(items.shape[0], self.interests, *visible.shape[1:])
        capsules = route(votes, logits, self.recency.weights(visible), self.rounds)
        return cast(Tensor, self.following(capsules))
