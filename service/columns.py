"""The attributes of the overlay's items, by slot. A tag that training never saw is as good as any
other."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from contract.arrays import F64, I32, I64, Bool
from contract.attributes import Attributes, number_of, tags_of
from service.conditions import Condition, Within

FIRST_SLOTS = 64

Array = TypeVar("Array", I32, I64, F64)


class Columns:
    def __init__(self, attributes: Attributes) -> None:
        self._tags = {name: _Tags() for name in attributes.tags}
        self._numbers: dict[str, F64] = {
            name: np.full((1, FIRST_SLOTS), np.nan) for name in attributes.numbers
        }

    def put(self, slot: int, features: Mapping[str, object]) -> None:
        """What was posted of the item in a slot, in place of what was there before."""
        for name, tags in self._tags.items():
            tags.put(slot, tags_of(name, features.get(name)))
        for name in self._numbers:
            number = number_of(name, features.get(name))
            column = self._numbers[name] = _with_room(self._numbers[name], slot + 1, np.nan)
            column[0, slot] = np.nan if number is None else number

    def meet(self, conditions: Sequence[Condition], slots: int) -> Bool:
        """Which of the first `slots` slots meet all conditions."""
        met = np.ones(slots, np.bool_)
        for condition in conditions:
            met &= self._meets(condition, slots)
        return met

    def _meets(self, condition: Condition, slots: int) -> Bool:
        name = condition.attribute
        if isinstance(condition, Within):
            return condition.holds(self._numbers[condition.attribute][0, :slots])
        met = np.zeros(slots, np.bool_)
        for tags in self._tags.values() if name is None else (self._tags[name],):
            met |= tags.having(condition.values, slots)
        return met


class _Tags:
    """One attribute's tags as pairs of a slot and the code of a tag, so that a condition is one
    pass over the pairs, and an item of very many tags costs no other item anything."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        """Tag -> code, from 1 on; 0 is no tag."""
        self._pairs: I32 = np.zeros((2, FIRST_SLOTS), np.int32)
        """Slots, and the codes beside them."""
        self._end = 0
        self._places: I64 = np.zeros((2, FIRST_SLOTS), np.int64)
        """Where the pairs of each slot begin, and how many there is room for."""

    def put(self, slot: int, tags: Sequence[str]) -> None:
        codes = [self._codes.setdefault(tag, len(self._codes) + 1) for tag in tags]
        self._places = _with_room(self._places, slot + 1, 0)
        begin, room = self._places[:, slot].tolist()
        self._pairs[1, begin : begin + room] = 0
        if len(codes) > room:
            # Twice what there was: an item that grows with every post leaves little behind.
            begin = self._take(slot, max(len(codes), 2 * room))
        self._pairs[1, begin : begin + len(codes)] = codes

    def having(self, tags: Sequence[str], slots: int) -> Bool:
        """Which of the first `slots` slots have at least one of these tags."""
        wanted = np.zeros(len(self._codes) + 1, np.bool_)
        wanted[[self._codes[tag] for tag in tags if tag in self._codes]] = True
        owners, codes = self._pairs[:, : self._end]
        met = np.zeros(self._places.shape[1], np.bool_)
        # A third to a half of what the same takes with brackets.
        met[owners.compress(wanted.take(codes))] = True
        return met[:slots]

    def _take(self, slot: int, room: int) -> int:
        """Where there is now room for so many pairs of a slot."""
        begin, self._end = self._end, self._end + room
        self._pairs = _with_room(self._pairs, self._end, 0)
        self._pairs[0, begin : self._end] = slot
        self._places[:, slot] = begin, room
        return begin


def _with_room(columns: Array, places: int, fill: float) -> Array:
    """At least so many places in every column."""
    capacity = columns.shape[1]
    if places <= capacity:
        return columns
    more = max(places, 2 * capacity) - capacity
    return np.pad(columns, ((0, 0), (0, more)), constant_values=fill)
