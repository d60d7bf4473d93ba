"""What an index has to find: for real users, the nearest of the items that they have not seen.

A service leaves out what a user has seen, and that is often what lies nearest to them. So an index
is asked as the service asks it, for more than k.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from contract.arrays import F32, I32, I64
from contract.index.base import OVERFETCH, Index, depth
from contract.index.exact import ExactIndex


class Truth(NamedTuple):
    queries: F32
    """(Q, D): vectors of users, which are not distributed like items."""
    seen: Sequence[I64]
    """Q times distinct rows, at most OVERFETCH k: of a user who has seen more, the last ones."""
    rows: I64
    """(Q, k), -1 where fewer are left."""

    @property
    def k(self) -> int:
        return int(self.rows.shape[1])


class Found(NamedTuple):
    recall: float
    """Share of the true rows."""
    seconds: list[float]
    """Of each search."""


def truth(vectors: F32, queries: F32, k: int, seen: Sequence[I32] = ()) -> Truth:
    """By a scan of `vectors` (N, D). `seen`: rows for each query (Q, D), oldest first; () where
    nobody has seen anything."""
    k = min(k, len(vectors))
    lately = [np.unique(rows[-OVERFETCH * k :]).astype(np.int64) for rows in seen]
    lately = lately or [np.empty(0, np.int64)] * len(queries)
    most = min(k + max(map(len, lately), default=0), len(vectors))
    nearest, _ = ExactIndex(vectors).search(queries, most)
    found = [_unseen(*pair, k) for pair in zip(nearest, lately, strict=True)]
    rows = np.stack([np.pad(rows, (0, k - len(rows)), constant_values=-1) for rows in found])
    return Truth(queries, lately, rows)


def measure(index: Index, items: int, wanted: Truth) -> Found:
    """What an index of so many items finds of it, query by query."""
    hits, seconds = 0, []
    for query, seen, true in zip(wanted.queries, wanted.seen, wanted.rows, strict=True):
        count = min(depth(wanted.k, len(seen)), items)
        started = time.perf_counter()
        rows, _ = index.search(query[None], count)
        seconds.append(time.perf_counter() - started)
        hits += len(np.intersect1d(_unseen(rows[0], seen, wanted.k), true[true >= 0]))
    return Found(hits / max(int(np.count_nonzero(wanted.rows >= 0)), 1), seconds)


def _unseen(rows: I64, seen: I64, k: int) -> I64:
    return rows[(rows >= 0) & ~np.isin(rows, seen)][:k]
