"""Training objectives: functions of user vectors and item vectors that return one loss.

An objective names the negatives it needs; the trainer draws them. All scores are inner products.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


class Objective(Protocol):
    def __call__(self, users: Tensor, items: Tensor, rows: Tensor, log_q: Tensor) -> Tensor:
        """users (B, K, D); items (B, D), the positive of each user, which are the negatives of the
        others; rows (B,) the catalogue row of each positive; log_q (B,) the logarithm of the
        probability that a draw of the batch is that item. Returns a scalar."""
        ...


def in_batch_softmax(temperature: float = 0.07, logq: float = 1.0) -> Objective:
    """Softmax over the positives of the batch.

    An item is a negative as often as it is popular; subtracting `logq` times the logarithm of that
    probability undoes it (Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
    Recommendations", RecSys 2019). A negative that is the same item as the positive (an accidental
    hit) is masked. With K interests the one that fits the positive best answers for the user.
    """

    def loss(users: Tensor, items: Tensor, rows: Tensor, log_q: Tensor) -> Tensor:
        scores = best_interest(users, items) @ items.T / temperature - logq * log_q  # (B, B)
        same = rows.unsqueeze(0) == rows.unsqueeze(1)
        same.fill_diagonal_(False)
        target = torch.arange(len(rows), device=rows.device)
        return cross_entropy(scores.masked_fill(same, -1e9), target)

    return loss


def best_interest(users: Tensor, items: Tensor) -> Tensor:
    """users (B, K, D), items (B, D) -> (B, D): of each user's vectors the nearest to the item."""
    if users.shape[1] == 1:
        return users[:, 0]
    best = torch.einsum("bkd,bd->bk", users, items).argmax(1)
    return users[torch.arange(len(users), device=users.device), best]


OBJECTIVES: dict[str, Callable[..., Objective]] = {"in_batch_softmax": in_batch_softmax}
