"""What the models share that read a history as a set: each position is a pool of the last L items
before it, itself among them.

Training pools at all positions, a request at the last one alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from contract.features import Block
from offline.layers import Recency, steps_back
from offline.models.sequence import SequenceModel


class PrefixModel(SequenceModel):
    def __init__(
        self,
        users: int,
        items: int,
        user_blocks: Sequence[Block],
        item_blocks: Sequence[Block],
        user_numbers: int,
        item_numbers: int,
        history_length: int,
        dim: int,
        field_dim: int,
        dropout: float,
        id_dropout: float,
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
        self.history_length = history_length
        self.nothing = nn.Parameter(dim**-0.5 * torch.randn(dim))
        self.dropout = nn.Dropout(dropout)

    def pool(self, items: Tensor, visible: Tensor) -> Tensor:
        """items (B, W, D), visible (B, Q, W) bool, what each of the last Q positions reads, which
        is one item at least -> (B, Q, K, D)."""
        raise NotImplementedError

    def read(self, history: Tensor, mask: Tensor) -> Tensor:
        return self.read_last(history, mask, history.shape[1])

    def read_last(self, history: Tensor, mask: Tensor, last: int) -> Tensor:
        visible = window(mask, self.history_length)[:, -last:]
        return self.pool(self._filled(history, mask), visible)

    def _filled(self, history: Tensor, mask: Tensor) -> Tensor:
        """A position without history reads one item that stands for nothing."""
        items: Tensor = self.dropout(history)
        return items + (1 - mask).unsqueeze(2) * self.nothing


class PrefixAttention(nn.Module):
    """Self-attentive pooling (Lin et al., "A Structured Self-attentive Sentence Embedding", ICLR
    2017) by several heads: a perceptron scores each item, and recency is added."""

    def __init__(self, dim: int, hidden: int, heads: int, length: int) -> None:
        super().__init__()
        self.wide = nn.Linear(dim, hidden)
        self.narrow = nn.Linear(hidden, heads, bias=False)
        self.recency = Recency(heads, length)

    def forward(self, items: Tensor, visible: Tensor) -> Tensor:
        """items (B, W, D), visible (B, Q, W) -> weights (B, heads, Q, W) that sum to 1."""
        scores = self.narrow(torch.tanh(self.wide(items))).transpose(1, 2)  # (B, heads, W)
        scores = scores.unsqueeze(2) + self.recency(visible)
        unseen = ~visible.unsqueeze(1)
        weights: Tensor = scores.masked_fill(unseen, float("-inf")).softmax(dim=3)
        return weights


def window(mask: Tensor, length: int) -> Tensor:
    """mask (B, W) of real items -> (B, W, W), True where a position looks: at itself, and at real
    items among the `length` that end with it."""
    back = steps_back(mask.unsqueeze(1).expand(-1, mask.shape[1], -1))
    return ((mask > 0).unsqueeze(1) & (back >= 0) & (back < length)) | (back == 0)
