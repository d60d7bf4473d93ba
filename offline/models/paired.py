"""The item side of models whose items are known by id alone: the identity is an item as it is
searched (D) and, beside it, as it is read (H)."""

from torch import Tensor, nn
from torch.nn.functional import normalize

from offline.layers import Regressor


class PairedItems(nn.Module):
    """A subclass makes the parts, and says how it reads a history."""

    dim: int
    regressor: Regressor

    def item_inputs(self, identity: Tensor, codes: Tensor, numbers: Tensor) -> Tensor:
        known: Tensor = self.regressor(identity, codes, numbers)
        return known

    def item_vectors(self, inputs: Tensor) -> Tensor:
        return normalize(inputs[:, : self.dim], dim=-1)

    def history_vectors(self, inputs: Tensor) -> Tensor:
        return inputs[:, self.dim :]
