"""Where candidates come from: the neighbours of vectors, and what is popular."""

from typing import NamedTuple

import numpy as np

from contract.arrays import F32, I64
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
    live_rows, live_scores = _search_overlay(state.overlay, filter_, vectors, k)
    best, best_scores = merge(
        np.concatenate([rows, live_rows]), np.concatenate([scores, live_scores]), k
    )
    return Candidates(best, best_scores, widened)


def popular(state: State, filter_: Filter, k: int) -> Candidates:
    """The k most popular eligible items with their share of all interactions, then new items, the
    newest first, with score zero."""
    snapshot, overlay = state.snapshot, state.overlay
    eligible = filter_.bundle_rows()
    most = snapshot.popular[eligible[snapshot.popular]][:k].astype(np.int64)
    live, counted = filter_.overlay_slots(), overlay.popularity > 0
    new = np.flatnonzero(live & ~counted)[-k:]
    slots = np.sort(np.concatenate([new, np.flatnonzero(live & counted)]))[::-1]
    rows = np.concatenate([most, slots + overlay.base])
    counts: F32 = np.concatenate([snapshot.bundle.popularity[most], overlay.popularity[slots]])
    best = np.argsort(-counts, kind="stable")[:k]
    return Candidates(rows[best], counts[best] / snapshot.interactions)


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


def _search_overlay(overlay: Overlay, filter_: Filter, vectors: F32, k: int) -> tuple[I64, F32]:
    """Eligible rows of the overlay that no index holds with their scores, flat over the vectors
    (K, D); the k best of each are among them."""
    if overlay.appended or not overlay.slots:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    blocked = filter_.blocked_slots()
    if filter_.category is None and blocked <= OVERFETCH * k:
        rows, scores = overlay.search_slots(vectors, k + blocked)
        if not blocked:
            return rows.ravel(), scores.ravel()
        kept = filter_.keep(rows)
        return rows[kept], scores[kept]
    rows, scores = overlay.search_slots(vectors, k, filter_.overlay_slots())
    return rows.ravel(), scores.ravel()
