"""Answers kept in memory, under everything that they depend on.

Nothing is ever thrown out for being stale: a delete, a new item, an event of the user or a swap
changes the key, and the old answer is no longer found.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

from service.answer import Source
from service.metrics import Metrics
from service.request import Recall
from service.state import State

Key = bytes


@dataclass(frozen=True)
class Kept:
    """An answer as it is sent, without the journal position at its end, and where it came from."""

    body: bytes
    source: Source


class Cache:
    """The last answers of one worker, at most `entries` of them; of none, nothing is looked up."""

    def __init__(self, entries: int, metrics: Metrics) -> None:
        self._entries, self._metrics = entries, metrics
        self._kept = OrderedDict[Key, Kept]()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, variant: str, state: State, request: Recall, make: Callable[[], Kept]) -> Kept:
        """The answer to this request in this state; made where it is not there."""
        if not self._entries:
            return make()
        key = _key(variant, state, request)
        kept = self._kept.get(key)
        self._metrics.cache_lookups.labels("hit" if kept else "miss").inc()
        if kept is None:
            kept = self._kept[key] = make()
            if len(self._kept) > self._entries:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return kept


def _key(variant: str, state: State, request: Recall) -> Key:
    # By repr and not as JSON, which writes NaN as null.
    asked = repr((variant, state.snapshot.version, state.position(request.user_id), request))
    return blake2b(asked.encode(), digest_size=16).digest()
