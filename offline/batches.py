"""Training batches: index arithmetic over the prepared arrays, vectorised."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from contract.arrays import I32, I64
from contract.errors import TrainingError
from offline.data.dataset import Dataset, windows


class Batch(NamedTuple):
    """B samples, one target each. `items` are the distinct catalogue rows that the batch touches;
    `target` and `history` point into them, so the item side is computed once per distinct item."""

    users: Tensor  # (B,) rows
    items: Tensor  # (M,) rows
    target: Tensor  # (B,) positions in `items`
    history: Tensor  # (B, L) positions in `items`
    mask: Tensor  # (B, L) 1.0 for a real item


class Samples:
    """Every training position of every sequence is a sample: its item is the target, the items
    before it are the history."""

    def __init__(self, dataset: Dataset, until: I64) -> None:
        self.dataset = dataset
        self.positions = np.flatnonzero(dataset.before(until))
        if len(self.positions) < 2:
            raise TrainingError(
                f"{len(self.positions)} training samples; users need at least three interactions, "
                "since the last two of each are kept for validation and test"
            )
        lengths = np.diff(dataset.sequences.offsets)
        self.users = np.repeat(np.arange(len(lengths)), lengths)
        self._place = np.zeros(len(dataset.item_ids), np.int64)

    def __len__(self) -> int:
        return len(self.positions)

    def batches(self, size: int, generator: np.random.Generator) -> Iterator[Batch]:
        """One epoch in random order. A last batch of one sample is left out: it has no
        negatives."""
        order = generator.permutation(self.positions)
        for start in range(0, len(order) - 1, size):
            yield self.batch(order[start : start + size])

    def batch(self, positions: I64) -> Batch:
        length = self.dataset.schema.history_length
        users = self.users[positions]
        rows, mask = windows(self.dataset.sequences, users, positions, length)
        target = self.dataset.sequences.items[positions]
        items = self._distinct(target, rows)
        return Batch(
            users=torch.from_numpy(users),
            items=torch.from_numpy(items),
            target=torch.from_numpy(self._place[target]),
            history=torch.from_numpy(self._place[rows]),
            mask=torch.from_numpy(mask.astype(np.float32)),
        )

    def _distinct(self, target: I32, rows: I32) -> I64:
        """Distinct rows by marking them: far cheaper than sorting tens of thousands of numbers."""
        marked = np.zeros(len(self._place), np.bool_)
        marked[target] = True
        marked[rows] = True
        items = np.flatnonzero(marked)
        self._place[items] = np.arange(len(items))
        return items
