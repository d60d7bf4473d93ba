"""What every retrieval model promises. Tensors and flat parameters in, never a config object.

Identity is an entity's own learned embedding. A model keeps the identity tables apart from its
towers, because a bundle stores them as matrices and the service gathers from them: row 0 is the
out-of-vocabulary embedding, row r + 1 belongs to row r of the catalogue.
"""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from contract.arrays import I32, I64
from offline.batches import Source


class Retriever(Protocol):
    user_identity: nn.Embedding
    """(U + 1, identity dimension); a dimension of 0 where the model has none."""

    item_identity: nn.Embedding

    dim: int
    """D, the dimension of user and item vectors."""

    interests: int
    """K, the user vectors per user."""

    history_dim: int
    """H, the dimension of history vectors."""

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
        """What training sees: identity (B, E), codes (B, C) int, numbers (B, F), history (B, W, H)
        oldest first, mask (B, W) of 1.0 for a real item; where it is 0.0 the history is zeros,
        kinds (B, W) int of which history each item belongs to, for a model that reads several ->
        (B, W, K, D), at each position the user vectors as they were when its item was the most
        recent one. The last position is what `user_vectors` gives. With `last` only so many
        positions from the end, (B, last, K, D); the others are read, and nothing is worked out for
        them that can be spared.

        Raises RecipeError where W is more than the model can read.
        """
        ...

    def user_vectors(
        self,
        identity: Tensor,
        codes: Tensor,
        numbers: Tensor,
        history: Tensor,
        mask: Tensor,
        kinds: Tensor,
    ) -> Tensor:
        """As `sequence_vectors` is given, history (B, L, H) with the most recent item last ->
        (B, K, D)."""
        ...

    def item_inputs(self, identity: Tensor, codes: Tensor, numbers: Tensor) -> Tensor:
        """identity (N, E), codes (N, C) int, numbers (N, F) -> (N, I), what both vectors of an item
        are made of."""
        ...

    def item_vectors(self, inputs: Tensor) -> Tensor:
        """inputs (N, I) -> (N, D), what is searched."""
        ...

    def history_vectors(self, inputs: Tensor) -> Tensor:
        """inputs (N, I) -> (N, H), the items as the user tower sees them in a history."""
        ...


@runtime_checkable
class Sampled(Protocol):
    """A model that is not trained on what comes next in each sequence."""

    def samples(self, items: I32, begin: I64, until: I64) -> Source[Any]:
        """Sequence s is items[begin[s] : until[s]], rows of the catalogue."""
        ...
