"""Dynamic routing: items are clustered into capsules, softly and within a few rounds.

Sabour et al., "Dynamic Routing Between Capsules", NeurIPS 2017.
"""

import torch
from torch import Tensor


def route(votes: Tensor, logits: Tensor, counts: Tensor, rounds: int) -> Tensor:
    """votes (B, K, W, D), what each item says to each of K capsules; logits (B, K, Q, W), to begin
    with, -inf for a capsule that takes no part; counts (B, K, Q, W), how much of each item there is
    for a position -> capsules (B, Q, K, D).

    Each round an item divides itself among the capsules, and leans more to those that then look
    like it. The gradient passes through all rounds: through the last one alone, as in the programs
    of MIND and ComiRec, the loss may rise.
    """
    for _ in range(rounds - 1):
        capsules = squash((logits.softmax(dim=1) * counts) @ votes)  # (B, K, Q, D)
        logits = logits + capsules @ votes.transpose(2, 3)
    return squash((logits.softmax(dim=1) * counts) @ votes).transpose(1, 2)


def squash(vectors: Tensor) -> Tensor:
    """The same directions, with lengths from 0 to 1."""
    square = vectors.square().sum(dim=-1, keepdim=True)
    # Not the root of 0, whose gradient is infinite.
    return vectors * torch.sqrt(square + 1e-9) / (1 + square)
