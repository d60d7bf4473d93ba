"""Where candidates come from: the neighbours of vectors, and what is popular."""

from typing import NamedTuple

import numpy as np

from contract.arrays import F32, I32, I64
from contract.index.exact import scan
from contract.merge import merge
from service.filters import Filter
from service.overlay import Overlay
from service.selection import few
from service.state import State

OVERFETCH = 4
"""A first search asks for at most this many times k; beyond it the filter goes into the search."""


class Candidates(NamedTuple):
    """Distinct eligible rows (n,), the best first, and their scores (n,)."""

    rows: I64
    scores: F32
    widened: bool = False
    """Whether the first search left fewer than k, so that the filter had to go into a second."""
    exact: bool = False
    """Whether few rows were eligible, so that all of them were scored and no index was asked."""


def nearest(state: State, filter_: Filter, vectors: F32, k: int) -> Candidates:
    """The k eligible items nearest to any of the vectors (K, D)."""
    overlay = state.overlay
    if (rows := filter_.few_rows()) is not None:
        return _scan(state, filter_, vectors, k, rows)
    if found := _search(overlay, filter_, vectors, k):
        live = _search_overlay(overlay, filter_, vectors, k)
        if len(vectors) == 1 and not len(live[0]):
            # As the index gave them: the best first, none twice.
            return Candidates(found[0][:k], found[1][:k])
        return _merge(found, live, k)
    allowed = filter_.bundle_rows()
    if np.count_nonzero(allowed) <= few(overlay.base):
        return _scan(state, filter_, vectors, k, np.flatnonzero(allowed))._replace(widened=True)
    found = overlay.search(vectors, k, filter_.searched_rows())
    live = _search_overlay(overlay, filter_, vectors, k)
    return _merge(found, live, k)._replace(widened=True)


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


def _search(overlay: Overlay, filter_: Filter, vectors: F32, k: int) -> tuple[I64, F32] | None:
    """Eligible rows of what the index holds with their scores, flat over the vectors (K, D); the k
    best of each are among them. None where what is not eligible left too few."""
    removed = filter_.most_removed()
    fetch = min(overlay.searched, k + min(removed, OVERFETCH * k))
    rows, scores = overlay.search(vectors, fetch, filter_.selected_rows())
    kept = filter_.keep(rows)
    if removed > OVERFETCH * k and bool((kept.sum(axis=1) < min(k, fetch)).any()):
        return None
    return rows[kept], scores[kept]


def _search_overlay(overlay: Overlay, filter_: Filter, vectors: F32, k: int) -> tuple[I64, F32]:
    """Eligible rows of the overlay that no index holds with their scores, flat over the vectors
    (K, D); the k best of each are among them."""
    if overlay.appended or not overlay.slots:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    blocked = filter_.blocked_slots()
    if filter_.selected_slots is None and blocked <= OVERFETCH * k:
        rows, scores = overlay.search_slots(vectors, k + blocked)
        if not blocked:
            return rows.ravel(), scores.ravel()
        kept = filter_.keep(rows)
        return rows[kept], scores[kept]
    rows, scores = overlay.search_slots(vectors, k, filter_.overlay_slots())
    return rows.ravel(), scores.ravel()


def _scan(state: State, filter_: Filter, vectors: F32, k: int, rows: I64) -> Candidates:
    """The best of these eligible rows (n,) of the bundle and of the overlay; no index is asked."""
    found = scan(state.snapshot.bundle.item_vectors, vectors, k, rows)
    live = _scan_overlay(state.overlay, filter_, vectors)
    return _merge(found, live, k)._replace(exact=True)


def _scan_overlay(overlay: Overlay, filter_: Filter, vectors: F32) -> tuple[I64, F32]:
    if not overlay.slots:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    slots = np.flatnonzero(filter_.overlay_slots())
    scores: F32 = (vectors @ overlay.vectors[slots].T).max(axis=0)
    return slots + overlay.base, scores


def _merge(found: tuple[I64, F32], live: tuple[I64, F32], k: int) -> Candidates:
    (rows, scores), (live_rows, live_scores) = found, live
    rows = np.concatenate([rows.ravel(), live_rows])
    return Candidates(*merge(rows, np.concatenate([scores.ravel(), live_scores]), k))
