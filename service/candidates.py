"""Where candidates come from: the neighbours of vectors, and what is popular."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from contract.arrays import F32, I32, I64, Bool
from contract.index.base import OVERFETCH, Answer, depth
from contract.index.exact import SMALL, ExactIndex, best_columns, scan
from contract.merge import merge
from service.filters import Filter
from service.overlay import Overlay
from service.selection import few
from service.state import State

WORTH_A_CALL = 1_000
"""So many more candidates are found in the time of one more call of the index, and of what is done
with its answer: 150 us, of a million items at D = 64."""


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
    if _is_small(state) and filter_.selection is None:
        return _score_all(state, [filter_], vectors[None], [k])[0]
    if (selection := filter_.selection) and (rows := selection.rows) is not None:
        return _scan_selected(state, filter_, vectors, k, rows, selection.vectors)
    found = state.overlay.search(
        vectors, _depth(state.overlay, filter_, k), filter_.selected_rows()
    )
    return _best(state, filter_, vectors, k, found)


def nearest_each(
    state: State, filters: Sequence[Filter], vectors: F32, ks: Sequence[int]
) -> list[Candidates]:
    """As `nearest` of each of B filters that select nothing, vectors (B, K, D) and k, with one call
    of the index for all that search it about as deep, or one product for a small catalogue."""
    if _is_small(state):
        return _score_all(state, filters, vectors, ks)
    overlay, interests = state.overlay, vectors.shape[1]
    best: dict[int, Candidates] = {}
    for met_many, k, count, group in _groups(overlay, filters, ks):
        rows, scores = overlay.search(vectors[group].reshape(-1, vectors.shape[2]), count)
        these = [filters[at] for at in group]
        found = None if met_many else _first(overlay, these, k, rows, scores)
        if found and overlay.unindexed:
            found = _joined(overlay, these, vectors[group], found)
        if found:
            lists = [Candidates(*one) for one in zip(*found, strict=True)]
            best |= zip(group, lists, strict=True)
            continue
        for n, at in enumerate(group):
            its = slice(n * interests, (n + 1) * interests)
            searched = rows[its], scores[its]
            best[at] = _best(state, filters[at], vectors[at], k, searched)
    return [best[at] for at in range(len(filters))]


class _Group(NamedTuple):
    """Those of a round who are searched together."""

    met_many: bool
    k: int
    depth: int
    members: list[int]

    def takes(self, other: "_Group") -> bool:
        """Whether those who need no such depth go along more cheaply than apart."""
        alike = self.met_many == other.met_many and self.k == other.k
        return alike and len(other.members) * (self.depth - other.depth) <= WORTH_A_CALL


def _groups(overlay: Overlay, filters: Sequence[Filter], ks: Sequence[int]) -> list[_Group]:
    alike = defaultdict[tuple[bool, int, int], list[int]](list)
    for at, (filter_, k) in enumerate(zip(filters, ks, strict=True)):
        alike[_met_many(overlay, filter_, k), k, _depth(overlay, filter_, k)].append(at)
    groups = list[_Group]()
    for key, members in sorted(alike.items(), reverse=True):
        group = _Group(*key, members)
        if groups and groups[-1].takes(group):
            groups[-1].members.extend(members)
        else:
            groups.append(group)
    return groups


def _is_small(state: State) -> bool:
    """Whether no index is asked, since all items are scored as fast."""
    overlay = state.overlay
    return isinstance(state.snapshot.index, ExactIndex) and overlay.base + overlay.slots <= SMALL


def _score_all(
    state: State, filters: Sequence[Filter], vectors: F32, ks: Sequence[int]
) -> list[Candidates]:
    """The best of all rows for each of B filters that select nothing, vectors (B, K, D) and k: what
    is not eligible has no score, so that nothing has to be found in its place."""
    overlay = state.overlay
    scores = _inner_products(vectors, state.snapshot.bundle.item_vectors)
    scores[:, overlay.dead] = -np.inf
    if overlay.slots:
        posted = _inner_products(vectors, overlay.vectors)
        posted[:, ~overlay.alive] = -np.inf
        scores = np.concatenate([scores, posted], axis=1)
    for its, filter_ in zip(scores, filters, strict=True):
        its[filter_.blocked] = -np.inf
    rows = best_columns(scores, max(ks))
    scores = np.take_along_axis(scores, rows, axis=1)
    eligible = np.minimum(np.isfinite(scores).sum(axis=1), ks).tolist()
    return [
        Candidates(its[:count], own[:count])
        for its, own, count in zip(rows, scores, eligible, strict=True)
    ]


def _inner_products(vectors: F32, items: F32) -> F32:
    """vectors (B, K, D), items (n, D) -> (B, n): an item's score is that of the nearest vector."""
    count, interests, dim = vectors.shape
    found: F32 = vectors.reshape(-1, dim) @ items.T
    return found if interests == 1 else found.reshape(count, interests, -1).max(axis=1)


def _first(
    overlay: Overlay, filters: Sequence[Filter], k: int, rows: I64, scores: F32
) -> Answer | None:
    """Of rows and scores (B K, depth) that were searched, the best k that are eligible (B, k), for
    all at once. None where a list has fewer."""
    count = len(filters)
    kept = _eligible(overlay, filters, rows.reshape(count, -1)).reshape(rows.shape)
    kept &= kept.cumsum(axis=1, dtype=np.int32) <= k
    if np.count_nonzero(kept) < len(rows) * k:
        return None
    first = rows[kept].reshape(count, -1), scores[kept].reshape(count, -1)
    return first if len(rows) == count else _distinct(*first, k)


def _joined(overlay: Overlay, filters: Sequence[Filter], vectors: F32, found: Answer) -> Answer:
    """The best k of what was found in the bundle (B, k) and of the overlay's rows, for vectors
    (B, K, D). Nobody has met many of these."""
    (count, k), dim = found[0].shape, vectors.shape[2]
    blocked = max(filter_.blocked_slots() for filter_ in filters)
    rows, scores = overlay.search_slots(vectors.reshape(-1, dim), k + blocked)
    rows, scores = rows.reshape(count, -1), scores.reshape(count, -1)
    # Of equal scores the lower row counts, which is the bundle's.
    kept = _eligible(overlay, filters, rows) & (scores > found[1][:, -1:])
    if not kept.any():
        return found
    rows = np.concatenate([found[0], rows], axis=1)
    scores = np.concatenate([found[1], np.where(kept, scores, np.float32(-np.inf))], axis=1)
    return _distinct(rows, scores, k)


def _distinct(rows: I64, scores: F32, k: int) -> Answer:
    """The best k of rows (B, n) that may stand several times, with the best score of each: as
    `merge` of each."""
    by_row = np.lexsort((-scores, rows))
    rows, scores = np.take_along_axis(rows, by_row, 1), np.take_along_axis(scores, by_row, 1)
    scores[:, 1:][rows[:, 1:] == rows[:, :-1]] = -np.inf
    best = np.lexsort((rows, -scores))[:, :k]
    return np.take_along_axis(rows, best, 1), np.take_along_axis(scores, best, 1)


def _eligible(overlay: Overlay, filters: Sequence[Filter], rows: I64) -> Bool:
    """As `Filter.keep` of each filter for its rows (B, n)."""
    kept: Bool = (rows >= 0) & overlay.lives(rows)
    for own, its, filter_ in zip(kept, rows, filters, strict=True):
        if len(filter_.blocked):
            own &= ~overlay.marks.among(its, filter_.blocked)
    return kept


def _best(state: State, filter_: Filter, vectors: F32, k: int, searched: Answer) -> Candidates:
    """Of what the first search found for the vectors (K, D)."""
    overlay = state.overlay
    if found := _kept(filter_, k, *searched):
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


def _depth(overlay: Overlay, filter_: Filter, k: int) -> int:
    return min(overlay.searched, depth(k, filter_.most_removed()))


def _met_many(overlay: Overlay, filter_: Filter, k: int) -> bool:
    """Whether so many of the overlay's rows that no index holds are blocked that a search of them
    has to know which."""
    return overlay.unindexed and filter_.blocked_slots() > OVERFETCH * k


def _kept(filter_: Filter, k: int, rows: I64, scores: F32) -> tuple[I64, F32] | None:
    """The eligible ones of the rows (K, depth) that were searched with their scores, flat; the k
    best of each vector are among them. None where what is not eligible left too few."""
    kept = filter_.keep(rows)
    few = min(k, rows.shape[1])
    if filter_.most_removed() > OVERFETCH * k and bool((kept.sum(axis=1) < few).any()):
        return None
    return rows[kept], scores[kept]


def _search_overlay(overlay: Overlay, filter_: Filter, vectors: F32, k: int) -> tuple[I64, F32]:
    """Eligible rows of the overlay that no index holds with their scores, flat over the vectors
    (K, D); the k best of each are among them."""
    if not overlay.unindexed:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    if filter_.selected_slots is None and not _met_many(overlay, filter_, k):
        blocked = filter_.blocked_slots()
        rows, scores = overlay.search_slots(vectors, k + blocked)
        if not blocked:
            return rows.ravel(), scores.ravel()
        kept = filter_.keep(rows)
        return rows[kept], scores[kept]
    rows, scores = overlay.search_slots(vectors, k, filter_.overlay_slots())
    return rows.ravel(), scores.ravel()


def _scan_selected(
    state: State, filter_: Filter, vectors: F32, k: int, selected: I64, gathered: F32 | None
) -> Candidates:
    """The best of the eligible ones among the rows that the request is for, whose vectors are
    `gathered` or not, and of the overlay."""
    kept = filter_.keep(selected)
    if gathered is None:
        return _scan(state, filter_, vectors, k, selected[kept])
    scores = vectors @ gathered.T
    scores[:, ~kept] = -np.inf
    best = best_columns(scores, k)
    scores = np.take_along_axis(scores, best, axis=1)
    rows = np.where(np.isfinite(scores), selected[best], -1)
    live = _scan_overlay(state.overlay, filter_, vectors)
    return _merge((rows, scores), live, k)._replace(exact=True)


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
