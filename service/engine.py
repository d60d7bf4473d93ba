"""The recall: from a request to k items. No I/O, no globals, no waiting.

A request takes one state and uses it to the end. The promise: k items whenever k eligible items
exist, whatever the filters.
"""

from collections.abc import Sequence
from time import perf_counter

import numpy as np

from contract.arrays import F32
from contract.kinds import history_of
from service.answer import Answer, Source, Stages
from service.asker import Asker, identify
from service.blend import blend
from service.candidates import Candidates, nearest, nearest_each, popular
from service.explain import explanation, shown
from service.filters import Filter, filter_of
from service.listed import Listed
from service.request import Blend, Recall
from service.sources import Query
from service.state import State
from service.towers import FEW


class _Clock:
    """Seconds by stage of one recall."""

    def __init__(self) -> None:
        self.stages = Stages()
        self._last = perf_counter()

    def lap(self, stage: str) -> None:
        now = perf_counter()
        setattr(self.stages, stage, now - self._last)
        self._last = now


def recall(state: State, request: Recall) -> Answer:
    """Raises FeatureError for a profile that the schema cannot encode, MalformedRequest for what
    this bundle's items cannot be asked."""
    clock = _Clock()
    asker = identify(state, request)
    filter_ = filter_of(state, request, asker.seen)
    vectors = _vectors(state, asker, clock)
    if request.blend is not None:
        return _blended(Query(state, asker, vectors), filter_, request, request.blend, clock)
    if vectors is None:
        found = popular(state, filter_, asker.segment, request.k)
    else:
        found = nearest(state, filter_, vectors, request.k)
    return _answer(state, found, asker.source, clock)


def recall_each(state: State, requests: Sequence[Recall]) -> list[Answer]:
    """As `recall` of each of these plain requests, with one call of the tower and one of the index
    for FEW of them. Each is said to have taken its share of the time."""
    parts = (requests[at : at + FEW] for at in range(0, len(requests), FEW))
    return [answer for part in parts for answer in _recall_few(state, part)]


def _recall_few(state: State, requests: Sequence[Recall]) -> list[Answer]:
    clock = _Clock()
    askers = [identify(state, request) for request in requests]
    known = [
        (request, asker)
        for request, asker in zip(requests, askers, strict=True)
        if asker.source != "fallback"
    ]
    together = iter(_together(state, known, clock) if known else ())
    return [
        recall(state, request) if asker.source == "fallback" else next(together)
        for request, asker in zip(requests, askers, strict=True)
    ]


def _together(state: State, known: Sequence[tuple[Recall, Asker]], clock: _Clock) -> list[Answer]:
    """Of whom something is known, at most FEW."""
    filters = [filter_of(state, request, asker.seen) for request, asker in known]
    askers = [asker for _, asker in known]
    _place(state, askers)
    clock.lap("encode")
    profiles = [asker.profile for asker in askers]
    vectors = state.snapshot.embed_users([asker.row for asker in askers], profiles)
    clock.lap("tower")
    found = nearest_each(state, filters, vectors, [request.k for request, _ in known])
    clock.lap("search")
    lists = [Listed(state.overlay, one.rows, one.scores) for one in found]
    clock.lap("merge")
    stages = clock.stages.share(len(known))
    return [
        Answer(items, asker.source, one.widened, one.exact, stages)
        for items, asker, one in zip(lists, askers, found, strict=True)
    ]


def similar(state: State, item_id: str, k: int) -> Answer:
    """The items whose vectors are nearest to that of an item. Raises UnknownItem."""
    row = state.overlay.require(item_id)
    filter_ = Filter(state.overlay, np.array([row], np.int64))
    vector = state.overlay.item_vectors(np.array([row], np.int64))
    return _answer(state, nearest(state, filter_, vector, k), "model", _Clock())


def _vectors(state: State, asker: Asker, clock: _Clock) -> F32 | None:
    """The user vectors (K, D); None for someone of whom nothing is known."""
    if asker.source == "fallback":
        clock.lap("encode")
        return None
    _place(state, [asker])
    clock.lap("encode")
    vectors: F32 = state.snapshot.embed_users([asker.row], [asker.profile])[0]
    clock.lap("tower")
    return vectors


def _place(state: State, askers: Sequence[Asker]) -> None:
    """Their histories into the places of the user tower."""
    length = state.snapshot.history_length()
    recent = [asker.history[-length:] for asker in askers]
    tower = state.snapshot.user_tower
    places = tower.places([len(rows) for rows in recent])
    for rows, place in zip(recent, places, strict=True):
        state.overlay.put_history(rows, place)
    if tower.tells_apart:
        tower.tell_apart([history_of(asker.flags[-length:]) for asker in askers])


def _answer(state: State, found: Candidates, source: Source, clock: _Clock) -> Answer:
    clock.lap("search")
    items = Listed(state.overlay, found.rows, found.scores)
    clock.lap("merge")
    return Answer(items, source, found.widened, found.exact, clock.stages)


def _blended(
    query: Query, filter_: Filter, request: Recall, wanted: Blend, clock: _Clock
) -> Answer:
    blending = blend(query, filter_, request, wanted)
    clock.lap("search")
    items = shown(query, blending, wanted)
    why = explanation(query, filter_, request, blending) if wanted.explain else None
    clock.lap("merge")
    source = query.asker.source if blending.personal else "fallback"
    return Answer(items, source, blending.widened, blending.exact, clock.stages, why)
