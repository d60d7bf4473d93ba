"""Pairs of items that stand near each other: what a skip-gram model is trained on.

An epoch draws one neighbour for every item, so an epoch is as long for all windows. In a list of
all pairs an item would count as often as it has neighbours: here those of short histories, and at
their ends, count as much as others.
"""

from typing import NamedTuple

import numpy as np
import torch

from contract.arrays import I32, I64
from contract.errors import TrainingError
from offline import distribute
from offline.batches import Batch


class Pairs(NamedTuple):
    """Rows of the catalogue: an item (n,), and one near it (n,)."""

    center: I32
    near: I32

    def batches(self, size: int, generator: np.random.Generator) -> "list[Pairs]":
        """In random order, at most `size` in each; of several processes each gets its share."""
        order = generator.permutation(len(self.center))
        pairs = Pairs(self.center[order], self.near[order])
        starts = distribute.share(np.arange(0, len(order), size))
        return [Pairs(*(part[start : start + size] for part in pairs)) for start in starts]

    def batch(self) -> Batch:
        """A pair is a history of one item, and what comes next; whose it is does not count."""
        center, near = (torch.from_numpy(rows).unsqueeze(1) for rows in self)
        real = torch.ones_like(center, dtype=torch.bool)
        users = torch.zeros(len(center), dtype=torch.int64)
        return Batch(users, center, real, torch.zeros_like(center), near, real)


def positions(begin: I64, until: I64) -> I64:
    """All places of the ranges begin[s] .. until[s] (exclusive), one after the other."""
    sizes = until - begin
    at: I64 = np.arange(sizes.sum()) + np.repeat(begin - (np.cumsum(sizes) - sizes), sizes)
    return at


def draw_pairs(
    items: I32, begin: I64, until: I64, window: int, generator: np.random.Generator
) -> Pairs:
    """For each item of the sequences items[begin[s] : until[s]] that has neighbours, at most
    `window` places away, one of these, each as likely as the others."""
    at, sizes = positions(begin, until), until - begin
    first, last = np.repeat(begin, sizes), np.repeat(until, sizes) - 1
    low, high = np.maximum(at - window, first), np.minimum(at + window, last)
    near = low + (generator.random(len(at)) * (high - low)).astype(np.int64)
    near += near >= at
    some = high > low
    return Pairs(items[at[some]], items[near[some]])


class Neighbours:
    """Pairs out of the sequences items[begin[s] : until[s]]."""

    def __init__(self, items: I32, begin: I64, until: I64, window: int) -> None:
        self.items, self.begin, self.until, self.window = items, begin, until, window
        sizes = until - begin
        self.count = int(sizes[sizes > 1].sum())
        if not self.count:
            raise TrainingError("no two items in one sequence; give interactions of the same user")

    def __len__(self) -> int:
        return self.count

    def plan(self, size: int, length: int, generator: np.random.Generator) -> list[Pairs]:
        pairs = draw_pairs(self.items, self.begin, self.until, self.window, generator)
        return pairs.batches(size, generator)

    def batch(self, part: Pairs) -> Batch:
        return part.batch()
