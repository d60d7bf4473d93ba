"""Answers kept in memory, under everything that they depend on.

Nothing is ever thrown out for being stale: a delete, a new item, an event of the user or a swap
changes the key, and the old answer is no longer found.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
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
        self._entries = entries
        self._hits = metrics.cache_lookups.labels("hit")
        self._misses = metrics.cache_lookups.labels("miss")
        self._kept = OrderedDict[Key, Kept]()

    def __len__(self) -> int:
        return len(self._kept)

    def find(
        self,
        variant: str,
        state: State,
        requests: Sequence[Recall],
        make: Callable[[Sequence[Recall]], Sequence[Kept]],
    ) -> Sequence[Kept]:
        """The answers to these requests in this state; those that are not there are made."""
        if not self._entries:
            return make(requests)
        keys = [_key(variant, state, request) for request in requests]
        missed = {
            key: request
            for key, request in zip(keys, requests, strict=True)
            if key not in self._kept
        }
        self._misses.inc(len(missed))
        self._hits.inc(len(keys) - len(missed))
        made = dict(zip(missed, make(list(missed.values())), strict=True)) if missed else {}
        found = [made.get(key) or self._kept[key] for key in keys]
        self._kept |= made
        for key in keys:
            self._kept.move_to_end(key)
        while len(self._kept) > self._entries:
            self._kept.popitem(last=False)
        return found


def _key(variant: str, state: State, request: Recall) -> Key:
    # By repr and not as JSON, which writes NaN as null.
    asked = repr((variant, state.snapshot.version, state.position(request.user_id), request))
    return blake2b(asked.encode(), digest_size=16).digest()
