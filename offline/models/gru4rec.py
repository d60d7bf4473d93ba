"""GRU4Rec, a recurrent network over the history.

Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016; Hidasi and
Karatzoglou, "Recurrent Neural Networks with Top-k Gains for Session-based Recommendations",
CIKM 2018. A state is carried from item to item, and gates learn what of it is kept; the state after
the last item is the user.

Differs from the papers:
- items are embedded, and the same embedding is read and searched (the second paper's constrained
  embedding);
- whole histories in a batch instead of parallel sessions whose state outlives it;
- a softmax over the catalogue with cosine and a temperature instead of TOP1 or BPR-max over
  sampled items (see the recipe);
- the padding of a short history is no step at all, by a network without biases of its own.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from contract.features import Block
from offline.models.recurrence import Recurrence
from offline.models.sequence import SequenceModel


class Gru4Rec(SequenceModel):
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
        hidden: int = 128,
        layers: int = 1,
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
        self.recurrence = Recurrence(dim, hidden, layers)
        self.out = nn.Linear(hidden, dim)

    def read(self, history: Tensor, mask: Tensor) -> Tensor:
        states = self.recurrence(self.dropout(history), mask)
        vectors: Tensor = self.out(self.dropout(states))  # (B, W, D)
        return vectors.unsqueeze(2)
