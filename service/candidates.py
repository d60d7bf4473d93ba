"""Where candidates come from: the neighbours of vectors, and what is popular."""

from typing import NamedTuple

import numpy as np

from contract.arrays import F32, I32, I64
from contract.merge import merge
from service.filters import Filter
from service.overlay import Overlay
from service.state import State

OVERFETCH = 4
"""A first search asks for at most this many times k; beyond it the filter goes into the search."""


class Candidates(NamedTuple):
    """Distinct eligible rows (n,), the best first, and their scores (n,)."""

    rows: I64
    scores: F32
    widened: bool = False
    """Whether the first search left fewer than k, so that the filter had to go into a second."""


def nearest(state: State, filter_: Filter, vectors: F32, k: int) -> Candidates:
    """The k eligible items nearest to any of the vectors (K, D)."""
    rows, scores, widened = _search(state.overlay, filter_, vectors, k)
    live_rows, live_scores = _search_overlay(state.overlay, filter_, vectors)
    best, best_scores = merge(
        np.concatenate([rows, live_rows]), np.concatenate([scores, live_scores]), k
    )
    return Candidates(best, best_scores, widened)


def popular(state: State, filter_: Filter, segment: int, k: int) -> Candidates:
    """The k most popular eligible items among the users of a segment (0: all users) with their
    share of its interactions; behind those that the bundle lists, in the order of all interactions;
    then new items, the newest first, with score zero."""
    bundle = state.snapshot.bundle
    listed, shares = bundle.popular_rows[segment], bundle.popular_scores[segment]
    rows = state.overlay.current(listed.astype(np.int64))
    kept = np.flatnonzero(filter_.admits(rows))[:k]
    best = Candidates(rows[kept], shares[kept])
    if len(kept) == k:
        return best
    rest = _unlisted(state, filter_, listed, float(shares[-1]))
    fresh = newest(state, filter_, k)
    parts = (best, rest, fresh)
    return Candidates(
        np.concatenate([part.rows for part in parts])[:k],
        np.concatenate([part.scores for part in parts])[:k],
    )


def newest(state: State, filter_: Filter, k: int) -> Candidates:
    """The last k eligible items that the bundle lacks, the newest first, with score zero."""
    overlay = state.overlay
    slots = np.flatnonzero(filter_.overlay_slots() & overlay.new)[::-1][:k]
    return Candidates(slots + overlay.base, np.zeros(len(slots), np.float32))


def _unlisted(state: State, filter_: Filter, listed: I32, most: float) -> Candidates:
    """The other eligible items of the bundle by their share of all interactions, which is given as
    at most `most`: scores descend over the whole list."""
    snapshot = state.snapshot
    other = np.ones(snapshot.items, np.bool_)
    other[listed] = False
    found = snapshot.popular[other[snapshot.popular]].astype(np.int64)
    rows = state.overlay.current(found)
    kept = filter_.admits(rows)
    shares = snapshot.bundle.popularity[found[kept]] / snapshot.interactions
    return Candidates(rows[kept], np.minimum(shares, np.float32(most)))


def _search(overlay: Overlay, filter_: Filter, vectors: F32, k: int) -> tuple[I64, F32, bool]:
    """Eligible rows of what the index holds with their scores, flat over the vectors (K, D); the k
    best of each are among them. The third value: whether a second search was needed."""
    if filter_.category is not None:
        rows, scores = overlay.search(vectors, k, filter_.searched_rows())
        return rows.ravel(), scores.ravel(), False
    removed = filter_.most_removed()
    fetch = min(overlay.searched, k + min(removed, OVERFETCH * k))
    rows, scores = overlay.search(vectors, fetch)
    kept = filter_.keep(rows)
    if removed <= OVERFETCH * k or bool((kept.sum(axis=1) >= min(k, fetch)).all()):
        return rows[kept], scores[kept], False
    rows, scores = overlay.search(vectors, k, filter_.searched_rows())
    return rows.ravel(), scores.ravel(), True


def _search_overlay(overlay: Overlay, filter_: Filter, vectors: F32) -> tuple[I64, F32]:
    """Eligible rows of the overlay that no index holds, with their best score over the vectors
    (K, D), exactly."""
    if overlay.appended or not overlay.slots:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    slots = np.flatnonzero(filter_.overlay_slots())
    scores: F32 = (vectors @ overlay.vectors[slots].T).max(axis=0)
    return slots + overlay.base, scores
