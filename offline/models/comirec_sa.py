"""ComiRec-SA, several interests by self-attention.

Cen et al., "Controllable Multi-Interest Framework for Recommendation", KDD 2020. Each of K heads
weighs the items of the history in its own way; the mean by the weights of a head is a user vector,
and training moves the one nearest to the target.

Differs from the paper:
- to each interest a perceptron adds what comes after such items: a mean of them alone finds what is
  like them;
- how far back an item lies is a learned bias of each head instead of an embedding added to the
  item: it means the same in histories of all lengths;
- an item's score is that of the interest nearest to it, for the negatives too: as it is searched;
- a sampled softmax with cosine and a temperature (see the recipe);
- the controllable aggregation is not a matter of the model: a request asks for diversity.
"""

from collections.abc import Sequence

from torch import Tensor

from contract.features import Block
from offline.layers import Following
from offline.models.prefix import PrefixAttention, PrefixModel


class ComirecSa(PrefixModel):
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
        self.interests = interests
        self.attention = PrefixAttention(dim, hidden, interests, history_length)
        self.following = Following(dim, hidden, dropout)

    def pool(self, items: Tensor, visible: Tensor) -> Tensor:
        weights = self.attention(items, visible)  # (B, K, Q, W)
        vectors: Tensor = self.following(weights @ items.unsqueeze(1))
        return vectors.transpose(1, 2)
