"""What users did since the bundle: their live events, kept in memory, bounded per user."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

from contract.arrays import I64, U8
from contract.ids import UNKNOWN
from service.overlay import Overlay
from service.recent import Recent

FOUND_BYTES = 32 * 2**20
"""What was found of the users asked for last may take together."""
FOUND_COST = 700
"""Of a user, beside the arrays: measured."""


@dataclass(slots=True)
class _Events:
    """Of one user."""

    last: deque[tuple[str, int]]
    """Item ids and flags, oldest first."""
    added: int = 0
    """So many were there, those that are gone included."""
    seq: int = 0


class Touches(NamedTuple):
    """The items that a user touched, oldest first. Not to be changed."""

    rows: I64
    flags: U8
    """Of each touch, as in contract.kinds."""


class _Found(NamedTuple):
    """The rows of a user's events, when so many had been added and the overlay had so many slots:
    nothing else moves an item to another row."""

    added: int
    slots: int
    all: Touches
    """Of each event that is kept; row -1 for an item that is unknown."""
    known: Touches

    @property
    def nbytes(self) -> int:
        distinct = (self.all,) if self.known is self.all else (self.all, self.known)
        return sum(array.nbytes for touches in distinct for array in touches)


NOTHING = Touches(np.empty(0, np.int64), np.empty(0, np.uint8))
NEVER = _Found(0, 0, NOTHING, NOTHING)


class LiveUsers:
    """User id -> the ids of the items they touched, oldest first, and the flags of each touch.

    Ids, not rows: an item may be posted after the event that names it. The rows of those who ask
    are kept as well, and only what has changed since is looked up again.
    """

    def __init__(self, overlay: Overlay, max_events: int) -> None:
        """`overlay` has the rows."""
        self._overlay, self._max_events = overlay, max_events
        self._events: dict[str, _Events] = {}
        self._found = Recent[str, _Found](FOUND_BYTES, _cost)

    def __len__(self) -> int:
        return len(self._events)

    def add(self, user_id: str, item_id: str, flags: int, seq: int) -> None:
        """`flags` as in contract.kinds; an event that counts as nothing is not kept. `seq` is its
        journal position."""
        if not flags:
            return
        events = self._events.get(user_id)
        if events is None:
            events = self._events[user_id] = _Events(deque(maxlen=self._max_events))
        events.last.append((item_id, flags))
        events.added += 1
        events.seq = seq

    def seq(self, user_id: str) -> int:
        """The journal position of the user's last event; 0 without one."""
        events = self._events.get(user_id)
        return events.seq if events else 0

    def events(self, user_id: str) -> Iterable[tuple[str, int]]:
        """Item ids and flags, oldest first."""
        events = self._events.get(user_id)
        return events.last if events else ()

    def touched(self, user_id: str) -> Touches:
        """Those of the events whose items are known now."""
        events = self._events.get(user_id)
        if events is None:
            return NOTHING
        found = self._found.get(user_id) or NEVER
        if (found.added, found.slots) != (events.added, self._overlay.slots):
            found = self._find(events, found)
            self._found.put(user_id, found)
        return found.known

    def _find(self, events: _Events, before: _Found) -> _Found:
        """`before` is what was found last."""
        new = min(events.added - before.added, len(events.last))
        still = slice(len(before.all.rows) - (len(events.last) - new), None)
        latest = list(islice(events.last, len(events.last) - new, None))
        rows = [self._overlay.row(item_id) for item_id, _ in latest]
        touches = Touches(
            np.concatenate([before.all.rows[still], np.array(rows, np.int64)]),
            np.concatenate([before.all.flags[still], np.array([f for _, f in latest], np.uint8)]),
        )
        if before.slots != self._overlay.slots:
            self._move(touches.rows, events.last)
        is_known = touches.rows != UNKNOWN
        known = touches
        if not is_known.all():
            known = Touches(touches.rows[is_known], touches.flags[is_known])
        return _Found(events.added, self._overlay.slots, touches, known)

    def _move(self, rows: I64, events: deque[tuple[str, int]]) -> None:
        """Bring the rows of these events to where the items are now: those of the bundle may have
        been replaced, those that were unknown may have been posted."""
        in_bundle = (rows != UNKNOWN) & (rows < self._overlay.base)
        rows[in_bundle] = self._overlay.current(rows[in_bundle])
        for at in np.flatnonzero(rows == UNKNOWN).tolist():
            rows[at] = self._overlay.row(events[at][0])


def _cost(user_id: str, found: _Found) -> int:
    return FOUND_COST + found.nbytes
