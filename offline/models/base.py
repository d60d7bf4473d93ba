"""What every retrieval model promises. Tensors and flat parameters in, never a config object.

Identity is an entity's own learned embedding. A model keeps the identity tables apart from its
towers, because a bundle stores them as matrices and the service gathers from them: row 0 is the
out-of-vocabulary embedding, row r + 1 belongs to row r of the catalogue.
"""

from typing import Protocol

from torch import Tensor, nn


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

    def user_vectors(
        self, identity: Tensor, codes: Tensor, numbers: Tensor, history: Tensor, mask: Tensor
    ) -> Tensor:
        """identity (B, E), codes (B, C) int, numbers (B, F), history (B, L, H) with the most recent
        item last, mask (B, L) of 1.0 for a real item -> (B, K, D)."""
        ...

    def item_vectors(self, identity: Tensor, codes: Tensor, numbers: Tensor) -> Tensor:
        """identity (N, E), codes (N, C) int, numbers (N, F) -> (N, D), what is searched."""
        ...

    def history_vectors(self, identity: Tensor, codes: Tensor, numbers: Tensor) -> Tensor:
        """The same inputs -> (N, H), an item as the user tower sees it in a history."""
        ...
