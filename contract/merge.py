"""Several candidate lists into one: the K interests of a user, the bundle and its overlay."""

import numpy as np

from contract.arrays import F32, I64


def merge(rows: I64, scores: F32, k: int) -> tuple[I64, F32]:
    """The best k distinct rows of flat candidate lists, `rows` (L,) and `scores` (L,).

    A row keeps its best score; scores descend, ties by ascending row; padding (row -1) is dropped,
    so the answer has at most k entries and no padding.
    """
    real = rows >= 0
    rows, scores = rows[real], scores[real]
    order = np.lexsort((rows, -scores))
    _, first = np.unique(rows[order], return_index=True)
    best = order[np.sort(first)[:k]]
    return rows[best], scores[best]
