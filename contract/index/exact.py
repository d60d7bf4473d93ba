"""Exact search: the reference of all tests, the backend for small catalogues, and what the
approximate backends fall back to.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import gt
from pathlib import Path

import numpy as np

from contract.arrays import F32, I64, Bool
from contract.index.base import Answer, Backend, Index, Matrix, checked_queries

# Bounds both the scores of one block and the vectors gathered for it, whatever the catalogue.
BLOCK_BYTES = 16 * 2**20

# Scanned in the time that any library takes to be called and to answer.
FEW = 1_000

SMALL = 8_000
"""So many vectors are all scored, in one product for many queries, before an approximate index has
found as many candidates as the filters of the queries make necessary. Measured at D = 64, 3,883
items and 16 queries of users who have seen 50 and more: 30 us each, where lists take 61."""


class ExactBackend(Backend):
    filename = None
    effort = None

    @dataclass(frozen=True)
    class Build:
        pass

    @dataclass(frozen=True)
    class Search:
        pass

    @staticmethod
    def build(vectors: F32, path: Path, params: Build) -> None:
        """Nothing to write: the item vectors are the index."""

    @staticmethod
    def open(path: Path, vectors: F32, build: Build, search: Search) -> Index:
        return ExactIndex(vectors)


class ExactIndex:
    def __init__(self, vectors: F32) -> None:
        self._vectors = vectors

    def search(self, queries: F32, k: int, allowed: Bool | None = None) -> Answer:
        queries = checked_queries(self._vectors, queries, k, allowed)
        return scan(self._vectors, queries, k, _rows(allowed))


def scan(vectors: Matrix, queries: F32, k: int, rows: I64 | None = None) -> Answer:
    """The best k of `rows` (ascending; None: every row of `vectors`), padded, in memory bounded
    by BLOCK_BYTES and the answer. Equal scores go by ascending row.
    """
    count = len(vectors) if rows is None else len(rows)
    width = max(1, BLOCK_BYTES // (4 * max(len(queries), vectors.shape[1])))
    best_rows = np.empty((len(queries), 0), dtype=np.int64)
    best_scores = np.empty((len(queries), 0), dtype=np.float32)
    for start in range(0, count, width):
        stop = min(start + width, count)
        block: slice | I64 = slice(start, stop) if rows is None else rows[start:stop]
        scores = queries @ vectors[block].T
        columns = best_columns(scores, k)
        names = np.arange(start, stop) if rows is None else rows[start:stop]
        # The earlier blocks stand first, so that `best_columns` goes on preferring lower rows.
        best_rows = np.concatenate([best_rows, names[columns]], axis=1)
        best_scores = np.concatenate(
            [best_scores, np.take_along_axis(scores, columns, axis=1)], axis=1
        )
        columns = best_columns(best_scores, k)
        best_rows = np.take_along_axis(best_rows, columns, axis=1)
        best_scores = np.take_along_axis(best_scores, columns, axis=1)
    missing = ((0, 0), (0, k - best_rows.shape[1]))
    return (
        np.pad(best_rows, missing, constant_values=-1),
        np.pad(best_scores, missing, constant_values=-np.inf),
    )


def rescore(vectors: F32, queries: F32, k: int, candidates: Iterable[I64]) -> Answer:
    """The best k of each query's own candidates: rows in any order, -1 for none. Padded."""
    found = [
        scan(vectors, query[None], k, np.sort(rows[rows >= 0]))
        for query, rows in zip(queries, candidates, strict=True)
    ]
    rows, scores = zip(*found, strict=True)
    return np.concatenate(rows), np.concatenate(scores)


class Stacked:
    """Two matrices as one: the rows of the second go on where those of the first end."""

    def __init__(self, first: F32, second: F32) -> None:
        self._first, self._second = first, second

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self), self._first.shape[1]

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def __getitem__(self, rows: slice | I64, /) -> F32:
        """Rows ascend."""
        count = len(self._first)
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            parts = self._first[start:stop], self._second[max(start - count, 0) : stop - count]
            return np.concatenate(parts) if stop > count else parts[0]
        border = int(np.searchsorted(rows, count))
        return np.concatenate([self._first[rows[:border]], self._second[rows[border:] - count]])


def ordered(rows: I64, scores: F32) -> Answer:
    """What a library found, -1 for none: descending, equal scores by ascending row, padded."""
    scores = np.where(rows < 0, np.float32(-np.inf), scores)
    order = np.lexsort((rows, -scores), axis=-1)
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)


def scan_or_walk(
    vectors: Matrix,
    queries: F32,
    k: int,
    allowed: Bool | None,
    effort: int,
    walk: Callable[[float, Bool | None], Answer],
) -> Answer:
    """An approximate backend's answer: its walk where that is cheaper than a scan of the allowed
    rows, and a scan for the queries where the walk came back short.

    `effort` is the cost of one unfiltered walk, counted in rows scanned. `walk(widen, allowed)`
    must look at `widen` (>= 1) times as many candidates, because one in `widen` is allowed; rows
    that it does not find are -1. What it finds is ordered here.
    """
    total = len(vectors)
    # Counted, not listed: the list of many rows takes longer than a walk.
    count = total if allowed is None else int(np.count_nonzero(allowed))
    allowed = None if count == total else allowed
    # A walk costs effort * total / count and a scan costs count: of one million rows and an effort
    # of 3,000, for example, up to 55,000 are scanned.
    if count <= FEW or count * count <= total * effort or len(queries) == 0:
        return scan(vectors, queries, k, _rows(allowed))
    found, scores = walk(total / count, allowed)
    if _in_order(found, scores):
        return found, scores
    found, scores = ordered(found, scores)
    short = np.flatnonzero(found[:, min(k, count) - 1] < 0)
    if len(short):
        found[short], scores[short] = scan(vectors, queries[short], k, _rows(allowed))
    return found, scores


def _rows(allowed: Bool | None) -> I64 | None:
    return None if allowed is None or allowed.all() else np.flatnonzero(allowed)


def _in_order(rows: I64, scores: F32) -> bool:
    """Whether every row is there and every score below the one before it: as libraries answer,
    nearly always.

    Out of the caches, which a scan has emptied, a numpy function takes 10 us and more; a method, or
    a loop of plain numbers, less than half; of several rows, numpy is faster.
    """
    if rows.item(rows.argmin()) < 0:
        return False
    if len(scores) > 1:
        return bool((scores[:, :-1] > scores[:, 1:]).all())
    return all(all(map(gt, row, row[1:])) for row in scores.tolist())


def best_columns(scores: F32, k: int) -> I64:
    """Of scores (B, n), the columns (B, at most k) of the k largest, descending, ties by ascending
    column."""
    count = scores.shape[1]
    if count <= k:
        return np.argsort(-scores, axis=1, kind="stable")
    columns = np.argpartition(scores, count - k, axis=1)[:, count - k :]
    floor = np.take_along_axis(scores, columns, axis=1).min(axis=1, keepdims=True)
    # A partition takes any of the scores that tie at the floor; the contract wants the first ones.
    for query in np.flatnonzero((scores >= floor).sum(axis=1) > k):
        columns[query] = np.argsort(-scores[query], kind="stable")[:k]
    columns.sort(axis=1)
    order = np.argsort(-np.take_along_axis(scores, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)
