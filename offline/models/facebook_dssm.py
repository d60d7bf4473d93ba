"""FacebookDSSM, the two towers of embedding-based retrieval.

Huang et al., "Embedding-based Retrieval in Facebook Search", KDD 2020. Where a field has several
values, learned weights say how much each counts. Training asks that the item lead the negatives by
a margin, of which the hard ones, scored highest, teach most.

Differs from the paper:
- a profile and a history of items stand for the searcher and his query;
- the hard negatives are those of a step's uniform draws that a user scores highest (see the
  recipe), not what a search of the last model found; one model, not several weighted ones.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from contract.features import Block
from offline.layers import FieldEmbedding, bag
from offline.models.two_tower import TwoTower


class _WeightedFields(FieldEmbedding):
    def __init__(self, blocks: Sequence[Block], numbers: int, dim: int) -> None:
        super().__init__(blocks, numbers, dim)
        self.weights = nn.ParameterDict(
            {
                str(field): torch.zeros(block.size, 1)
                for field, block in enumerate(blocks)
                if block.width > 1
            }
        )

    def several(self, field: int, codes: Tensor) -> Tensor:
        weights = cast(Tensor, self.weights[str(field)]).exp()
        table = torch.cat([weights * self.table(field), weights], dim=1)
        total = bag(codes, table)  # (n, dim + 1)
        return total[:, :-1] / total[:, -1:].clamp(min=1e-6)


class FacebookDssm(TwoTower):
    reader = _WeightedFields
