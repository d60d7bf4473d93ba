"""What the sequence models share: items that are searched as they are read, and a user who is what
he read.

An item is its own embedding plus a projection of its content: both towers see the same vector, the
search its direction only. A subclass says how a history is read.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import normalize

from contract.features import Block
from offline.layers import FieldEmbedding, Projection, Regressor


class SequenceModel(nn.Module):
    interests = 1

    def __init__(
        self,
        users: int,
        items: int,
        user_blocks: Sequence[Block],
        item_blocks: Sequence[Block],
        user_numbers: int,
        item_numbers: int,
        dim: int,
        field_dim: int,
        id_dropout: float,
    ) -> None:
        super().__init__()
        self.dim = self.history_dim = dim
        self.id_dropout = id_dropout
        self.user_identity = nn.Embedding(users + 1, 0)
        self.item_identity = nn.Embedding(items + 1, dim)
        nn.init.normal_(self.item_identity.weight, std=dim**-0.5)
        self.profile = Projection(FieldEmbedding(user_blocks, user_numbers, field_dim), dim)
        self.content = Projection(FieldEmbedding(item_blocks, item_numbers, field_dim), dim)
        # Without it, nothing teaches what an unknown item is like.
        self.regressor = (
            None if id_dropout else Regressor(self.item_identity, item_blocks, item_numbers)
        )

    def read(self, history: Tensor, mask: Tensor) -> Tensor:
        """history (B, W, H), zeros where the mask (B, W) is -> (B, W, K, D): the interests as each
        item was the most recent one. A position without any history has some state of its own."""
        raise NotImplementedError

    def read_last(self, history: Tensor, mask: Tensor, last: int) -> Tensor:
        """The last positions of `read`, for less work where a model can."""
        return self.read(history, mask)[:, -last:]

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
        profile = self.profile(codes, numbers)  # (B, D)
        found = self.read_last(history, mask, last or history.shape[1])
        return normalize(found + profile[:, None, None], dim=-1)

    def user_vectors(
        self,
        identity: Tensor,
        codes: Tensor,
        numbers: Tensor,
        history: Tensor,
        mask: Tensor,
        kinds: Tensor,
    ) -> Tensor:
        return self.sequence_vectors(identity, codes, numbers, history, mask, kinds, last=1)[:, 0]

    def item_inputs(self, identity: Tensor, codes: Tensor, numbers: Tensor) -> Tensor:
        if self.regressor is not None:
            identity = self.regressor(identity, codes, numbers)
        vectors: Tensor = identity + self.content(codes, numbers)
        return vectors

    def item_vectors(self, inputs: Tensor) -> Tensor:
        return normalize(inputs, dim=-1)

    def history_vectors(self, inputs: Tensor) -> Tensor:
        return inputs
