"""The one feature encoder, used on the training tables and on every request.

A field turns a column of raw values into `width` columns of integer codes, or into `width` columns
of float numbers. A schema puts the columns of its fields side by side, so an encoded entity is one
row of `codes` (int32) and one row of `numbers` (float32), whatever the features are.

Rules that hold for every kind: a missing value (None, or the name left out) is legal and encodes
to zeros; a value that training did not see encodes to code 0, the out-of-vocabulary row; a value of
the wrong type is a FeatureError that names the field.

Two kinds have no column here, because they are gathered from matrices of the bundle before the
tower: an entity's own id (every entity has one; the model decides how wide its embedding is) and
the history.
"""

import itertools
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from contract.arrays import F32, I32
from contract.errors import FeatureError, shown
from contract.kinds import Histories

Kind = Literal["category", "multi", "number", "text", "vector"]

MAX_MULTI = 16
MAX_TEXT = 128
MAX_HISTORY = 10_000
NUMBER_CLIP = 10.0
LARGEST = float(np.finfo(np.float32).max)


class Encoded(NamedTuple):
    """n entities as the towers take them: codes (n, C) int32, numbers (n, F) float32."""

    codes: I32
    numbers: F32


class Block(NamedTuple):
    """Where a field's codes lie: columns start .. start + width, values 0 .. size - 1."""

    start: int
    width: int
    size: int


class _Field(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str

    def _wrong(self, value: object, wanted: str) -> FeatureError:
        return FeatureError(f"feature '{self.name}': expected {wanted}, found {shown(value)}")


class _Vocabulary(_Field):
    """`values` in order of frequency; the code of a value is its position plus one."""

    values: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.values) + 1

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {value: code for code, value in enumerate(self.values, start=1)}

    def code(self, value: str) -> int:
        return self._codes.get(value, 0)


class Category(_Vocabulary):
    """One value out of a vocabulary: a string, or an integer that stands for one."""

    kind: Literal["category"] = "category"

    @property
    def width(self) -> int:
        return 1

    @classmethod
    def fit(cls, name: str, values: Sequence[object]) -> "Category":
        reader = cls(name=name, values=())
        return cls(name=name, values=_by_frequency(reader._text(v) for v in values))

    def encode(self, values: Sequence[object]) -> I32:
        codes = [self.code(text) if (text := self._text(v)) else 0 for v in values]
        return np.array(codes, np.int32).reshape(-1, 1)

    def _text(self, value: object) -> str:
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self._wrong(value, "a string or an integer")
        return str(value)


class Multi(_Vocabulary):
    """Several values out of a vocabulary: a list, or one string with `|` between the values.

    Values after the first `width` are left out.
    """

    kind: Literal["multi"] = "multi"
    width: Annotated[int, Field(ge=1, le=MAX_MULTI)]

    @classmethod
    def fit(cls, name: str, values: Sequence[object]) -> "Multi":
        reader = cls(name=name, values=(), width=1)
        lists = [reader.split(v) for v in values]
        width = min(max(map(len, lists), default=1) or 1, MAX_MULTI)
        return cls(name=name, values=_by_frequency(itertools.chain(*lists)), width=width)

    def encode(self, values: Sequence[object]) -> I32:
        codes = np.zeros((len(values), self.width), np.int32)
        for n, value in enumerate(values):
            known = [code for v in self.split(value) if (code := self.code(v))][: self.width]
            codes[n, : len(known)] = known
        return codes

    def split(self, value: object) -> list[str]:
        if value is None:
            return []
        parts = value.split("|") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            raise self._wrong(value, "a list of strings")
        for part in parts:
            if isinstance(part, bool) or not isinstance(part, str | int):
                raise self._wrong(value, "a list of strings")
        return [str(part) for part in parts if part != ""]


class Number(_Field):
    """A number, standardised and clipped to +-10 deviations, beside a 1 that says it is there."""

    kind: Literal["number"] = "number"
    mean: float
    deviation: Annotated[float, Field(gt=0)]

    @property
    def width(self) -> int:
        return 2

    @classmethod
    def fit(cls, name: str, values: Sequence[object]) -> "Number":
        reader = cls(name=name, mean=0.0, deviation=1.0)
        present = np.array([n for v in values if (n := reader._number(v)) is not None], float)
        if not len(present):
            return reader
        return cls(name=name, mean=float(present.mean()), deviation=float(present.std()) or 1.0)

    def encode(self, values: Sequence[object]) -> F32:
        numbers = np.zeros((len(values), 2), np.float32)
        for n, value in enumerate(values):
            number = self._number(value)
            if number is not None:
                scaled = (number - self.mean) / self.deviation
                numbers[n] = max(-NUMBER_CLIP, min(NUMBER_CLIP, scaled)), 1.0
        return numbers

    def _number(self, value: object) -> float | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(value, "a number")
        if not _finite(value):
            raise self._wrong(value, "a finite number")
        return float(value)


class Text(_Field):
    """Hashed letter trigrams of the words, and the words themselves (DSSM's word hashing:
    Huang et al., "Learning Deep Structured Semantic Models", CIKM 2013).

    Distinct n-grams in order of appearance, the first `width` of them; code 0 is "no n-gram".
    """

    kind: Literal["text"] = "text"
    buckets: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1, le=MAX_TEXT)]

    @property
    def size(self) -> int:
        return self.buckets + 1

    @classmethod
    def fit(cls, name: str, values: Sequence[object]) -> "Text":
        reader = cls(name=name, buckets=1, width=1)
        grams = [reader.grams(v) for v in values]
        distinct = len(set(itertools.chain(*grams)))
        buckets = min(max(1 << (2 * distinct).bit_length(), 1 << 10), 1 << 17)
        width = min(max(map(len, grams), default=1) or 1, MAX_TEXT)
        return cls(name=name, buckets=buckets, width=width)

    def encode(self, values: Sequence[object]) -> I32:
        codes = np.zeros((len(values), self.width), np.int32)
        for n, value in enumerate(values):
            grams = self.grams(value)[: self.width]
            codes[n, : len(grams)] = [1 + zlib.crc32(g.encode()) % self.buckets for g in grams]
        return codes

    def grams(self, value: object) -> list[str]:
        if value is None:
            return []
        if not isinstance(value, str):
            raise self._wrong(value, "a string")
        words = [f"#{word}#" for word in re.findall(r"\w+", value.lower())]
        trigrams = (w[i : i + 3] for w in words for i in range(len(w) - 2))
        return list(dict.fromkeys(itertools.chain(words, trigrams)))


class Vector(_Field):
    """A given embedding of `width` finite numbers."""

    kind: Literal["vector"] = "vector"
    width: Annotated[int, Field(ge=1)]

    @classmethod
    def fit(cls, name: str, values: Sequence[object]) -> "Vector":
        first = next((v for v in values if v is not None), None)
        if not isinstance(first, list | tuple) or not first:
            raise FeatureError(f"feature '{name}': expected lists of numbers, found {first!r}")
        return cls(name=name, width=len(first))

    def encode(self, values: Sequence[object]) -> F32:
        numbers = np.zeros((len(values), self.width), np.float32)
        for n, value in enumerate(values):
            if value is not None:
                numbers[n] = self._vector(value)
        return numbers

    def _vector(self, value: object) -> F32:
        wanted = f"a list of {self.width} finite numbers"
        if not isinstance(value, list | tuple) or len(value) != self.width:
            raise self._wrong(value, wanted)
        if any(isinstance(n, bool) or not isinstance(n, int | float) for n in value):
            raise self._wrong(value, wanted)
        if not all(map(_finite, value)):
            raise self._wrong(value, wanted)
        return np.array(value, np.float32)


AnyField = Annotated[Category | Multi | Number | Text | Vector, Field(discriminator="kind")]
KINDS: dict[Kind, type[Category | Multi | Number | Text | Vector]] = {
    "category": Category,
    "multi": Multi,
    "number": Number,
    "text": Text,
    "vector": Vector,
}


class Fields(BaseModel):
    """The features of one side, users or items, in the order of their columns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fields: tuple[AnyField, ...] = ()

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(f.name for f in self.fields)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """One block of code columns for each field that has codes."""
        coded = [f for f in self.fields if isinstance(f, Category | Multi | Text)]
        starts = itertools.accumulate((f.width for f in coded), initial=0)
        return tuple(Block(start, f.width, f.size) for start, f in zip(starts, coded, strict=False))

    @cached_property
    def code_width(self) -> int:
        return sum(block.width for block in self.blocks)

    @cached_property
    def number_width(self) -> int:
        return sum(f.width for f in self.fields if isinstance(f, Number | Vector))

    def block(self, name: str) -> Block | None:
        """The code columns of a field; None for a name that has none."""
        coded = [f.name for f in self.fields if isinstance(f, Category | Multi | Text)]
        return self.blocks[coded.index(name)] if name in coded else None

    def field(self, name: str) -> "Category | Multi | Number | Text | Vector | None":
        return next((f for f in self.fields if f.name == name), None)

    def encode(self, rows: Sequence[Mapping[str, object]], beside: Collection[str] = ()) -> Encoded:
        """Entities as mappings from feature name to value. A name that is unknown here and not in
        `beside` is an error."""
        known = self.names.union(beside)
        for row in rows:
            if not row.keys() <= known:
                raise _unknown(next(iter(row.keys() - known)), known)
        return self.encode_columns({n: [row.get(n) for row in rows] for n in self.names}, len(rows))

    def encode_columns(self, columns: Mapping[str, Sequence[object]], rows: int) -> Encoded:
        """Entities as one column of `rows` values per field; a field without one is missing."""
        codes: list[I32] = [np.empty((rows, 0), np.int32)]
        numbers: list[F32] = [np.empty((rows, 0), np.float32)]
        for field in self.fields:
            values = columns.get(field.name, [None] * rows)
            if isinstance(field, Number | Vector):
                numbers.append(field.encode(values))
            else:
                codes.append(field.encode(values))
        return Encoded(np.concatenate(codes, axis=1), np.concatenate(numbers, axis=1))


class Schema(BaseModel):
    """What both towers are fed: the features of users and items, and histories."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    users: Fields
    items: Fields
    history_length: Annotated[int, Field(ge=1, le=MAX_HISTORY)]
    """The longest, of all kinds together."""
    histories: Histories = ()


def _unknown(name: str, known: Collection[str]) -> FeatureError:
    near = get_close_matches(name, known, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    names = ", ".join(sorted(known)) or "none"
    return FeatureError(f"feature '{name}': not in the schema; known are {names}{hint}")


def _finite(number: float) -> bool:
    """False for NaN, the infinities and what float32 cannot hold."""
    return abs(number) <= LARGEST


def _by_frequency(values: Iterable[str]) -> tuple[str, ...]:
    counts = Counter(value for value in values if value)
    return tuple(sorted(counts, key=lambda value: (-counts[value], value)))
