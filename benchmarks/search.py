"""`tandem bench search`: every backend that suits the size, tuned to one recall, on one thread.

Generated clustered unit vectors of 64 dimensions, k = 50. A backend cannot flatter itself: the true
neighbours are counted here.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from benchmarks.table import Row
from contract.arrays import F32
from contract.errors import GateError
from contract.index import load_backend
from contract.manifest import Index as IndexEntry
from offline import tune
from offline.progress import Progress

DIM, K, RECALL = 64, 50, 0.99
CENTRES, SPREAD = 2_000, 0.6


class Tried(NamedTuple):
    """A backend with build parameters."""

    backend: str
    build: dict[str, Any]

    def __str__(self) -> str:
        given = ", ".join(str(value) for value in self.build.values())
        return f"{self.backend} ({given})" if given else self.backend


class Result(NamedTuple):
    tried: Tried
    entry: IndexEntry
    seconds: float
    """To build and tune."""
    size: int
    """Bytes of the index file."""


SMALL = (
    Tried("exact", {}),
    Tried("faiss_flat", {}),
    Tried("faiss_ivf", {}),
    Tried("faiss_ivfpq", {}),
    Tried("faiss_hnsw", {}),
    Tried("faiss_hnsw", {"storage": "sq8"}),
    Tried("hnswlib", {}),
    Tried("annoy", {}),
)
LARGE = (Tried("faiss_flat", {}), Tried("faiss_ivf", {}), Tried("faiss_ivfpq", {}))
"""Graphs and trees take half an hour and more to build."""


def measure(items: int, picture: Path | None = None) -> list[Row]:
    """`picture`: an SVG of recall against latency is written there."""
    vectors, users = clustered(items, 0), clustered(tune.QUERIES, 1)
    goal = tune.goal(vectors, users, RECALL, K)
    results = []
    with Progress("backends", 0) as progress:
        for one in SMALL if items <= tune.GRAPH_ITEMS else LARGE:
            progress.advance(0, str(one))
            results += [result] if (result := _try(one, vectors, goal)) else []
    if picture:
        from benchmarks.picture import draw_curves

        curves = {str(result.tried): result.entry.curve for result in results}
        draw_curves(curves, f"{items:,} items, {DIM} dimensions, recall@{K}", picture)
    return [*(row for result in results for row in _rows(result, items)), *_auto(results, items)]


def clustered(count: int, seed: int) -> F32:
    """(count, DIM) unit vectors around shared centres, like learned item vectors."""
    centres = np.random.default_rng(7).standard_normal((CENTRES, DIM), dtype=np.float32)
    rng = np.random.default_rng(seed)
    x = centres[rng.integers(0, CENTRES, count)]
    x += SPREAD * rng.standard_normal((count, DIM), dtype=np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def _try(tried: Tried, vectors: F32, goal: tune.Goal) -> Result | None:
    """None where the backend cannot reach the recall."""
    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        try:
            entry = tune.tune(tried.backend, vectors, tried.build, Path(folder), goal)
        except GateError:
            return None
        seconds = time.perf_counter() - started
        return Result(tried, entry, seconds, sum(f.stat().st_size for f in Path(folder).iterdir()))


def _rows(result: Result, items: int) -> Iterator[Row]:
    kind = load_backend(result.entry.backend)
    point = tune.chosen(result.entry)
    label = f"{items:,} items, {result.tried}"
    label += f", {kind.effort.name} {point.effort}:" if kind.effort else ":"
    yield Row(f"{label} recall@{K}", point.recall, "", at_least=RECALL)
    yield Row(f"{label} p50", point.p50_us, "us")
    yield Row(f"{label} p99", point.p99_us, "us")
    yield Row(f"{label} build and tuning", result.seconds, "s")
    yield Row(f"{label} index file", result.size / items, "bytes/item")


def _auto(results: list[Result], items: int) -> Iterator[Row]:
    """What `auto` would take, against the fastest of all that were measured."""
    considered = tune.candidates(items)
    fastest = min(tune.chosen(result.entry).p50_us for result in results)
    taken = [
        tune.chosen(r.entry).p50_us
        for r in results
        if r.tried.backend in considered and not r.tried.build
    ]
    yield Row(f"{items:,} items: auto over the fastest", min(taken) / fastest, "times", at_most=1.1)
