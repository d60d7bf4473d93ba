"""The recall: from a request to k items. No I/O, no globals, no waiting.

A request takes one state and uses it to the end. The promise: k items whenever k eligible items
exist, whatever the filters.
"""

from time import perf_counter

import numpy as np

from contract.arrays import F32
from service.answer import Answer, Item, Source, Stages
from service.asker import Asker, identify
from service.blend import blend
from service.candidates import Candidates, nearest, popular
from service.explain import explanation, shown
from service.filters import Filter, filter_of
from service.request import Blend, Recall
from service.sources import Query
from service.state import State


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


def similar(state: State, item_id: str, k: int) -> Answer:
    """The items whose vectors are nearest to that of an item. Raises UnknownItem."""
    row = state.overlay.require(item_id)
    filter_ = Filter(state.overlay, np.array([row], np.int64))
    vector = state.overlay.item_vectors(np.array([row], np.int64))
    return _answer(state, nearest(state, filter_, vector, k), "model", _Clock())


class _Clock:
    """Seconds by stage of one recall."""

    def __init__(self) -> None:
        self.stages = Stages()
        self._last = perf_counter()

    def lap(self, stage: str) -> None:
        now = perf_counter()
        setattr(self.stages, stage, now - self._last)
        self._last = now


def _vectors(state: State, asker: Asker, clock: _Clock) -> F32 | None:
    """The user vectors (K, D); None for someone of whom nothing is known."""
    if asker.source == "fallback":
        clock.lap("encode")
        return None
    recent = asker.history[-state.snapshot.history_length() :]
    history = state.overlay.history_vectors(recent)
    clock.lap("encode")
    vectors = state.snapshot.embed_user(asker.row, asker.profile, history)
    clock.lap("tower")
    return vectors


def _answer(state: State, found: Candidates, source: Source, clock: _Clock) -> Answer:
    clock.lap("search")
    base, ids = state.overlay.base, state.overlay.ids_of(found.rows)
    items = [
        Item(item_id, score, "bundle" if row < base else "overlay")
        for row, item_id, score in zip(found.rows.tolist(), ids, found.scores.tolist(), strict=True)
    ]
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
    return Answer(items, source, blending.widened, stages=clock.stages, explain=why)
