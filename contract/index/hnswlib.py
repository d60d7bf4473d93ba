"""hnswlib: the graph by its first authors. Not mapped: every process loads a copy of its own."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hnswlib as _hnswlib
import numpy as np

from contract.arrays import F32, Bool
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
from contract.index.exact import ordered, scan_or_walk

# hnswlib ships no stubs.
hnswlib: Any = _hnswlib

# Measured at D = 64: a filtered walk takes as long as a scan where 11 (ef 64) or 14 % (ef 128) of
# 200,000 rows are allowed.
ROWS_PER_STEP = 25

# Six sizes that every file begins with: the offset of level 0, the room for items, the items, the
# bytes of one, and where in these its label and its vector begin.
HEADER = struct.Struct("=6Q")


class HnswlibBackend(Backend):
    filename = "index.hnswlib"
    effort = Effort("ef", "candidates")

    @dataclass(frozen=True)
    class Build:
        m: int = 32
        """Edges of a node; the lowest layer has twice as many."""
        ef_construction: int = 200
        """Candidates kept while a node is placed: slower to build, better edges."""
        seed: int = 100
        """Of the levels. Threads race for the edges: only one of them builds the same graph again.
        """

        def __post_init__(self) -> None:
            require_at_least(2, m=self.m)
            require_at_least(1, ef_construction=self.ef_construction)
            require_at_least(0, seed=self.seed)

    @dataclass(frozen=True)
    class Search:
        ef: int = 128
        """Candidates kept during a search, raised to k where k is larger."""

        def __post_init__(self) -> None:
            require_at_least(1, ef=self.ef)

    @staticmethod
    def build(vectors: F32, path: Path, params: Build) -> None:
        count, dim = vectors.shape
        graph = hnswlib.Index("ip", dim)
        graph.init_index(count, params.m, params.ef_construction, params.seed)
        graph.add_items(vectors)
        graph.save_index(str(path))

    @staticmethod
    def open(path: Path, vectors: F32, build: Build, search: Search) -> Index:
        count, dim = vectors.shape
        graph = hnswlib.Index("ip", dim)
        try:
            _check_shape(path, count, dim)
            graph.load_index(str(path), max_elements=count)
        except (OSError, struct.error, RuntimeError) as exc:
            raise BundleError(
                f"{path}: not a readable hnswlib index ({exc}); publish the bundle again"
            ) from exc
        graph.set_ef(search.ef)
        return HnswlibIndex(graph, vectors, search)


class HnswlibIndex:
    def __init__(self, graph: Any, vectors: F32, params: HnswlibBackend.Search) -> None:
        self._graph = graph
        self._vectors = vectors
        self._params = params

    def search(self, queries: F32, k: int, allowed: Bool | None = None) -> Answer:
        queries = checked_queries(self._vectors, queries, k, allowed)
        ef = max(self._params.ef, k)

        def walk(widen: float, allowed: Bool | None) -> Answer:
            return self._walk(queries, k, round(ef * widen), allowed)

        return scan_or_walk(self._vectors, queries, k, allowed, ef * ROWS_PER_STEP, walk)

    def _walk(self, queries: F32, k: int, ef: int, allowed: Bool | None) -> Answer:
        # hnswlib's filter is a Python function, called for each candidate with the GIL held. To ask
        # for all candidates of a wider walk and drop what is not allowed is a tenth faster. hnswlib
        # keeps as many as it must return, so asking for more widens the walk, and this one only.
        wanted = k if allowed is None else min(ef, len(self._vectors))
        try:
            labels, distances = self._graph.knn_query(queries, wanted, num_threads=1)
        except RuntimeError:  # the graph reaches fewer rows than it must return
            return _nothing(len(queries), k)
        rows, scores = labels.view(np.int64), 1 - distances
        if allowed is None:
            return rows, scores
        rows[~allowed[rows]] = -1
        rows, scores = ordered(rows, scores)
        return rows[:, :k], scores[:, :k]


def _check_shape(path: Path, count: int, dim: int) -> None:
    """hnswlib would read a file of another dimension all the same."""
    with path.open("rb") as file:
        _, _, rows, _, label, vector = HEADER.unpack(file.read(HEADER.size))
    require_match(path, "dimensions", (label - vector) // 4, dim)
    require_match(path, "rows", rows, count)


def _nothing(queries: int, k: int) -> Answer:
    return np.full((queries, k), -1), np.full((queries, k), -np.inf, np.float32)
