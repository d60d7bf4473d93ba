"""Conditions on attributes: frozen, and how requests spell them, as JSON and in a query string."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from contract.arrays import F64, Bool
from contract.attributes import LARGEST, Attributes
from contract.errors import MalformedRequest, shown

BOUNDS = ("gte", "gt", "lte", "lt")
OPERATORS = {"=": "", ">=": "gte", ">": "gt", "<=": "lte", "<": "lt"}
SPELLED = re.compile(r"(?P<name>[^=<>]+)(?P<operator>[<>]=?|=)(?P<values>.+)", re.DOTALL)


@dataclass(frozen=True)
class AnyOf:
    """Has at least one of these tags."""

    attribute: str | None
    """None: it does not matter of which attribute."""
    values: tuple[str, ...]


@dataclass(frozen=True)
class Within:
    """The number is in at least one of these closed intervals, given by low and high ends."""

    attribute: str
    intervals: tuple[tuple[float, float], ...]

    def holds(self, numbers: F64) -> Bool:
        """For which of these it holds; for a missing one, NaN, it does not."""
        met = np.zeros(len(numbers), np.bool_)
        for low, high in self.intervals:
            met |= (numbers >= low) & (numbers <= high)
        return met


Condition = AnyOf | Within
Conditions = tuple[Condition, ...]


def from_json(filters: Mapping[str, Any], attributes: Attributes) -> Conditions:
    """`{"genres": "Drama", "year": {"gte": 1990}}`: an attribute, and a value, a list of which any
    will do, or the bounds of a number. Raises MalformedRequest naming the attribute."""
    return tuple(_condition(name, value, attributes) for name, value in filters.items())


def from_text(filters: Sequence[str], attributes: Attributes) -> Conditions:
    """`genres=Drama|War`, `year>=1990`, `year<2000`. Raises MalformedRequest naming the filter."""
    return tuple(_parse(text, attributes) for text in filters)


def count_values(conditions: Sequence[Condition]) -> int:
    return sum(len(c.values if isinstance(c, AnyOf) else c.intervals) for c in conditions)


def _condition(name: str, value: object, attributes: Attributes) -> Condition:
    try:
        if name not in attributes.kinds:
            raise ValueError(attributes.unknown(name))
        if isinstance(value, dict):
            return _range(name, value, attributes)
        values = value if isinstance(value, list) else [value]
        if not values:
            raise ValueError("expected at least one value, found an empty list")
        if attributes.kinds[name] == "tags":
            return AnyOf(name, tuple(_tag(v) for v in values))
        return Within(name, tuple((n, n) for n in map(_number, values)))
    except ValueError as error:
        raise MalformedRequest(f"filters.{name}: {error}") from error


def _parse(text: str, attributes: Attributes) -> Condition:
    spelled = SPELLED.fullmatch(text)
    if not spelled:
        raise MalformedRequest(
            f"filter '{text}': expected name=value, name=value|value, or a number's bound as in "
            "name>=1990; operators are = >= > <= <"
        )
    name, operator, values = spelled.groups()
    is_number = attributes.kinds.get(name) == "number"
    wanted: list[object] = [_read(v) if is_number else v for v in values.split("|")]
    bound = OPERATORS[operator]
    return _condition(name, {bound: wanted[0]} if bound else wanted, attributes)


def _read(text: str) -> object:
    """A number where it is one; what is none is refused like any other value of a wrong type."""
    try:
        return float(text)
    except ValueError:
        return text


def _range(name: str, bounds: Mapping[str, object], attributes: Attributes) -> Within:
    if attributes.kinds[name] != "number":
        raise ValueError("bounds are for numbers, these are tags; give a value or a list of values")
    if not bounds or not bounds.keys() <= set(BOUNDS):
        found = ", ".join(bounds) or "none"
        raise ValueError(f"expected bounds out of {', '.join(BOUNDS)}, found {found}")
    given = {bound: _number(value) for bound, value in bounds.items()}
    low = max(given.get("gte", -math.inf), _after(given.get("gt", -math.inf), math.inf))
    high = min(given.get("lte", math.inf), _after(given.get("lt", math.inf), -math.inf))
    return Within(name, ((low, high),))


def _after(bound: float, end: float) -> float:
    """The next number towards `end`: an open bound as a closed one."""
    return bound if math.isinf(bound) else math.nextafter(bound, end)


def _tag(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"expected a string or an integer, found {shown(value)}")
    return str(value)


def _number(value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not -LARGEST <= value <= LARGEST:  # type: ignore[operator]
        raise ValueError(f"expected a finite number, found {shown(value)}")
    return float(value)  # type: ignore[arg-type]
