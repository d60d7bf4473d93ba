"""What users did since the bundle: their live events, kept in memory, bounded per user."""

from collections import deque
from collections.abc import Iterable


class LiveUsers:
    """User id -> the ids of the items they touched, oldest first, and the flags of each touch.

    Ids, not rows: an item may be posted after the event that names it.
    """

    def __init__(self, max_events: int) -> None:
        self._events: dict[str, deque[tuple[str, int]]] = {}
        self._seqs: dict[str, int] = {}
        self._max_events = max_events

    def __len__(self) -> int:
        return len(self._events)

    def add(self, user_id: str, item_id: str, flags: int, seq: int) -> None:
        """`flags` as in contract.kinds; an event that counts as nothing is not kept. `seq` is its
        journal position."""
        if not flags:
            return
        events = self._events.get(user_id)
        if events is None:
            events = self._events[user_id] = deque(maxlen=self._max_events)
        events.append((item_id, flags))
        self._seqs[user_id] = seq

    def seq(self, user_id: str) -> int:
        """The journal position of the user's last event; 0 without one."""
        return self._seqs.get(user_id, 0)

    def events(self, user_id: str) -> Iterable[tuple[str, int]]:
        """Item ids and flags, oldest first."""
        return self._events.get(user_id, ())
