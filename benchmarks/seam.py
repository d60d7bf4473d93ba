"""`tandem bench seam`: what the index seam costs beside the bare library.

The bare side makes the library's own calls with the parameters that the backend uses: the same
build, and a search of the very file that the backend wrote. Both run on one thread and take turns;
the figures are medians of processor time, so that what else the machine does counts little. The
seam checks what it is given and keeps one order: that is what is paid for here.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from benchmarks.search import DIM, K, clustered
from benchmarks.table import Row
from contract.arrays import F32, I64
from contract.index import BackendName, load_backend
from contract.index._clusters import SAMPLE_PER_CLUSTER
from contract.index._faiss import METRIC, faiss
from contract.index._lists import Probing, list_count
from contract.index.base import Answer
from contract.index.faiss_ivfpq import SAMPLE_PER_WORD
from offline.progress import Progress

QUERIES = 2_000
GRAPH_ITEMS = 20_000
"""Placed in a graph, which takes seconds for so many and minutes for a hundred thousand."""
FEWEST_BUILDS, BUILD_SECONDS = 3, 10.0
"""Pairs of builds: so many, and on for so long."""
MOST_SHARE, MOST_US, MOST_BUILD = 0.05, 10.0, 1.05
"""What the seam may add to a search, whichever is more, and to a build."""

Search = Callable[[F32], Answer]


class Bare(NamedTuple):
    """A library by itself, with the defaults of its backend."""

    build: Callable[[F32, Path], None]
    open: Callable[[Path, F32], Search]
    """Of the backend's file and the vectors: a search of one query (1, D) for K rows."""
    most: int | None = None
    """Items that are built at most."""


class Turns(NamedTuple):
    """Medians, in seconds of processor time."""

    bare: float
    added: float
    """By the seam, turn for turn."""


def measure(items: int) -> list[Row]:
    vectors, queries = clustered(items, 0), clustered(QUERIES, 1)[:, None]
    with Progress("backends", 0) as progress, _one_core():
        rows = []
        for name in BARE:
            progress.advance(0, name)
            rows += [*_searches(name, vectors, queries), *_builds(name, vectors)]
    return rows


def _searches(name: BackendName, vectors: F32, queries: F32) -> Iterator[Row]:
    kind = load_backend(name)
    with TemporaryDirectory() as folder:
        path = Path(folder) / (kind.filename or "")
        kind.build(vectors, path, kind.Build())
        bare = BARE[name].open(path, vectors)
        index = kind.open(path, vectors, kind.Build(), kind.Search())
        turns = _search_in_turns(bare, lambda query: index.search(query, K), queries)
        same = [np.isin(bare(query)[0], index.search(query, K)[0]).mean() for query in queries]
    label = f"{len(vectors):,} items, {name}:"
    allowed = max(MOST_US, MOST_SHARE * turns.bare * 1e6)
    yield Row(f"{label} bare search", turns.bare * 1e6, "us")
    yield Row(f"{label} added by the seam", turns.added * 1e6, "us", at_most=allowed)
    yield Row(f"{label} rows that both find", float(np.mean(same)), "", at_least=0.999)


def _search_in_turns(bare: Search, seam: Search, queries: F32) -> Turns:
    seconds: dict[Search, list[float]] = {bare: [], seam: []}
    for number, query in enumerate(queries):
        for side in (bare, seam):
            side(query)  # so that neither pays for pages that the other has just read
        for side in (bare, seam) if number % 2 else (seam, bare):
            seconds[side].append(_timed(partial(side, query)))
    return _turns(seconds[bare], seconds[seam])


def _builds(name: BackendName, vectors: F32) -> Iterator[Row]:
    kind, bare = load_backend(name), BARE[name]
    part = vectors[: bare.most]
    turns = _build_in_turns(
        lambda path: bare.build(part, path), lambda path: kind.build(part, path, kind.Build())
    )
    label = f"{len(part):,} items, {name}:"
    yield Row(f"{label} bare build", turns.bare, "s")
    yield Row(f"{label} build over bare", 1 + turns.added / turns.bare, "times", at_most=MOST_BUILD)


def _build_in_turns(
    bare: Callable[[Path], None], seam: Callable[[Path], None], seconds: float = BUILD_SECONDS
) -> Turns:
    pairs: list[tuple[float, float]] = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        while len(pairs) < FEWEST_BUILDS or np.sum(pairs) < seconds:
            pairs.append((_timed(lambda: bare(path)), _timed(lambda: seam(path))))
    return _turns(*zip(*pairs, strict=True))


def _timed(step: Callable[[], object]) -> float:
    started = time.process_time()
    step()
    return time.process_time() - started


def _turns(bare: Sequence[float], seam: Sequence[float]) -> Turns:
    added = np.subtract(seam, bare)
    return Turns(float(np.median(bare)), float(np.median(added)))


@contextmanager
def _one_core() -> Iterator[None]:
    """Of two threads on a busy machine the slower one decides; every library here starts some."""
    cores, threads = os.sched_getaffinity(0), faiss.omp_get_max_threads()
    os.sched_setaffinity(0, {max(cores)})
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
        os.sched_setaffinity(0, cores)


def _build_flat(vectors: F32, path: Path) -> None:
    index = faiss.IndexFlatIP(DIM)
    index.add(vectors)
    faiss.write_index(index, str(path))


def _build_ivf(vectors: F32, path: Path) -> None:
    lists = list_count(0, len(vectors))
    _build_lists(faiss.IndexIVFFlat(faiss.IndexFlatIP(DIM), DIM, lists, METRIC), vectors, path)


def _build_ivfpq(vectors: F32, path: Path) -> None:
    lists = list_count(0, len(vectors))
    index = faiss.IndexIVFPQ(faiss.IndexFlatIP(DIM), DIM, lists, DIM // 4, 8, METRIC)
    index.pq.cp.max_points_per_centroid = SAMPLE_PER_WORD
    _build_lists(index, vectors, path)


def _build_lists(index: Any, vectors: F32, path: Path) -> None:
    index.cp.max_points_per_centroid = SAMPLE_PER_CLUSTER
    index.cp.min_points_per_centroid = 1
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(path))


def _build_hnsw(vectors: F32, path: Path) -> None:
    build = _build_defaults("faiss_hnsw")
    index = faiss.IndexHNSWFlat(DIM, build.m, METRIC)
    index.hnsw.efConstruction = build.ef_construction
    index.add(vectors)
    faiss.write_index(index, str(path))


def _build_hnswlib(vectors: F32, path: Path) -> None:
    import hnswlib

    build = _build_defaults("hnswlib")
    graph = hnswlib.Index("ip", DIM)
    graph.init_index(len(vectors), build.m, build.ef_construction, build.seed)
    graph.add_items(vectors)
    graph.save_index(str(path))


def _build_annoy(vectors: F32, path: Path) -> None:
    from annoy import AnnoyIndex as Forest

    build = _build_defaults("annoy")
    forest = Forest(DIM, build.metric)
    forest.set_seed(build.seed)
    for row, vector in enumerate(vectors):
        forest.add_item(row, vector.tolist())
    forest.build(build.trees, n_jobs=-1)
    forest.save(str(path))


def _open_flat(path: Path, vectors: F32) -> Search:
    return _search_faiss(_mapped(path), None)


def _open_ivf(path: Path, vectors: F32) -> Search:
    index = _mapped(path)
    return _search_faiss(index, Probing(index, _search_defaults("faiss_ivf").probes).params(K, 1))


def _open_ivfpq(path: Path, vectors: F32) -> Search:
    """Refined by the library's own means, which keep a second copy of the vectors."""
    index, search = _mapped(path), _search_defaults("faiss_ivfpq")
    refined = faiss.IndexRefineFlat(index, faiss.swig_ptr(vectors))
    probing = Probing(index, search.probes).params(K * search.refine, 1)
    params = faiss.IndexRefineSearchParameters(k_factor=search.refine, base_index_params=probing)
    return _search_faiss(refined, params)


def _open_hnsw(path: Path, vectors: F32) -> Search:
    ef = _search_defaults("faiss_hnsw").ef_search
    return _search_faiss(_mapped(path), faiss.SearchParametersHNSW(efSearch=ef))


def _open_hnswlib(path: Path, vectors: F32) -> Search:
    import hnswlib

    graph: Any = hnswlib.Index("ip", DIM)
    graph.load_index(str(path))
    graph.set_ef(_search_defaults("hnswlib").ef)
    return lambda query: graph.knn_query(query, K, num_threads=1)


def _open_annoy(path: Path, vectors: F32) -> Search:
    from annoy import AnnoyIndex as Forest

    forest = Forest(DIM, _build_defaults("annoy").metric)
    forest.load(str(path))
    search_k = _search_defaults("annoy").search_k

    def search(query: F32) -> Answer:
        found = forest.get_nns_by_vector(query[0].tolist(), K, search_k, include_distances=True)
        rows: I64 = np.array(found[0], np.int64)
        return rows[None], np.array(found[1], np.float32)[None]

    return search


def _mapped(path: Path) -> Any:
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)


def _search_faiss(index: Any, params: Any) -> Search:
    def search(query: F32) -> Answer:
        scores, rows = index.search(query, K, params=params)
        return rows, scores

    return search


def _build_defaults(name: BackendName) -> Any:
    return load_backend(name).Build()


def _search_defaults(name: BackendName) -> Any:
    return load_backend(name).Search()


BARE: dict[BackendName, Bare] = {
    "faiss_flat": Bare(_build_flat, _open_flat),
    "faiss_ivf": Bare(_build_ivf, _open_ivf),
    "faiss_ivfpq": Bare(_build_ivfpq, _open_ivfpq),
    "faiss_hnsw": Bare(_build_hnsw, _open_hnsw, most=GRAPH_ITEMS),
    "hnswlib": Bare(_build_hnswlib, _open_hnswlib, most=GRAPH_ITEMS),
    "annoy": Bare(_build_annoy, _open_annoy),
}
