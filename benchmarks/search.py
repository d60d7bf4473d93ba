"""`tandem bench search`: every backend that suits the size, tuned to one recall, on one thread.

Generated clustered unit vectors of 64 dimensions, k = 50. A backend cannot flatter itself: the true
neighbours are counted here. Up to two million items that takes every backend, and half an hour for
a million; above, the recall asked for is lower and what takes hours to build is left out.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from benchmarks.memory import forget_peak, peak_bytes
from benchmarks.table import Row, machine
from contract.arrays import F32, I64
from contract.errors import GateError
from contract.index import load_backend
from contract.manifest import Index as IndexEntry
from offline import tune
from offline.progress import Progress

DIM, K = 64, 50
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
    peak: int
    """Most bytes that this process had resident, the vectors with them."""


class Scale(NamedTuple):
    """What is measured of a catalogue of some size, and asked of it."""

    tried: tuple[Tried, ...]
    recall: float
    fastest_us: float | None
    """What the fastest backend may take."""


LISTS = (Tried("faiss_flat", {}), Tried("faiss_ivf", {}), Tried("faiss_ivfpq", {}))
GRAPHS = (
    Tried("faiss_hnsw", {}),
    Tried("faiss_hnsw", {"storage": "sq8"}),
    Tried("hnswlib", {}),
)
USUAL = Scale((Tried("exact", {}), *LISTS, *GRAPHS, Tried("annoy", {})), 0.99, None)
HUGE = Scale(LISTS, 0.95, 2_000)
"""Without graphs, which take hours to build, and without what is slower than these at a million."""


def measure(items: int, picture: Path | None = None) -> list[Row]:
    """`picture`: an SVG of recall against latency is written there."""
    scale = USUAL if items <= tune.MANY_ITEMS else HUGE
    vectors, users = clustered(items, 0), clustered(tune.QUERIES, 1)
    goal = tune.goal(vectors, users, scale.recall, K)
    results = []
    with Progress("backends", 0) as progress:
        for one in scale.tried:
            progress.advance(0, str(one))
            results += [result] if (result := _try(one, vectors, goal)) else []
    if picture:
        from benchmarks.picture import draw_curves

        curves = {str(result.tried): result.entry.curve for result in results}
        draw_curves(curves, f"{items:,} items, {DIM} dimensions, recall@{K}", picture)
    rows = [row for result in results for row in _rows(result, items, scale.recall)]
    return [*rows, *_fastest(results, items, scale)]


def clustered(count: int, seed: int) -> F32:
    """(count, DIM) unit vectors around shared centres, like learned item vectors."""
    centres = np.random.default_rng(7).standard_normal((CENTRES, DIM), dtype=np.float32)
    x = centres[clusters(count, seed)]
    noise = np.random.default_rng((seed, 1)).standard_normal((count, DIM), dtype=np.float32)
    noise *= SPREAD  # in place: at ten million items a temporary is 2.4 GiB
    x += noise
    del noise
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def clusters(count: int, seed: int) -> I64:
    """(count,) The centre that each of these vectors lies around."""
    return np.random.default_rng(seed).integers(0, CENTRES, count)


def _try(tried: Tried, vectors: F32, goal: tune.Goal) -> Result | None:
    """None, and the reason on stderr, where the backend cannot reach the recall."""
    forget_peak()
    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        try:
            entry = tune.tune(tried.backend, vectors, tried.build, Path(folder), goal)
        except GateError as error:
            print(f"left out: {error}", file=sys.stderr)
            return None
        seconds = time.perf_counter() - started
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
    return Result(tried, entry, seconds, size, peak_bytes())


def _rows(result: Result, items: int, recall: float) -> Iterator[Row]:
    kind = load_backend(result.entry.backend)
    point = tune.chosen(result.entry)
    label = f"{items:,} items, {result.tried}"
    label += f", {kind.effort.name} {point.effort}:" if kind.effort else ":"
    yield Row(f"{label} recall@{K}", point.recall, "", at_least=recall)
    yield Row(f"{label} p50", point.p50_us, "us")
    yield Row(f"{label} p99", point.p99_us, "us")
    yield Row(f"{label} build and tuning", result.seconds, "s")
    yield Row(f"{label} index file", result.size / items, "bytes/item")
    memory = float(machine()["memory_gib"])
    yield Row(f"{label} peak memory, vectors included", result.peak / 2**30, "GiB", at_most=memory)


def _fastest(results: list[Result], items: int, scale: Scale) -> Iterator[Row]:
    """The fastest of all that were measured, and what `auto` would take against it."""
    latency = {str(result.tried): tune.chosen(result.entry).p50_us for result in results}
    fastest = min(latency.values())
    tried = {candidate.backend for candidate in tune.candidates(items)}
    taken = min(latency[name] for name in tried if name in latency)
    label = f"{items:,} items:"
    yield Row(f"{label} p50 of the fastest", fastest, "us", at_most=scale.fastest_us)
    yield Row(f"{label} auto over the fastest", taken / fastest, "times", at_most=1.1)
