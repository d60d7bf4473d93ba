"""`tandem bench search`: every backend on generated clustered vectors, one thread, k = 50."""

import tempfile
import time
from pathlib import Path

import faiss
import numpy as np

from benchmarks.table import Row
from contract.arrays import F32, I64
from contract.index import BACKENDS, load_backend
from contract.index.base import Backend
from contract.index.exact import ExactIndex

DIM, K, QUERIES = 64, 50, 200
CENTRES, SPREAD = 2_000, 0.6


def measure(items: int) -> list[Row]:
    vectors, queries = _vectors(items, 0), _vectors(QUERIES, 1)
    truth, _ = ExactIndex(vectors).search(queries, K)
    rows: list[Row] = []
    for name in BACKENDS:
        rows += _backend(name, load_backend(name), vectors, queries, truth)
    return rows


def _backend(name: str, kind: type[Backend], vectors: F32, queries: F32, truth: I64) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / (kind.filename or "")
        started = time.perf_counter()
        kind.build(vectors, path, kind.Build())
        built = time.perf_counter() - started
        size = path.stat().st_size if kind.filename else 0
        index = kind.open(path, vectors, kind.Build(), kind.Search())
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        found, seconds = [], []
        for query in queries:
            started = time.perf_counter()
            rows, _ = index.search(query[None], K)
            seconds.append(time.perf_counter() - started)
            found.append(rows[0])
        faiss.omp_set_num_threads(threads)
    hits = [len(np.intersect1d(f, t)) / K for f, t in zip(found, truth, strict=True)]
    label = f"{name}, {len(vectors):,} items:"
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return [
        Row(f"{label} recall@{K}", float(np.mean(hits)), "", at_least=0.95),
        Row(f"{label} search p50", float(p50), "ms"),
        Row(f"{label} search p99", float(p99), "ms"),
        Row(f"{label} build", built, "s"),
        Row(f"{label} index file", size / len(vectors), "bytes/item"),
    ]


def _vectors(count: int, seed: int) -> F32:
    """(count, DIM) unit vectors around shared centres, like learned item vectors."""
    centres = np.random.default_rng(7).standard_normal((CENTRES, DIM), dtype=np.float32)
    rng = np.random.default_rng(seed)
    x = centres[rng.integers(0, CENTRES, count)]
    x += SPREAD * rng.standard_normal((count, DIM), dtype=np.float32)
    unit: F32 = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit
