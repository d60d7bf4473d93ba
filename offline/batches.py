"""Training batches: index arithmetic over the prepared arrays, vectorised.

A sequence is trained at all of its positions at once: one pass over 200 items gives 200 samples.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from contract.arrays import I64, Bool
from contract.errors import TrainingError
from offline import distribute
from offline.data.dataset import Dataset, windows

POOL = 32
"""Batches sorted by length together: little padding, and still a random order."""


class Chunks(NamedTuple):
    """Pieces of sequences: user (n,), and the positions [start, stop) of the targets."""

    users: I64
    start: I64
    stop: I64


class Batch(NamedTuple):
    """B pieces of sequences, W columns wide, left-padded. The items before column w, and the one in
    it, are the history of target w. Everything is a row of the catalogue."""

    users: Tensor  # (B,)
    history: Tensor  # (B, W)
    mask: Tensor  # (B, W) True for a real item
    kinds: Tensor  # (B, W) which of the histories an item belongs to
    target: Tensor  # (B, W)
    wanted: Tensor  # (B, W) True for a real target


Part = TypeVar("Part")


class Source(Protocol[Part]):
    """What a model is trained on, in epochs."""

    def __len__(self) -> int:
        """Samples of an epoch."""
        ...

    def plan(self, size: int, length: int, generator: np.random.Generator) -> Sequence[Part]:
        """The batches of one epoch in random order, of at most `size` samples and of sequences of
        at most `length`. Of several processes each gets its share."""
        ...

    def batch(self, part: Part) -> Batch: ...


class Samples:
    """Every training position of every sequence is a sample: its item is the target, the items
    before it are the history."""

    def __init__(self, dataset: Dataset, until: I64, context: int = 0) -> None:
        """context: items before a piece that its batch shows with it."""
        self.dataset, self.context = dataset, context
        self.begin, self.until = dataset.sequences.offsets[:-1], until
        self.count = int((until - self.begin).sum())
        if self.count < 2:
            raise TrainingError(
                f"{self.count} training samples; users need at least three interactions, "
                "since the last two of each are kept for validation and test"
            )

    def __len__(self) -> int:
        return self.count

    def plan(self, size: int, length: int, generator: np.random.Generator) -> list[Chunks]:
        """Every sample once; sequences are cut at random places."""
        chunks = self.cut(length, generator)
        sizes = chunks.stop - chunks.start
        order = _by_length(sizes, max(1, size // length), generator)
        groups = [order[group] for group in _groups(sizes[order], size)]
        mixed = distribute.share(generator.permutation(len(groups)))
        return [Chunks(*(part[groups[at]] for part in chunks)) for at in mixed]

    def cut(self, length: int, generator: np.random.Generator) -> Chunks:
        """The first piece of a sequence that is longer than `length` has a random size: over the
        epochs each target is seen with histories of many lengths."""
        sizes = self.until - self.begin
        first = np.where(sizes > length, generator.integers(1, length + 1, len(sizes)), sizes)
        pieces = np.where(sizes > 0, 1 + np.ceil((sizes - first) / length), 0).astype(np.int64)
        users = np.repeat(np.arange(len(sizes)), pieces)
        number = np.arange(len(users)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        end = self.begin[users] + first[users] + number * length
        start = np.where(number == 0, self.begin[users], end - length)
        return Chunks(users, start, np.minimum(end, self.until[users]))

    def batch(self, chunks: Chunks) -> Batch:
        """As wide as the longest piece with its context; columns that a shorter one leaves free
        hold what came before it."""
        width = int((chunks.stop - chunks.start).max()) + self.context
        sequences = self.dataset.sequences
        history = windows(sequences, chunks.users, chunks.stop - 1, width)
        target = windows(sequences, chunks.users, chunks.stop, width).rows
        wanted: Bool = chunks.stop[:, None] + np.arange(-width, 0) >= chunks.start[:, None]
        return Batch(*map(torch.from_numpy, (chunks.users, *history, target, wanted)))


def _by_length(sizes: I64, rows: int, generator: np.random.Generator) -> I64:
    """A random order of the pieces in which those that stand together are of like length."""
    order = generator.permutation(len(sizes))
    pool = np.arange(len(sizes)) // (POOL * rows)
    return order[np.lexsort((sizes[order], pool))]


def _groups(sizes: I64, budget: int) -> list[slice]:
    """Consecutive pieces whose padded area is at most `budget`, and one piece at least."""
    groups, start, width = [], 0, 0
    for at, size in enumerate(sizes.tolist()):
        wider = max(width, size)
        if at > start and wider * (at + 1 - start) > budget:
            groups.append(slice(start, at))
            start, wider = at, size
        width = wider
    return [*groups, slice(start, len(sizes))]
