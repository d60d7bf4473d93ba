"""What the backends with inverted lists share: where an item goes, and which lists are read."""

import math
from typing import Any

import numpy as np

from contract.arrays import F32, I64
from contract.errors import RecipeError
from contract.index._faiss import faiss

MAX_LISTS = 65_536
# Fewer, and a list is more noise than cluster.
ROWS_PER_LIST = 32
# Half as many find 2 to 4 % less, twice as many 1 % more.
SAMPLE_PER_LIST = 128

# Squared lengths that differ by no more, as a share, are those of normalised vectors.
SAME_LENGTH = 1e-4

# How much shorter than the average the lists that are read may be. Where lengths of vectors differ,
# four found 82 % where one found 52 %, with lengths spread by a factor of 1.5; eight found no more.
# Where they do not, a half more find as much as four (of a million rows, .9989 and .9990; one list
# .9864), and to rank four times as many centres takes as long again.
SHORTEST_LISTS, SHORTEST_LEVEL_LISTS = 4.0, 1.5

# Measured at D = 64, 300,000 rows, 2,191 lists, one thread: a search of 4, 16 or 64 probes, widened
# for a filter, takes as long as a scan where 2, 4 or 6 % are allowed: it passes over the others.
LISTED_ROWS_PER_ROW = 10


def list_count(wanted: int, items: int) -> int:
    """How many lists: as many as `wanted`, or for 0 what suits the number of items."""
    if wanted > items:
        raise RecipeError(f"lists is {wanted}, expected at most one an item, {items}; 0 chooses")
    by_size = min(round(4 * items**0.5), items // ROWS_PER_LIST, MAX_LISTS)
    return wanted or max(1, by_size)


class Clusters:
    """The centres of inverted lists, and which list a vector goes to; trained on a sample that is
    drawn with a fixed seed.

    Where lengths differ, one more coordinate makes all vectors equally long, and the nearest one
    that with the largest inner product. A query has a zero there, so the centres are kept without
    it. Clusters of directions found half of what these find.
    """

    def __init__(self, vectors: F32, lists: int, sample: int = SAMPLE_PER_LIST) -> None:
        """`vectors` (N, D), of which at most `sample` for each list are looked at."""
        squares = _squares(vectors)
        self._longest = float(squares.max())
        self._levelled = not _alike(squares)
        self._means = faiss.Kmeans(
            vectors.shape[1] + self._levelled,
            lists,
            niter=10,
            spherical=True,
            max_points_per_centroid=sample,
            min_points_per_centroid=1,  # a small catalogue is no reason for a warning
        )
        self._means.train(self._level(vectors))
        self.centres: F32 = np.ascontiguousarray(self._means.centroids[:, : vectors.shape[1]])
        """(lists, D)"""

    def assign(self, vectors: F32) -> I64:
        """The list of each vector (n, D)."""
        _, nearest = self._means.index.search(self._level(vectors), 1)
        lists: I64 = nearest.ravel()
        return lists

    def _level(self, vectors: F32) -> F32:
        if not self._levelled:
            return vectors
        lacking = np.maximum(self._longest - _squares(vectors), 0, dtype=np.float32)
        return np.column_stack([vectors, np.sqrt(lacking)])


def _squares(vectors: F32) -> F32:
    squares: F32 = np.einsum("nd,nd->n", vectors, vectors)
    return squares


def _alike(squares: F32) -> bool:
    return float(np.ptp(squares)) <= SAME_LENGTH * float(squares.max())


def quantizer(centres: F32) -> Any:
    flat = faiss.IndexFlatIP(centres.shape[1])
    flat.add(centres)
    return flat


def fill(index: Any, vectors: F32, lists: I64) -> None:
    """Add each row to its list; the centres and the codes, if there are any, are trained."""
    index.is_trained = True
    index.add_core(len(vectors), faiss.swig_ptr(vectors), None, faiss.swig_ptr(lists))


class Probing:
    """One operating point of an inverted file. The rows read are bounded, not only the lists: where
    lengths differ, lists of long vectors are the first to be read, and short.
    """

    def __init__(self, index: Any, probes: int) -> None:
        self._lists: int = index.nlist
        self._total: int = index.ntotal
        self._rows_per_list: float = self._total / self._lists
        self._probed: float = probes * self._rows_per_list
        # Without the coordinate that makes all vectors equally long, the centres tell.
        centres = index.quantizer.reconstruct_n(0, self._lists)
        self._shortest = SHORTEST_LEVEL_LISTS if _alike(_squares(centres)) else SHORTEST_LISTS

    def params(self, k: int, widen: float) -> Any:
        rows = self._rows(k)
        # Where hardly more rows are read than are wanted, short lists would leave an answer short,
        # and all rows would be scanned: 1.7 ms for 800 of a million, where more lists take .3.
        shortest = self._shortest if 2 * k < self._probed else SHORTEST_LISTS
        lists = shortest * widen * rows / self._rows_per_list
        # FAISS counts only the rows that a filter allows, so these are as many as without one.
        return faiss.SearchParametersIVF(
            nprobe=min(math.ceil(lists), self._lists), max_codes=math.ceil(rows)
        )

    def effort(self, k: int) -> int:
        """What `scan_or_walk` wants to know of a search for k candidates."""
        return round((self._lists + self._rows(k)) / LISTED_ROWS_PER_ROW)

    def _rows(self, k: int) -> float:
        return min(max(self._probed, k), self._total)
