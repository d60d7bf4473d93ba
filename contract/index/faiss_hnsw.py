"""FAISS HNSW: a navigable graph over the item vectors, memory-mapped.

With `sq8` the graph holds one byte a dimension in place of four; its best answers are scored again
with the item vectors, so that scores are exact all the same.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from contract.arrays import F32, Bool
from contract.index import _faiss
from contract.index._faiss import faiss
from contract.index.base import Answer, Backend, Effort, Index, checked_queries, require_at_least
from contract.index.exact import scan_or_walk

# Measured at D = 64: one step of efSearch takes 1.4 us (some twenty distances at random
# places), one scanned row 0.05 us.
ROWS_PER_STEP = 25

GRAPHS = {"float": faiss.IndexHNSWFlat, "sq8": faiss.IndexHNSWSQ}


class FaissHnswBackend(Backend):
    filename = "index.faiss"
    effort = Effort("ef_search", "candidates")

    @dataclass(frozen=True)
    class Build:
        m: int = 32
        """Edges of a node; the lowest layer has twice as many."""
        ef_construction: int = 200
        """Candidates kept while a node is placed: slower to build, better edges."""
        storage: Literal["float", "sq8"] = "float"
        """What the graph keeps of a vector: all of it, or one byte a dimension."""

        def __post_init__(self) -> None:
            require_at_least(1, m=self.m, ef_construction=self.ef_construction)

    @dataclass(frozen=True)
    class Search:
        ef_search: int = 128
        """Candidates kept during a search, raised to k where k is larger."""
        refine: int = 2
        """How many candidates an sq8 graph gives to be scored again, times k; a float graph's
        scores are exact as they are."""

        def __post_init__(self) -> None:
            require_at_least(1, ef_search=self.ef_search, refine=self.refine)

    @staticmethod
    def build(vectors: F32, path: Path, params: Build) -> None:
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        index = _graph(vectors.shape[1], params)
        index.hnsw.efConstruction = params.ef_construction
        index.train(vectors)
        index.add(vectors)
        _faiss.write(index, path)

    @staticmethod
    def open(path: Path, vectors: F32, build: Build, search: Search) -> Index:
        index = _faiss.read(path, vectors, GRAPHS[build.storage])
        refine = search.refine if build.storage == "sq8" else None
        return FaissHnswIndex(index, vectors, search.ef_search, refine)


class FaissHnswIndex:
    def __init__(self, index: Any, vectors: F32, ef_search: int, refine: int | None) -> None:
        self._vectors = vectors
        self._ef_search = ef_search
        self._refine = refine
        self._searcher = _faiss.Searcher(
            index,
            lambda k, widen: faiss.SearchParametersHNSW(efSearch=round(max(ef_search, k) * widen)),
        )

    def search(self, queries: F32, k: int, allowed: Bool | None = None) -> Answer:
        queries = checked_queries(self._vectors, queries, k, allowed)
        ef = max(self._ef_search, k * (self._refine or 1))

        def walk(widen: float, allowed: Bool | None) -> Answer:
            if self._refine is None:
                return self._searcher.search(queries, k, widen, allowed)
            return self._searcher.search_refined(
                self._vectors, queries, k, self._refine, widen, allowed
            )

        return scan_or_walk(self._vectors, queries, k, allowed, ef * ROWS_PER_STEP, walk)


def _graph(dim: int, params: FaissHnswBackend.Build) -> Any:
    if params.storage == "sq8":
        return faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_8bit, params.m, _faiss.METRIC)
    return faiss.IndexHNSWFlat(dim, params.m, _faiss.METRIC)
