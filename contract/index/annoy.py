"""Annoy: a forest of random hyperplane trees, memory-mapped.

Where the trees split by another metric, or a filter passes over what they propose, the candidates
are scored again with the item vectors, so that the answers always speak inner product.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from annoy import AnnoyIndex as Forest

from contract.arrays import F32, I64, Bool
from contract.errors import BundleError
from contract.index.base import (
    Answer,
    Backend,
    Effort,
    Index,
    checked_queries,
    require_at_least,
    require_match,
)
from contract.index.exact import rescore, scan_or_walk

# Measured at D = 64: one candidate takes 0.25 us to find and score, one scanned row 0.05 us.
ROWS_PER_CANDIDATE = 5


class AnnoyBackend(Backend):
    filename = "index.annoy"
    effort = Effort("search_k", "candidates")

    @dataclass(frozen=True)
    class Build:
        trees: int = 50
        metric: Literal["dot", "angular", "euclidean"] = "dot"
        """What the trees split by."""
        seed: int = 1
        """Gives the same trees again on a machine with as many cores."""

        def __post_init__(self) -> None:
            require_at_least(1, trees=self.trees, seed=self.seed)

    @dataclass(frozen=True)
    class Search:
        search_k: int = 10_000
        """Candidates taken from all trees together, raised to k where k is larger."""

        def __post_init__(self) -> None:
            require_at_least(1, search_k=self.search_k)

    @staticmethod
    def build(vectors: F32, path: Path, params: Build) -> None:
        forest = Forest(vectors.shape[1], params.metric)
        forest.set_seed(params.seed)
        for row, vector in enumerate(vectors):
            forest.add_item(row, vector.tolist())
        forest.build(params.trees, n_jobs=-1)
        forest.save(str(path))

    @staticmethod
    def open(path: Path, vectors: F32, build: Build, search: Search) -> Index:
        forest = Forest(vectors.shape[1], build.metric)
        try:
            forest.load(str(path))
        except OSError as exc:
            raise BundleError(
                f"{path}: not a readable Annoy index of {vectors.shape[1]} dimensions and metric "
                f"{build.metric} ({exc}); publish the bundle again"
            ) from exc
        # The file has no header: a truncated one, or one of another dimension, loads now and then,
        # and is known by its numbers.
        require_match(path, "rows", forest.get_n_items(), len(vectors))
        # (Where all items fit one leaf, Annoy counts more trees than it built.)
        require_match(path, "trees", min(forest.get_n_trees(), build.trees), build.trees)
        return AnnoyIndex(forest, vectors, build.metric, search)


class AnnoyIndex:
    def __init__(
        self,
        forest: Forest,
        vectors: F32,
        metric: str,
        params: AnnoyBackend.Search,
    ) -> None:
        self._forest = forest
        self._scored = metric == "dot"  # by the forest itself, with the exact inner product
        self._vectors = vectors
        self._params = params

    def search(self, queries: F32, k: int, allowed: Bool | None = None) -> Answer:
        queries = checked_queries(self._vectors, queries, k, allowed)
        search_k = max(self._params.search_k, k)

        def walk(widen: float, allowed: Bool | None) -> Answer:
            if allowed is None and self._scored:
                return self._nearest(queries, k, search_k)
            proposed = [self._propose(query, round(search_k * widen), allowed) for query in queries]
            return rescore(self._vectors, queries, k, proposed)

        return scan_or_walk(self._vectors, queries, k, allowed, search_k * ROWS_PER_CANDIDATE, walk)

    def _nearest(self, queries: F32, k: int, search_k: int) -> Answer:
        rows = np.empty((len(queries), k), np.int64)
        scores = np.empty((len(queries), k), np.float32)
        for at, query in enumerate(queries.tolist()):
            found, products = self._forest.get_nns_by_vector(
                query, k, search_k=search_k, include_distances=True
            )
            missing = k - len(found)
            rows[at], scores[at] = found + [-1] * missing, products + [-np.inf] * missing
        return rows, scores

    def _propose(self, query: F32, search_k: int, allowed: Bool | None) -> I64:
        proposed = self._forest.get_nns_by_vector(query.tolist(), search_k, search_k=search_k)
        rows = np.array(proposed, dtype=np.int64)
        return rows if allowed is None else rows[allowed[rows]]
