"""Node2Vec, skip-gram over random walks on the graph of items.

Grover and Leskovec, "node2vec: Scalable Feature Learning for Networks", KDD 2016. Walks bring
together items that no user has both read; p and q say how readily a walk turns back and how readily
it moves on.

Differs from the paper:
- the nodes are items, and what one user read in succession is an edge. With the users as nodes no
  two neighbours have an edge between them, so p and q would be one parameter, and the order of a
  history would be lost, which is most of what there is to learn;
- a user is what he read last (see Item2Vec, also for what else differs);
- every epoch has new walks, and their steps are drawn by rejection, not from tables of all pairs.
"""

from collections.abc import Sequence

from contract.arrays import I32, I64
from contract.features import Block
from offline.batches import Source
from offline.models.item2vec import Item2vec
from offline.skipgram import Pairs
from offline.walks import Bias, Walks


class Node2vec(Item2vec):
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
        window: int = 2,
        decay: float = 0.7,
        walks: int = 10,
        walk_length: int = 20,
        p: float = 1.0,
        q: float = 1.0,
    ) -> None:
        """walks: from each item in an epoch. walk_length: in items."""
        super().__init__(
            users=users,
            items=items,
            user_blocks=user_blocks,
            item_blocks=item_blocks,
            user_numbers=user_numbers,
            item_numbers=item_numbers,
            history_length=history_length,
            dim=dim,
            window=window,
            decay=decay,
        )
        if walk_length < 2 or min(p, q) <= 0:
            raise ValueError(
                f"walk_length is {walk_length}, p {p} and q {q}, expected at least two items, and "
                "p and q above 0"
            )
        self.walks, self.walk_length, self.bias = walks, walk_length, Bias(p, q)

    def samples(self, items: I32, begin: I64, until: I64) -> Source[Pairs]:
        return Walks(
            items,
            begin,
            until,
            window=self.window,
            passes=self.walks,
            length=self.walk_length,
            bias=self.bias,
        )
