"""Item2Vec, skip-gram over what users read.

Barkan and Koenigstein, "Item2Vec: Neural Item Embedding for Collaborative Filtering", MLSP 2016.
Items that stand near each other in the histories get vectors by which each tells the other apart
from negatives. A user is the mean of what he read, the recent items first.

Differs from the paper:
- an item is searched by its output vector, since that is what the vectors of a history were trained
  to find; the paper compares input vectors;
- a window over the ordered history, as in word2vec, not a set;
- cosine, a temperature and a softmax over the draws, not a logistic loss of each; the draws are
  what the recipe says, and popular items are not left out at random;
- an epoch draws one neighbour for every item, so the pairs of short histories come more often;
- the vectors of an item that training did not see are regressed from its content.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from contract.arrays import I32, I64
from contract.features import Block
from offline.batches import Source
from offline.layers import Pooling, Regressor
from offline.models.paired import PairedItems
from offline.skipgram import Neighbours, Pairs


class Item2vec(PairedItems):
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
        window: int = 3,
        decay: float = 0.7,
    ) -> None:
        """window: how many items away a neighbour may stand. decay: of an item's weight in a
        history, by each item that came after it."""
        super().__init__()
        if not 0 < decay <= 1:
            raise ValueError(f"decay is {decay}, expected above 0 and at most 1")
        self.dim = self.history_dim = dim
        self.window = window
        self.user_identity = nn.Embedding(users + 1, 0)
        self.item_identity = nn.Embedding(items + 1, 2 * dim)
        nn.init.normal_(self.item_identity.weight, std=0.01)
        self.regressor = Regressor(self.item_identity, item_blocks, item_numbers)
        self.pooling = _DecayPooling(history_length, decay)

    def samples(self, items: I32, begin: I64, until: I64) -> Source[Pairs]:
        return Neighbours(items, begin, until, self.window)

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
        pooled = self.pooling.along(history, mask, last or history.shape[1])
        return normalize(pooled, dim=-1).unsqueeze(2)

    def user_vectors(
        self,
        identity: Tensor,
        codes: Tensor,
        numbers: Tensor,
        history: Tensor,
        mask: Tensor,
        kinds: Tensor,
    ) -> Tensor:
        return normalize(self.pooling(history, mask), dim=-1).unsqueeze(1)

    def history_vectors(self, inputs: Tensor) -> Tensor:
        return normalize(super().history_vectors(inputs), dim=-1)


class _DecayPooling(Pooling):
    def __init__(self, length: int, decay: float) -> None:
        super().__init__(length)
        self.decay = decay

    def steps(self, mask: Tensor) -> Tensor:
        back = torch.arange(self.length - 1, -1, -1, device=mask.device)
        return (self.decay**back).unsqueeze(0)
