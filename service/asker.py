"""Who asks: a known user, a session, a profile, or nobody."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from contract.arrays import I64, U8
from contract.errors import FeatureError
from contract.features import Encoded
from contract.ids import UNKNOWN
from contract.kinds import COUNTS, HISTORY, SEEN
from service.answer import Source
from service.request import Recall
from service.state import State
from service.users import NOTHING


class Asker(NamedTuple):
    row: int
    profile: Encoded
    history: I64
    flags: U8
    """Of each item of `history`, as in contract.kinds."""
    seen: I64
    source: Source
    segment: int
    """Of users, by which popularity is told apart; 0: all users."""


def identify(state: State, request: Recall) -> Asker:
    """Raises FeatureError for a profile that the schema cannot encode."""
    bundle = state.snapshot.bundle
    row = bundle.user_ids.row(request.user_id) if request.user_id is not None else UNKNOWN
    touched, flags = _touched(state, request.user_id, row)
    whole = bool((flags & COUNTS == COUNTS).all())
    seen = touched if whole else touched[flags & SEEN != 0]
    if request.history is None:
        read = slice(None) if whole else flags & HISTORY != 0
        history, flags = touched[read], flags[read]
    else:
        history, flags = _given(state, request.history, request.kinds)
        seen = np.concatenate([seen, history])
    if row != UNKNOWN and (len(history) or request.features or _described(state, row)):
        source: Source = "model"
    elif len(history):
        source = "session"
    elif request.features and state.snapshot.reads_profile:
        source = "model"
    else:
        source = "fallback"
    profile = _profile(state, request, row)
    return Asker(row, profile, history, flags, seen, source, _segment(state, profile))


def _touched(state: State, user_id: str | None, row: int) -> tuple[I64, U8]:
    """Rows of all that a user touched, oldest first, and the flags of each touch: first the
    bundle's, then the live ones."""
    if row != UNKNOWN:
        known, flags = state.snapshot.bundle.user_items(row)
    else:
        known, flags = np.empty(0, np.int32), np.empty(0, np.uint8)
    rows = state.overlay.current(known.astype(np.int64))
    live = state.users.touched(user_id) if user_id is not None else NOTHING
    if not len(live.rows):
        return rows, flags
    return np.concatenate([rows, live.rows]), np.concatenate([flags, live.flags])


def _given(state: State, history: Sequence[str], kinds: Sequence[str | None]) -> tuple[I64, U8]:
    """Of the items that are known, the rows, and flags as of events of these kinds."""
    if not kinds:
        rows = state.overlay.rows(history)
        return rows, np.zeros(len(rows), np.uint8)
    manifest = state.snapshot.bundle.manifest
    flags = [manifest.events.flags(kind, manifest.features.histories) for kind in kinds]
    rows = np.array([state.overlay.row(item_id) for item_id in history], np.int64)
    known = rows != UNKNOWN
    return rows[known], np.array(flags, np.uint8)[known]


def _described(state: State, row: int) -> bool:
    """Whether the bundle has a profile or an identity of a user: not where a compaction has taken
    them in from events."""
    bundle = state.snapshot.bundle
    identity = bundle.user_identity
    return bool(
        bundle.users.codes[row].any()
        or bundle.users.numbers[row].any()
        or (identity[row + 1] != identity[0]).any()
    )


def _segment(state: State, profile: Encoded) -> int:
    column = state.snapshot.segment_column
    return int(profile.codes[0, column]) if column is not None else 0


def _profile(state: State, request: Recall, row: int) -> Encoded:
    bundle = state.snapshot.bundle
    if request.features is not None or row == UNKNOWN:
        try:
            return bundle.manifest.features.users.encode([request.features or {}])
        except FeatureError as error:
            raise FeatureError(f"features: {error}") from error
    return Encoded(bundle.users.codes[row : row + 1], bundle.users.numbers[row : row + 1])
