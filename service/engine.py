"""The recall: from a request to k items. No I/O, no globals, no waiting.

A request takes one state and uses it to the end. The promise: k items whenever k eligible items
exist, whatever the filters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal

import numpy as np

from contract.arrays import F32, I64, Bool
from contract.errors import FeatureError
from contract.features import Encoded
from contract.ids import UNKNOWN
from contract.journal import Record
from contract.merge import merge
from service.filters import Filter
from service.overlay import Overlay
from service.snapshot import Snapshot, pad_history
from service.users import LiveUsers

Source = Literal["model", "session", "fallback"]

OVERFETCH = 4
"""A first search asks for at most this many times k; beyond it the filter goes into the search."""


@dataclass(frozen=True, eq=False)
class State:
    """One snapshot and what was written online since it, up to journal position `seq`."""

    snapshot: Snapshot
    overlay: Overlay
    users: LiveUsers

    @classmethod
    def of(cls, snapshot: Snapshot, max_user_events: int, journal: int) -> "State":
        """Before any record of the journal of this identity."""
        return cls(snapshot, Overlay(snapshot, journal), LiveUsers(max_user_events))

    def apply(self, records: Sequence[Record]) -> None:
        """Take in journal records that follow those already applied."""
        self.overlay.apply(records)
        for record in records:
            if record.kind == "event":
                self.users.add(record.body["user_id"], record.body["item_id"])


@dataclass(frozen=True)
class Request:
    k: int
    user_id: str | None = None
    history: Sequence[str] | None = None
    """Item ids, oldest first, instead of what the service knows of the user."""
    features: Mapping[str, Any] | None = None
    """The profile, instead of the known one."""
    exclude: Sequence[str] = ()
    category: str | None = None


@dataclass(frozen=True)
class Item:
    item_id: str
    score: float
    source: Literal["bundle", "overlay"]


@dataclass
class Stages:
    """Seconds spent in each stage of one recall."""

    encode: float = 0.0
    tower: float = 0.0
    search: float = 0.0
    merge: float = 0.0

    @property
    def total(self) -> float:
        return self.encode + self.tower + self.search + self.merge


@dataclass(frozen=True)
class Answer:
    items: list[Item]
    source: Source
    widened: bool = False
    """Whether the first search left fewer than k, so that the filter had to go into a second."""
    stages: Stages = field(default_factory=Stages)


def recall(state: State, request: Request) -> Answer:
    """Raises FeatureError for a profile that the schema cannot encode."""
    stages = Stages()
    started = perf_counter()
    user = _user(state, request)
    filter_ = _filter(state, request, user.seen)
    if user.source == "fallback":
        return _fallback(state, filter_, request.k, stages, started)
    rows = user.history[-state.snapshot.history_length() :]
    history, mask = pad_history(
        state.overlay.history_vectors(rows), state.snapshot.history_length()
    )
    stages.encode = _lap(started)
    vectors = state.snapshot.embed_user(user.row, user.profile, history, mask)
    stages.tower = _lap(started, stages)
    return _nearest(state, filter_, vectors, request.k, user.source, stages, started)


def similar(state: State, item_id: str, k: int) -> Answer:
    """The items whose vectors are nearest to that of an item. Raises UnknownItem."""
    row = state.overlay.require(item_id)
    stages, started = Stages(), perf_counter()
    filter_ = Filter(state.overlay, np.array([row], np.int64))
    vector = state.overlay.item_vector(row)[None]
    return _nearest(state, filter_, vector, k, "model", stages, started)


@dataclass(frozen=True, eq=False)
class _User:
    row: int
    profile: Encoded
    history: I64
    seen: I64
    source: Source


def _user(state: State, request: Request) -> _User:
    bundle = state.snapshot.bundle
    row = bundle.user_ids.row(request.user_id) if request.user_id is not None else UNKNOWN
    seen = _seen(state, request.user_id, row)
    history = seen
    if request.history is not None:
        history = state.overlay.rows(request.history)
        seen = np.concatenate([seen, history])
    if row != UNKNOWN:
        source: Source = "model"
    elif len(history):
        source = "session"
    else:
        source = "model" if request.features else "fallback"
    return _User(row, _profile(state, request, row), history, seen, source)


def _seen(state: State, user_id: str | None, row: int) -> I64:
    """Rows of all that a user touched, oldest first: the bundle's, then the live ones."""
    known = state.snapshot.bundle.user_items(row) if row != UNKNOWN else np.empty(0, np.int32)
    live = state.users.items(user_id) if user_id is not None else ()
    rows = state.overlay.current(known.astype(np.int64))
    return np.concatenate([rows, state.overlay.rows(live)]) if live else rows


def _profile(state: State, request: Request, row: int) -> Encoded:
    bundle = state.snapshot.bundle
    if request.features is not None or row == UNKNOWN:
        try:
            return bundle.manifest.features.users.encode([request.features or {}])
        except FeatureError as error:
            raise FeatureError(f"features: {error}") from error
    return Encoded(bundle.users.codes[row : row + 1], bundle.users.numbers[row : row + 1])


def _filter(state: State, request: Request, seen: I64) -> Filter:
    excluded = state.overlay.rows(request.exclude)
    blocked = np.concatenate([seen, excluded]) if len(excluded) else seen
    return Filter(state.overlay, blocked, _category(state, request.category))


def _category(state: State, category: str | None) -> tuple[Bool, Bool] | None:
    if category is None:
        return None
    snapshot, overlay = state.snapshot, state.overlay
    base = snapshot.category_rows(category)
    live = snapshot.in_category(overlay.codes, category)
    none = np.zeros(overlay.base, np.bool_)
    if base is None or live is None:
        return none, np.zeros(overlay.slots, np.bool_)
    return base, live


def _nearest(
    state: State,
    filter_: Filter,
    vectors: F32,
    k: int,
    source: Source,
    stages: Stages,
    started: float,
) -> Answer:
    """The k eligible items nearest to any of the vectors (K, D)."""
    rows, scores, widened = _search(state.overlay, filter_, vectors, k)
    live_rows, live_scores = _search_overlay(state.overlay, filter_, vectors)
    stages.search = _lap(started, stages)
    best, best_scores = merge(
        np.concatenate([rows, live_rows]), np.concatenate([scores, live_scores]), k
    )
    items = _items(state, best, best_scores)
    stages.merge = _lap(started, stages)
    return Answer(items, source, widened, stages)


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


def _fallback(state: State, filter_: Filter, k: int, stages: Stages, started: float) -> Answer:
    stages.encode = _lap(started)
    rows, scores = _popular(state, filter_, k)
    stages.search = _lap(started, stages)
    items = _items(state, rows, scores)
    stages.merge = _lap(started, stages)
    return Answer(items, "fallback", stages=stages)


def _popular(state: State, filter_: Filter, k: int) -> tuple[I64, F32]:
    """The k most popular eligible rows with their share of all interactions, then new items, the
    newest first, with score zero."""
    snapshot, overlay = state.snapshot, state.overlay
    eligible = filter_.bundle_rows()
    popular = snapshot.popular[eligible[snapshot.popular]][:k].astype(np.int64)
    slots = np.flatnonzero(filter_.overlay_slots())[::-1]
    rows = np.concatenate([popular, slots + overlay.base])
    counts: F32 = np.concatenate([snapshot.bundle.popularity[popular], overlay.popularity[slots]])
    best = np.argsort(-counts, kind="stable")[:k]
    shares: F32 = counts[best] / snapshot.interactions
    return rows[best], shares


def _items(state: State, rows: I64, scores: F32) -> list[Item]:
    base = state.overlay.base
    return [
        Item(state.overlay.id_of(row), score, "bundle" if row < base else "overlay")
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
    ]


def _lap(started: float, stages: Stages | None = None) -> float:
    """Seconds since `started` that no earlier stage has taken."""
    taken = stages.encode + stages.tower + stages.search if stages else 0.0
    return perf_counter() - started - taken
