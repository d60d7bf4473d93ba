"""FAISS IVF: the item vectors in inverted lists, of which a search reads the nearest;
memory-mapped.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contract.arrays import F32, Bool
from contract.index import _faiss, _lists
from contract.index._clusters import SEED, Clusters
from contract.index._faiss import faiss
from contract.index.base import Answer, Backend, Effort, Index, checked_queries, require_at_least
from contract.index.exact import scan_or_walk


class FaissIvfBackend(Backend):
    filename = "index.faiss"
    effort = Effort("probes", "lists")

    @dataclass(frozen=True)
    class Build:
        lists: int = 0
        """Inverted lists; 0: four times the root of the number of items, or fewer for few items."""
        seed: int = SEED
        """Of the clusters that the lists are made of: which ones are found is luck."""

        def __post_init__(self) -> None:
            require_at_least(0, lists=self.lists, seed=self.seed)

    @dataclass(frozen=True)
    class Search:
        probes: int = 16
        """Lists read by a search, counted in lists of average size; all of them make it exact."""

        def __post_init__(self) -> None:
            require_at_least(1, probes=self.probes)

    @staticmethod
    def build(vectors: F32, path: Path, params: Build) -> None:
        count, dim = vectors.shape
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        clusters = Clusters(vectors, _lists.list_count(params.lists, count), seed=params.seed)
        centres, lists = clusters.centres, clusters.assign(vectors)
        quantizer = _lists.quantizer(centres)
        index = faiss.IndexIVFFlat(quantizer, dim, len(centres), _faiss.METRIC)
        _lists.fill(index, vectors, lists)
        _faiss.write(index, path)

    @staticmethod
    def open(path: Path, vectors: F32, build: Build, search: Search) -> Index:
        return FaissIvfIndex(_faiss.read(path, vectors, faiss.IndexIVFFlat), vectors, search)


class FaissIvfIndex:
    def __init__(self, index: Any, vectors: F32, params: FaissIvfBackend.Search) -> None:
        self._vectors = vectors
        self._probing = _lists.Probing(index, params.probes)
        self._searcher = _faiss.Searcher(index, self._probing.params)

    def search(self, queries: F32, k: int, allowed: Bool | None = None) -> Answer:
        queries = checked_queries(self._vectors, queries, k, allowed)

        def walk(widen: float, allowed: Bool | None) -> Answer:
            return self._searcher.search(queries, k, widen, allowed)

        return scan_or_walk(self._vectors, queries, k, allowed, self._probing.effort(k), walk)
