"""FAISS IVF-PQ: a few bytes for each item in inverted lists, memory-mapped.

The codes only propose candidates; these are scored again with the item vectors of the bundle, which
are mapped once for all that need them. (FAISS's fast-scan codes cannot be mapped: each worker would
hold a copy.)
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from contract.arrays import F32, I64, Bool
from contract.errors import RecipeError
from contract.index import _faiss, _lists
from contract.index._clusters import Clusters
from contract.index._faiss import faiss
from contract.index.base import Answer, Backend, Effort, Index, checked_queries, require_at_least
from contract.index.exact import scan_or_walk

SEED = 1
SAMPLE_PER_WORD = 256


class FaissIvfPqBackend(Backend):
    filename = "index.faiss"
    effort = Effort("probes", "lists")

    @dataclass(frozen=True)
    class Build:
        lists: int = 0
        """Inverted lists; 0: four times the root of the number of items, or fewer for few items."""
        subquantizers: int = 0
        """Parts that a vector is cut into, one code each: a divisor of the dimension; 0: parts of
        four dimensions, or the next shorter ones that fit."""
        bits: Literal[4, 8] = 8
        """Of each code."""

        def __post_init__(self) -> None:
            require_at_least(0, lists=self.lists, subquantizers=self.subquantizers)

    @dataclass(frozen=True)
    class Search:
        probes: int = 16
        """Lists read by a search, counted in lists of average size."""
        refine: int = 8
        """Candidates that are scored again, times k."""

        def __post_init__(self) -> None:
            require_at_least(1, probes=self.probes, refine=self.refine)

    @staticmethod
    def build(vectors: F32, path: Path, params: Build) -> None:
        count, dim = vectors.shape
        list_count = _lists.list_count(params.lists, count)
        parts = _part_count(params.subquantizers, dim)
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        clusters = Clusters(vectors, list_count)
        centres, lists = clusters.centres, clusters.assign(vectors)
        quantizer = _lists.quantizer(centres)
        index = faiss.IndexIVFPQ(quantizer, dim, list_count, parts, params.bits, _faiss.METRIC)
        _train(index.pq, vectors, centres, lists)
        _lists.fill(index, vectors, lists)
        _faiss.write(index, path)

    @staticmethod
    def open(path: Path, vectors: F32, build: Build, search: Search) -> Index:
        return FaissIvfPqIndex(_faiss.read(path, vectors, faiss.IndexIVFPQ), vectors, search)


class FaissIvfPqIndex:
    def __init__(self, index: Any, vectors: F32, params: FaissIvfPqBackend.Search) -> None:
        self._vectors = vectors
        self._refine = params.refine
        self._probing = _lists.Probing(index, params.probes)
        self._searcher = _faiss.Searcher(index, self._probing.params)

    def search(self, queries: F32, k: int, allowed: Bool | None = None) -> Answer:
        queries = checked_queries(self._vectors, queries, k, allowed)
        effort = self._probing.effort(k * self._refine)

        def walk(widen: float, allowed: Bool | None) -> Answer:
            return self._searcher.search_refined(
                self._vectors, queries, k, self._refine, widen, allowed
            )

        return scan_or_walk(self._vectors, queries, k, allowed, effort, walk)


def _train(codes: Any, vectors: F32, centres: F32, lists: I64) -> None:
    """Codes are of what the centre of its list leaves of a vector."""
    rows = np.random.default_rng(SEED).permutation(len(vectors))[: SAMPLE_PER_WORD * codes.ksub]
    rest = vectors[rows] - centres[lists[rows]]
    codes.cp.min_points_per_centroid = 1
    # A code book wants as many vectors as it has words: few items are shown again and again.
    codes.train(rest if len(rest) >= codes.ksub else np.resize(rest, (codes.ksub, codes.d)))


def _part_count(wanted: int, dim: int) -> int:
    fitting = [parts for parts in range(1, dim + 1) if dim % parts == 0]
    if wanted == 0:
        return min(parts for parts in fitting if 4 * parts >= dim)
    if wanted not in fitting:
        names = ", ".join(map(str, fitting))
        raise RecipeError(
            f"subquantizers is {wanted}, expected a divisor of the {dim} dimensions: {names}, "
            "or 0 to choose"
        )
    return wanted
