"""Attributes: what requests may filter by. Tags are words that an item has any number of; a number
is one or none.

An attribute is a column of the items table, whether or not the model reads it. The bundle holds
attributes inverted, so that a condition leads to its rows without a look at the catalogue: the rows
of each tag, and for each number the rows in its order.
"""

import sys
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from contract.arrays import F64, I32, I64
from contract.errors import FeatureError, shown
from contract.features import Fields
from contract.ids import UNKNOWN, Ids, Texts

AttributeKind = Literal["tags", "number"]

LARGEST = sys.float_info.max


class Attributes(BaseModel):
    """Attribute -> kind, in the order of the bundle's arrays."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kinds: dict[str, AttributeKind] = {}
    tag_values: Annotated[int, Field(ge=0)] = 0
    """How many pairs of an attribute and one of its tags the items have."""

    @cached_property
    def tags(self) -> tuple[str, ...]:
        return tuple(name for name, kind in self.kinds.items() if kind == "tags")

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        return tuple(name for name, kind in self.kinds.items() if kind == "number")

    def check(self, item: Mapping[str, object]) -> None:
        """Raises FeatureError where the value of an attribute is of the wrong type."""
        for name in self.tags:
            tags_of(name, item.get(name))
        for name in self.numbers:
            number_of(name, item.get(name))

    def unknown(self, name: str) -> str:
        """Why there can be no filter by this name."""
        near = get_close_matches(name, self.kinds, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        return f"no such attribute; known are {', '.join(self.kinds) or 'none'}{hint}"


def default_kinds(features: Fields) -> dict[str, AttributeKind]:
    """Every category and multi feature as tags, every number feature as a number."""
    kinds: dict[str, AttributeKind] = {"category": "tags", "multi": "tags", "number": "number"}
    return {field.name: kinds[field.kind] for field in features.fields if field.kind in kinds}


def tags_of(name: str, value: object) -> list[str]:
    """The distinct tags in a raw value: a string, with `|` between several, an integer, or a list
    of both. Raises FeatureError."""
    if value is None:
        return []
    parts = value.split("|") if isinstance(value, str) else value
    parts = parts if isinstance(parts, list | tuple) else [parts]
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, str | int):
            raise _wrong(name, value, "a string, an integer, or a list of them")
    return list(dict.fromkeys(str(part) for part in parts if part != ""))


def number_of(name: str, value: object) -> float | None:
    """Raises FeatureError."""
    if value is None:
        return None
    # As a comparison it holds for no NaN, and an integer need not fit a float.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not -LARGEST <= value <= LARGEST:  # type: ignore[operator]
        raise _wrong(name, value, "a finite number")
    return float(value)  # type: ignore[arg-type]


def index_attributes(
    kinds: Mapping[str, AttributeKind], columns: Mapping[str, Sequence[object]], items: int
) -> tuple[Attributes, dict[str, npt.NDArray[Any]]]:
    """The attributes of `items` items as the arrays that a bundle stores, and their description.

    `columns` has the raw values by name; an attribute without a column is missing everywhere.
    Raises FeatureError where a value is of the wrong type.
    """
    none = [None] * items
    names: dict[str, int] = {}
    codes: list[int] = []
    rows: list[int] = []
    for name in (n for n, kind in kinds.items() if kind == "tags"):
        for row, value in enumerate(columns.get(name, none)):
            for tag in tags_of(name, value):
                codes.append(names.setdefault(_key(name, tag), len(names)))
                rows.append(row)
    # Stable, so that the rows of each tag go on ascending.
    order = np.argsort(np.array(codes, np.int32), kind="stable")
    counts = np.bincount(np.array(codes, np.int64), minlength=len(names))
    numbers = [
        np.array([number_of(name, value) for value in columns.get(name, none)], np.float64)
        for name, kind in kinds.items()
        if kind == "number"
    ]
    values: F64 = np.reshape(numbers, (len(numbers), items)).astype(np.float64)
    ids = Ids.of(list(names))
    return Attributes(kinds=dict(kinds), tag_values=len(names)), {
        "tag_values_text": ids.texts.text,
        "tag_values_offsets": ids.texts.offsets,
        "tag_values_hashes": ids.hashes,
        "tag_values_rows": ids.rows,
        "tagged_offsets": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "tagged_rows": np.array(rows, np.int32)[order],
        "number_values": values,
        "number_order": np.argsort(values, axis=1, kind="stable").astype(np.int32),
    }


class Postings:
    """The items of a bundle by attribute, over its memory-mapped arrays."""

    def __init__(self, attributes: Attributes, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self.attributes = attributes
        texts = Texts(arrays["tag_values_text"], arrays["tag_values_offsets"])
        self._ids = Ids(texts, arrays["tag_values_hashes"], arrays["tag_values_rows"])
        self._offsets: I64 = arrays["tagged_offsets"]
        self._rows: I32 = arrays["tagged_rows"]
        self._numbers: dict[str, F64] = dict(
            zip(attributes.numbers, arrays["number_values"], strict=True)
        )
        self._orders: dict[str, I32] = dict(
            zip(attributes.numbers, arrays["number_order"], strict=True)
        )

    def tagged(self, attribute: str, tag: str) -> I32:
        """The rows that have the tag, ascending; none for a tag that no item has."""
        code = self._ids.row(_key(attribute, tag))
        if code == UNKNOWN:
            return self._rows[:0]
        return self._rows[self._offsets[code] : self._offsets[code + 1]]

    def numbers(self, attribute: str) -> F64:
        """(N,), NaN where it is missing."""
        return self._numbers[attribute]

    def between(self, attribute: str, low: float, high: float) -> I32:
        """The rows whose number is in [low, high], by ascending number."""
        values, order = self._numbers[attribute], self._orders[attribute]

        def key(row: int) -> float:
            return float(values[row])

        # NaN comes last in the order, and the search must not compare with it.
        present = bisect_left(order, True, key=lambda row: bool(np.isnan(values[row])))
        begin = bisect_left(order, low, hi=present, key=key)
        return order[begin : bisect_right(order, high, lo=begin, hi=present, key=key)]


def _key(attribute: str, tag: str) -> str:
    """A tag is told from that of another attribute. No name of a column holds a zero."""
    return f"{attribute}\0{tag}"


def _wrong(name: str, value: object, wanted: str) -> FeatureError:
    return FeatureError(f"attribute '{name}': expected {wanted}, found {shown(value)}")
