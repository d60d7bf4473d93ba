"""What was made last, by what it was made for, within a bound on the memory that it takes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """What was not asked for the longest goes first."""

    def __init__(self, most: int, cost: Callable[[Key, Value], int]) -> None:
        """At most `most` bytes in all. `cost` gives those of one, which stay the same."""
        self._most, self._cost = most, cost
        self._kept = OrderedDict[Key, Value]()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key) -> Value | None:
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: Key, value: Value) -> None:
        """In place of what was kept for the same key."""
        if key in self._kept:
            self.nbytes -= self._cost(key, self._kept.pop(key))
        self._kept[key] = value
        self.nbytes += self._cost(key, value)
        while self.nbytes > self._most:
            self.nbytes -= self._cost(*self._kept.popitem(last=False))
