"""FAISS HNSW: a navigable graph over the item vectors, memory-mapped."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np

from contract.arrays import F32, Bool
from contract.errors import BundleError
from contract.index.base import (
    Answer,
    Backend,
    Index,
    checked_queries,
    require_match,
    require_positive,
)
from contract.index.exact import scan_or_walk

# The stubs that FAISS ships know neither SearchParametersHNSW nor numpy arrays as bitmaps.
faiss: Any = _faiss

# Measured at D = 64: one step of efSearch takes 1.4 us (some twenty distances at random
# places), one scanned row 0.05 us.
ROWS_PER_STEP = 25


class FaissHnswBackend(Backend):
    filename = "index.faiss"

    @dataclass(frozen=True)
    class Build:
        m: int = 32
        """Edges of a node; the lowest layer has twice as many."""
        ef_construction: int = 200
        """Candidates kept while a node is placed: slower to build, better edges."""

        def __post_init__(self) -> None:
            require_positive(m=self.m, ef_construction=self.ef_construction)

    @dataclass(frozen=True)
    class Search:
        ef_search: int = 128
        """Candidates kept during a search, raised to k where k is larger."""

        def __post_init__(self) -> None:
            require_positive(ef_search=self.ef_search)

    @staticmethod
    def build(vectors: F32, path: Path, params: Build) -> None:
        index = faiss.IndexHNSWFlat(vectors.shape[1], params.m, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = params.ef_construction
        index.add(np.ascontiguousarray(vectors, dtype=np.float32))
        faiss.write_index(index, str(path))

    @staticmethod
    def open(path: Path, vectors: F32, build: Build, search: Search) -> Index:
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except (RuntimeError, MemoryError) as exc:  # a damaged length asks for absurd memory
            raise BundleError(
                f"{path}: not a readable FAISS index ({_cause(exc)}); publish the bundle again"
            ) from exc
        found = (type(index), index.metric_type)
        expected = (faiss.IndexHNSWFlat, faiss.METRIC_INNER_PRODUCT)
        if found != expected:
            raise BundleError(
                f"{path}: {found[0].__name__} of metric {found[1]}, expected "
                f"{expected[0].__name__} of metric {expected[1]}; publish the bundle again"
            )
        require_match(path, "dimensions", index.d, vectors.shape[1])
        require_match(path, "rows", index.ntotal, len(vectors))
        return FaissHnswIndex(index, vectors, search)


class FaissHnswIndex:
    def __init__(self, index: Any, vectors: F32, params: FaissHnswBackend.Search) -> None:
        self._index = index
        self._vectors = vectors
        self._params = params

    def search(self, queries: F32, k: int, allowed: Bool | None = None) -> Answer:
        queries = checked_queries(self._vectors, queries, k, allowed)
        ef = max(self._params.ef_search, k)

        def walk(widen: float, allowed: Bool | None) -> Answer:
            return self._walk(queries, k, round(ef * widen), allowed)

        return scan_or_walk(self._vectors, queries, k, allowed, ef * ROWS_PER_STEP, walk)

    def _walk(self, queries: F32, k: int, ef: int, allowed: Bool | None) -> Answer:
        # Parameters of the call, not of the index: searches of other threads do not see them.
        params = faiss.SearchParametersHNSW(efSearch=ef)
        if allowed is not None:
            # FAISS keeps bare pointers: both must live until the search has returned.
            bits = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(bits)
            params.sel = selector
        scores, rows = self._index.search(queries, k, params=params)
        order = np.lexsort((rows, -scores), axis=-1)
        return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _cause(exc: Exception) -> str:
    """The cause, without the C++ signature that FAISS puts before it."""
    return str(exc).strip().rpartition("Error: ")[2].replace("\n", " ")
