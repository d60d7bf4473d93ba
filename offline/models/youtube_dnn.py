"""YouTubeDNN, a network on the user's side and a plain embedding for each item.

Covington et al., "Deep Neural Networks for YouTube Recommendations", RecSys 2016. The mean of the
watched items and a profile go through a network; which item comes next is a classification among
all of them, learned by a sampled softmax; by a full one where the catalogue is small (see the
recipe).

Differs from the paper:
- learned weights of recency beside the mean of the history, which alone forgets what came last;
- several histories, pooled by themselves as the paper's watches and searches are, come out of one
  window of the last events of all kinds, and beside the whole of it;
- no age of the example: the split has no time that a model could extrapolate from;
- cosine and a temperature instead of a free inner product;
- the embedding of an item that training did not see is regressed from its content.
"""

from collections.abc import Sequence

from torch import nn

from contract.features import Block
from offline.layers import FieldEmbedding, Regressor, SeparatePooling, perceptron
from offline.models.paired import PairedItems
from offline.models.two_tower import PooledUser


class YoutubeDnn(PairedItems, PooledUser):
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
        field_dim: int = 16,
        hidden: int = 256,
        layers: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.dim, self.history_dim = dim, history_dim
        self.user_identity = nn.Embedding(users + 1, 0)
        self.item_identity = nn.Embedding(items + 1, dim + history_dim)
        nn.init.normal_(self.item_identity.weight, std=0.03)
        self.regressor = Regressor(self.item_identity, item_blocks, item_numbers)
        self.user_fields = FieldEmbedding(user_blocks, user_numbers, field_dim)
        self.pooling = SeparatePooling(history_length, histories)
        width = self.user_fields.width + self.pooling.means * history_dim
        self.user_tower = perceptron([width, *[hidden] * layers, dim], dropout)
