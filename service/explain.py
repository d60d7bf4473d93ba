"""Why the items of a blended list are in it, and what the filters kept out of it."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from contract.arrays import I64
from contract.merge import merge
from service.answer import Blended, Explained, Explanation, Item, Place, Reasons, Removed, as_sent
from service.blend import Blending
from service.filters import Filter
from service.request import Blend, Recall, SourceName
from service.sources import Query

Places = Mapping[SourceName, Place]


def shown(query: Query, blending: Blending, wanted: Blend) -> Sequence[Item]:
    """The items as they are answered: with their sources where several were asked, with all that is
    known of each where that was asked for."""
    overlay = query.state.overlay
    scores = as_sent(np.array([pick.score for pick in blending.picks], np.float32))
    parts: list[tuple[str, float, Literal["bundle", "overlay"]]] = [
        (overlay.id_of(pick.row), score, "bundle" if pick.row < overlay.base else "overlay")
        for pick, score in zip(blending.picks, scores, strict=True)
    ]
    if not wanted.explain and len(wanted.sources) == 1:
        return [Item(*part) for part in parts]
    places = _places(blending)
    if not wanted.explain:
        return [Blended(*part, list(p)) for part, p in zip(parts, places, strict=True)]
    reasons = _reasons(query, blending, places)
    return [
        Explained(*part, list(reason.sources), reason)
        for part, reason in zip(parts, reasons, strict=True)
    ]


def explanation(query: Query, filter_: Filter, request: Recall, blending: Blending) -> Explanation:
    """Of the list as a whole."""
    candidates = len(np.unique(np.concatenate([found.rows for found in blending.found])))
    return Explanation(candidates, _removed(query, filter_, request))


def _places(blending: Blending) -> list[Places]:
    """Of each item of the list, the sources that gave it, and where it stood in them."""
    wanted = np.array([pick.row for pick in blending.picks], np.int64)
    places: dict[int, dict[SourceName, Place]] = {row: {} for row in wanted.tolist()}
    for found in blending.found:
        for name, (rows, scores, *_) in found.lists.items():
            among = np.flatnonzero(np.isin(rows, wanted))
            for at, score in zip(among.tolist(), as_sent(scores[among]), strict=True):
                places[int(rows[at])].setdefault(name, Place(found.before + at + 1, score))
    return list(places.values())


def _reasons(query: Query, blending: Blending, places: Sequence[Places]) -> list[Reasons]:
    parts = zip(blending.picks, places, _interests(query, blending), strict=True)
    return [
        Reasons(sources, interest, pick.relevance, pick.similarity, pick.others, pick.explored)
        for pick, sources, interest in parts
    ]


def _interests(query: Query, blending: Blending) -> list[int] | list[None]:
    if query.vectors is None:
        return [None] * len(blending.picks)
    rows = np.array([pick.row for pick in blending.picks], np.int64)
    scores = query.vectors @ query.state.overlay.item_vectors(rows).T
    nearest: list[int] = scores.argmax(axis=0).tolist()
    return nearest


def _removed(query: Query, filter_: Filter, request: Recall) -> Removed:
    overlay = query.state.overlay
    rows = _neighbours(query, request.k)
    gone = ~overlay.lives(rows)
    seen = ~gone & np.isin(rows, query.asker.seen)
    excluded = ~(gone | seen) & np.isin(rows, overlay.rows(request.exclude))
    others = ~(gone | seen | excluded | filter_.admits(rows))
    return Removed(*(int(part.sum()) for part in (gone, seen, excluded, others)))


def _neighbours(query: Query, k: int) -> I64:
    """The first k of all items, eligible or not."""
    overlay = query.state.overlay
    if query.vectors is None:
        bundle = query.state.snapshot.bundle
        return overlay.current(bundle.popular_rows[query.asker.segment].astype(np.int64))[:k]
    found = overlay.search(query.vectors, k)
    rows, scores = found[0].ravel(), found[1].ravel()
    if not overlay.appended:
        rows = np.concatenate([rows, np.arange(overlay.slots) + overlay.base])
        live = (query.vectors @ overlay.vectors.T).max(axis=0)
        scores = np.concatenate([scores, live])
    return merge(rows, scores, k)[0]
