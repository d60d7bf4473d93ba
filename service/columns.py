"""The attributes of the overlay's items, by slot. A tag that training never saw is as good as any
other."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from contract.arrays import F64, I32, Bool
from contract.attributes import Attributes, number_of, tags_of
from service.conditions import Condition, Within

FIRST_SLOTS = 64

Array = TypeVar("Array", I32, F64)


class Columns:
    """Codes of tags stand in columns of their own, so that a condition is one pass over each."""

    def __init__(self, attributes: Attributes) -> None:
        self._attributes = attributes
        self._codes: dict[str, dict[str, int]] = {name: {} for name in attributes.tags}
        """Attribute -> tag -> code, from 1 on; 0 is no tag."""
        self._tags: dict[str, I32] = {
            name: np.zeros((0, FIRST_SLOTS), np.int32) for name in attributes.tags
        }
        """Attribute -> codes (most tags of an item, capacity)."""
        self._numbers: dict[str, F64] = {
            name: np.full((1, FIRST_SLOTS), np.nan) for name in attributes.numbers
        }

    def put(self, slot: int, features: Mapping[str, object]) -> None:
        """What was posted of the item in a slot, in place of what was there before."""
        for name, codes in self._codes.items():
            tags = tags_of(name, features.get(name))
            wanted = [codes.setdefault(tag, len(codes) + 1) for tag in tags]
            columns = self._tags[name] = _with_room(self._tags[name], len(wanted), slot, 0)
            columns[:, slot] = 0
            columns[: len(wanted), slot] = wanted
        for name in self._numbers:
            number = number_of(name, features.get(name))
            column = self._numbers[name] = _with_room(self._numbers[name], 1, slot, np.nan)
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
        for attribute in self._attributes.tags if name is None else (name,):
            met |= self._tagged(attribute, condition.values, slots)
        return met

    def _tagged(self, attribute: str, tags: Sequence[str], slots: int) -> Bool:
        met = np.zeros(slots, np.bool_)
        codes = self._codes[attribute]
        wanted = np.zeros(len(codes) + 1, np.bool_)
        wanted[[codes[tag] for tag in tags if tag in codes]] = True
        for column in self._tags[attribute]:
            met |= wanted[column[:slots]]
        return met


def _with_room(columns: Array, width: int, slot: int, fill: float) -> Array:
    """At least `width` columns, and a place for the slot."""
    found, capacity = columns.shape
    if width <= found and slot < capacity:
        return columns
    places = capacity if slot < capacity else max(slot + 1, 2 * capacity)
    more = ((0, max(width - found, 0)), (0, places - capacity))
    return np.pad(columns, more, constant_values=fill)
