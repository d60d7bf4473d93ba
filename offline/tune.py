"""The parameters of an index, found by measuring: the least search effort that reaches a recall.

It is asked as a service asks it, for real users and without what they have seen.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from contract.arrays import F32, I32
from contract.errors import GateError
from contract.index import Backend, load_backend, params_from
from contract.index.exact import SMALL
from contract.manifest import Index as IndexEntry
from contract.manifest import Point
from offline.truth import Truth, measure, truth

QUERIES = 256
CLOSE = 1.15
"""The bisection ends when what suffices is within this factor of what does not."""
PLATEAU = 5e-4
"""Where twice the effort finds no more than this, the rest is lost to the codes or the edges. It
counts from the first gain on: one list and two may both be fewer rows than are read at least."""
GRAPH_ITEMS = 200_000
"""Above it a graph takes many minutes to build on a small machine, where lists take one."""
MANY_ITEMS = 2_000_000
"""Above it even reading a part of the whole vectors may be too much: codes are tried too."""


SEEDS = (1234, 1, 2)
"""Of clusters that are tried where that takes a second each. For the same recall, some of a hundred
thousand items read a third more rows than others."""


class Candidate(NamedTuple):
    """What `auto` tries."""

    backend: str
    build: Mapping[str, Any] = {}


class Goal(NamedTuple):
    recall: float
    truth: Truth

    @property
    def k(self) -> int:
        return self.truth.k


def goal(vectors: F32, users: F32, recall: float, k: int, seen: Sequence[I32] = ()) -> Goal:
    """users (U, D): vectors of real users, of which at most QUERIES are measured with; `seen` by
    each of them, as in `truth`."""
    some = np.linspace(0, len(users) - 1, min(QUERIES, len(users)), dtype=np.int64)
    return Goal(recall, truth(vectors, users[some], k, [seen[at] for at in some] if seen else ()))


def build(
    name: str,
    vectors: F32,
    build: Mapping[str, Any] | None,
    search: Mapping[str, Any] | None,
    directory: Path,
) -> IndexEntry:
    """Build the index of backend `name` in `directory` with these parameters, untuned."""
    kind = load_backend(name)
    built, searched = params_from(kind.Build, build or {}), params_from(kind.Search, search or {})
    kind.build(vectors, directory / (kind.filename or ""), built)
    return IndexEntry(backend=name, build=asdict(built), search=asdict(searched))


def choose(vectors: F32, directory: Path, wanted: Goal) -> IndexEntry:
    """Build and tune every backend that suits the size, and keep the fastest that reaches the goal.

    Raises GateError when none does.
    """
    best: IndexEntry | None = None
    tried = []
    for name, build in candidates(len(vectors)):
        with TemporaryDirectory(dir=directory) as folder:
            try:
                entry = tune(name, vectors, build, Path(folder), wanted)
            except GateError as error:
                tried.append(str(error))
                continue
            tried.append(entry.why)
            if best is None or chosen(entry).p50_us < chosen(best).p50_us:
                best = _keep(entry, Path(folder), directory)
    if best is None:
        raise GateError("no backend reaches the target: " + "; ".join(tried))
    return best.model_copy(update={"why": "fastest of: " + "; ".join(tried)})


def _keep(entry: IndexEntry, folder: Path, directory: Path) -> IndexEntry:
    """The index file of the entry becomes the only one in `directory`."""
    for earlier in directory.glob("index.*"):
        earlier.unlink()
    filename = load_backend(entry.backend).filename
    if filename:
        (folder / filename).rename(directory / filename)
    return entry


def tune(
    name: str, vectors: F32, build: Mapping[str, Any], directory: Path, wanted: Goal
) -> IndexEntry:
    """Build the index of backend `name` in `directory` and find its least search effort for the
    goal.

    Raises GateError when no effort reaches it.
    """
    kind = load_backend(name)
    path = directory / (kind.filename or "")
    built = params_from(kind.Build, build)
    kind.build(vectors, path, built)
    with one_thread():
        curve = sorted(_curve(kind, path, vectors, built, wanted), key=lambda p: p.effort)
    reached = [point for point in curve if point.recall >= wanted.recall]
    if not reached:
        best = max(point.recall for point in curve)
        raise GateError(
            f"backend {name}: recall@{wanted.k} is {best:.4f} at most, wanted {wanted.recall}; "
            "lower --target-recall, build it finer or take another backend"
        )
    least = reached[0]
    search = _with_effort(kind, least.effort)
    why = (
        f"{name} at recall@{wanted.k} {least.recall:.4f} (wanted {wanted.recall}): "
        f"{least.p50_us:,.0f} us a query"
    )
    return IndexEntry(
        backend=name,
        build=asdict(built),
        search=asdict(search),
        curve=tuple(curve),
        why=why,
        target_recall=wanted.recall,
        target_k=wanted.k,
    )


def candidates(items: int) -> tuple[Candidate, ...]:
    """What `auto` measures for a catalogue of this size."""
    lists = Candidate("faiss_ivf")
    if items <= SMALL:
        return (Candidate("exact"),)
    if items <= GRAPH_ITEMS:
        seeded = (Candidate("faiss_ivf", {"seed": seed}) for seed in SEEDS)
        return (Candidate("faiss_flat"), *seeded, Candidate("faiss_hnsw"))
    return (lists,) if items <= MANY_ITEMS else (lists, Candidate("faiss_ivfpq"))


def chosen(entry: IndexEntry) -> Point:
    """What a tuned entry's own search effort measured."""
    effort = load_backend(entry.backend).effort
    value = entry.search[effort.name] if effort else 0
    return next(point for point in entry.curve if point.effort == value)


def _curve(
    kind: type[Backend], path: Path, vectors: F32, build: Any, wanted: Goal
) -> Iterator[Point]:
    """Points measured: effort doubled until the goal is reached, then bisected."""
    if kind.effort is None:
        yield _measure(kind, path, vectors, build, 0, wanted)
        return
    effort = kind.effort.least(wanted.k)
    short, enough, reached, rising = effort - 1, 0, 1.0, False
    while not enough:
        point = _measure(kind, path, vectors, build, effort, wanted)
        yield point
        gain, reached = point.recall - reached, point.recall
        rising = rising or gain >= PLATEAU
        if point.recall >= wanted.recall:
            enough = effort
        elif effort >= len(vectors) or (rising and gain < PLATEAU):
            return
        else:
            short, effort = effort, min(2 * effort, len(vectors))
    while enough > max(short, 1) * CLOSE and enough - short > 1:
        effort = max(short + 1, round(math.sqrt(max(short, 1) * enough)))
        point = _measure(kind, path, vectors, build, effort, wanted)
        yield point
        short, enough = (short, effort) if point.recall >= wanted.recall else (effort, enough)


def _measure(
    kind: type[Backend], path: Path, vectors: F32, build: Any, effort: int, wanted: Goal
) -> Point:
    index = kind.open(path, vectors, build, _with_effort(kind, effort))
    found = measure(index, len(vectors), wanted.truth)
    p50, p99 = np.percentile(found.seconds, [50, 99]) * 1e6
    return Point(effort=effort, recall=found.recall, p50_us=float(p50), p99_us=float(p99))


def _with_effort(kind: type[Backend], effort: int) -> Any:
    return replace(kind.Search(), **{kind.effort.name: effort}) if kind.effort else kind.Search()


@contextmanager
def one_thread() -> Iterator[None]:
    """As a worker of the service searches."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
