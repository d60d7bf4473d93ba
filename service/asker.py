"""Who asks: a known user, a session, a profile, or nobody."""

from dataclasses import dataclass

import numpy as np

from contract.arrays import I64
from contract.errors import FeatureError
from contract.features import Encoded
from contract.ids import UNKNOWN
from service.answer import Source
from service.request import Recall
from service.state import State


@dataclass(frozen=True, eq=False)
class Asker:
    row: int
    profile: Encoded
    history: I64
    seen: I64
    source: Source
    segment: int
    """Of users, by which popularity is told apart; 0: all users."""


def identify(state: State, request: Recall) -> Asker:
    """Raises FeatureError for a profile that the schema cannot encode."""
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
    elif request.features and state.snapshot.reads_profile:
        source = "model"
    else:
        source = "fallback"
    profile = _profile(state, request, row)
    return Asker(row, profile, history, seen, source, _segment(state, profile))


def _seen(state: State, user_id: str | None, row: int) -> I64:
    """Rows of all that a user touched, oldest first: the bundle's, then the live ones."""
    known = state.snapshot.bundle.user_items(row) if row != UNKNOWN else np.empty(0, np.int32)
    live = state.users.items(user_id) if user_id is not None else ()
    rows = state.overlay.current(known.astype(np.int64))
    return np.concatenate([rows, state.overlay.rows(live)]) if live else rows


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
