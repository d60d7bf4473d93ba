"""What the FAISS backends share: a file mapped and checked, a filter inside the search, and one
order of the answers.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np

from contract.arrays import F32, I64, Bool
from contract.errors import BundleError
from contract.index.base import Answer, require_match

# The stubs that FAISS ships know neither the parameters of a search nor numpy arrays as bitmaps.
faiss: Any = _faiss

METRIC = faiss.METRIC_INNER_PRODUCT

KEPT_PARAMS = 32
"""Values of k that an index keeps the parameters of."""


def write(index: Any, path: Path) -> None:
    faiss.write_index(index, str(path))


def read(path: Path, vectors: F32, kind: type[Any]) -> Any:
    """The index in `path`, mapped. Raises BundleError where it is damaged, of another `kind`, or
    not of a matrix of this shape.
    """
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except (RuntimeError, MemoryError) as exc:  # a damaged length asks for absurd memory
        raise BundleError(
            f"{path}: not a readable FAISS index ({_cause(exc)}); publish the bundle again"
        ) from exc
    if (type(index), index.metric_type) != (kind, METRIC):
        raise BundleError(
            f"{path}: {type(index).__name__} of metric {index.metric_type}, expected "
            f"{kind.__name__} of metric {METRIC}; publish the bundle again"
        )
    require_match(path, "dimensions", index.d, vectors.shape[1])
    require_match(path, "rows", index.ntotal, len(vectors))
    return index


class Searcher:
    """A FAISS index that is asked with the parameters of each call, not its own: those of other
    threads do not meet.
    """

    def __init__(self, index: Any, params: Callable[[int, float], Any]) -> None:
        """`params(k, widen)` makes the parameters for k answers; `widen` is that of
        `scan_or_walk`."""
        self._index = index
        self._params = params
        # Without a filter they are only read, and to make them takes longer than to pass them.
        self._plain = lru_cache(maxsize=KEPT_PARAMS)(lambda k: params(k, 1.0))

    def search(self, queries: F32, k: int, widen: float, allowed: Bool | None) -> Answer:
        """As a walk of `scan_or_walk`."""
        scores, rows = self._ask(queries, k, widen, allowed)
        return rows, scores

    def search_refined(
        self, vectors: F32, queries: F32, k: int, refine: int, widen: float, allowed: Bool | None
    ) -> Answer:
        """The answers of an index of lossy codes: `refine` times k of them, scored again with the
        bundle's own vectors (N, D), contiguous.
        """
        count = min(k * refine, len(vectors))
        _, candidates = self._ask(queries, count, widen, allowed)
        rows = np.empty((len(queries), k), np.int64)
        scores = np.empty((len(queries), k), np.float32)
        faiss.knn_inner_products_by_idx(
            *map(faiss.swig_ptr, (queries, vectors, candidates)),
            queries.shape[1],
            len(queries),
            len(vectors),
            count,
            k,
            *map(faiss.swig_ptr, (scores, rows)),
            count,  # from one query's candidates to the next one's
        )
        return rows, scores

    def _ask(self, queries: F32, k: int, widen: float, allowed: Bool | None) -> tuple[F32, I64]:
        if allowed is None:
            params = self._plain(k)
        else:
            params = self._params(k, widen)
            # FAISS keeps bare pointers: both must live until the search has returned.
            bits = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(bits)
            params.sel = selector
        scores, rows = self._index.search(queries, k, params=params)
        return scores, rows


def _cause(exc: Exception) -> str:
    """The cause, without the C++ signature that FAISS puts before it."""
    return str(exc).strip().rpartition("Error: ")[2].replace("\n", " ")
