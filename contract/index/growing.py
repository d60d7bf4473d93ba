"""An inverted file in memory that takes in vectors while it serves: for what is written online.

The lists propose, the caller's own vectors decide. The lists hold the numbers in full: of items
that differ in a year or a price, shorter codes confused more than are scored again, and an item did
not find its twin.
"""

import numpy as np

from contract.arrays import F32, I64, U8, Bool
from contract.index import _faiss, _lists
from contract.index._clusters import Clusters
from contract.index._faiss import faiss
from contract.index.base import Answer, checked_queries
from contract.index.exact import scan_or_walk

# Lists, times the root of the number of vectors. Measured at 200,000 clustered vectors of D = 64:
# with 1 and half the time to train, a search for the same recall reads three times the rows.
LISTS_PER_ROOT = 2
SAMPLE_PER_CLUSTER = 64
# Lists read by a search, counted in lists of average size. Measured at 200,000 vectors of a model
# that was never trained, whose users are far from its items: 54 found .986 of the nearest 50.
PROBES = 72
# Candidates that are scored again, times k: a few were changed and not put again yet.
REFINE = 2


class Growing:
    """Rows are numbered from 0 on. To be used by one thread; it may be made by another."""

    def __init__(self, vectors: F32) -> None:
        """Of `vectors` (n, D), n >= 1, which also train the lists."""
        count, dim = vectors.shape
        vectors = np.ascontiguousarray(vectors)
        lists = max(1, round(LISTS_PER_ROOT * count**0.5))
        self._clusters = Clusters(vectors, min(lists, count), SAMPLE_PER_CLUSTER)
        self._quantizer = _lists.quantizer(self._clusters.centres)
        self._index = faiss.IndexIVFFlat(
            self._quantizer, dim, len(self._clusters.centres), _faiss.METRIC
        )
        self._index.set_direct_map_type(faiss.DirectMap.Array)
        self._made_for = count
        self._put = 0
        self.put(np.arange(count), vectors)

    def __len__(self) -> int:
        count: int = self._index.ntotal
        return count

    @property
    def outgrown(self) -> bool:
        """Whether twice as many vectors were put as the lists were made for."""
        return bool(self._put >= 2 * self._made_for)

    def put(self, rows: I64, vectors: F32) -> None:
        """Vectors (n, D) of distinct ascending rows, new ones among them from `len(self)` on and
        without a gap."""
        vectors = np.ascontiguousarray(vectors)
        lists = self._clusters.assign(vectors)
        border = int(np.searchsorted(rows, len(self)))
        if border:
            self._replace(rows[:border], vectors[:border], lists[:border])
        if border < len(rows):
            _lists.fill(self._index, vectors[border:], lists[border:])
        self._put += len(rows)
        self._probing = _lists.Probing(self._index, PROBES)
        self._searcher = _faiss.Searcher(self._index, self._probing.params)

    def search(self, queries: F32, k: int, allowed: Bool | None, vectors: F32) -> Answer:
        """As `Index.search`. `vectors` (n, D) are those of the rows now: they are what is scored,
        whatever was put."""
        queries = checked_queries(vectors, queries, k, allowed)

        def walk(widen: float, allowed: Bool | None) -> Answer:
            return self._searcher.search_refined(vectors, queries, k, REFINE, widen, allowed)

        return scan_or_walk(vectors, queries, k, allowed, self._probing.effort(k * REFINE), walk)

    def _replace(self, rows: I64, vectors: F32, lists: I64) -> None:
        codes: U8 = np.empty((len(rows), self._index.code_size), np.uint8)
        pointers = map(faiss.swig_ptr, (vectors, lists, codes))
        self._index.encode_vectors(len(rows), *pointers)
        rows = np.ascontiguousarray(rows, np.int64)
        self._index.direct_map.update_codes(
            self._index.invlists, len(rows), *map(faiss.swig_ptr, (rows, lists, codes))
        )
