"""Several ranked lists into one."""

from collections.abc import Sequence

import numpy as np

from contract.arrays import F32, I64

RANK_CONSTANT = 60


def fuse(lists: Sequence[I64], weights: Sequence[float], before: int = 0) -> tuple[I64, F32]:
    """Ranked lists of distinct rows, the best first -> all rows, the best first, and their scores.

    The score of a row is the sum of weight / (60 + rank) over the lists that hold it, ranks from 1
    after so many `before` each list; of equal scores the lower row leads (reciprocal rank fusion:
    Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion Outperforms Condorcet and Individual Rank
    Learning Methods", SIGIR 2009; the weights are an addition).
    """
    parts = [
        weight / (RANK_CONSTANT + before + np.arange(1, len(rows) + 1))
        for rows, weight in zip(lists, weights, strict=True)
    ]
    rows, place = np.unique(np.concatenate(lists), return_inverse=True)
    scores = np.bincount(place, np.concatenate(parts), len(rows))
    order = np.argsort(-scores, kind="stable")
    return rows[order], scores[order].astype(np.float32)
