"""CDSSM, two towers that read a text in order.

Shen et al., "A Latent Semantic Model with Convolutional-Pooling Structure for Information
Retrieval", CIKM 2014. A window slides over the text, and of each feature the strongest finding
anywhere counts: a word is read with its neighbours.

Differs from the paper:
- the window slides over the n-grams of a text as the encoder gives them, its words and after them
  its letter trigrams, each once; the paper's slides over words, each a bag of its trigrams;
- any field of several values is read so, a `multi` too: its order is that of the table;
- the user side pools a history of items, as DSSM's does; items have an id besides their text.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from contract.features import Block
from offline.layers import FieldEmbedding
from offline.models.two_tower import TwoTower

WINDOW = 3


class _ConvolvedFields(FieldEmbedding):
    def __init__(self, blocks: Sequence[Block], numbers: int, dim: int) -> None:
        super().__init__(blocks, numbers, dim)
        self.windows = nn.ModuleDict(
            {
                str(field): nn.Conv1d(dim, dim, WINDOW, padding=WINDOW // 2)
                for field, block in enumerate(blocks)
                if block.width > 1
            }
        )

    def several(self, field: int, codes: Tensor) -> Tensor:
        real = (codes > 0).unsqueeze(1)  # (n, 1, w)
        embedded = embedding(codes, self.table(field)).transpose(1, 2) * real  # (n, dim, w)
        found = self.windows[str(field)](embedded).masked_fill(~real, -math.inf).amax(2)
        return torch.tanh(found) * real.any(2)


class Cdssm(TwoTower):
    reader = _ConvolvedFields
