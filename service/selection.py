"""Which rows meet the conditions of a request: rows where they are few, else a bitmap.

Found through the postings of the bundle and kept for the conditions asked for last.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from contract.arrays import F32, I32, I64, Bool
from contract.attributes import Postings
from service.conditions import AnyOf, Condition
from service.recent import Recent

FEW_SHARE = 64
"""One in so many rows is few. Measured at D = 64: of a million, 8,000 rows are scored in 0.5 ms and
16,000 in 1.8, through a bitmap in 1.0 and 2.1; with more, the vectors gathered leave the caches."""
KEPT_BYTES = 64 * 2**20
"""What the selections kept may take together, in every worker."""
SELECTION_COST, CONDITION_COST, INTERVAL_COST = 700, 300, 120
"""Of a selection and of its conditions, beside arrays and texts: measured."""
GATHERED_SHARE, GATHERED_BYTES = 16, 8 * 2**20
"""With their vectors beside them, in one piece, more rows are few: one in so many, and no more than
have so many bytes. A recall with a filter that keeps 20,000 of a million takes 0.6 ms, where an
index or a scan of rows that lie scattered took 2.6."""
SCORED_BYTES = 32 * 2**20
"""Few rows, which are scored in any case, have their vectors beside them up to so many bytes: of
110,000 rows of ten million a scan takes 12.6 ms where they lie scattered."""

NO_ROWS = np.empty(0, np.int32)


@dataclass(frozen=True, eq=False)
class Selection:
    """Rows of a bundle: ascending (n,), with or without their vectors (n, D), or as a bitmap (N,)
    over all. Not to be changed."""

    rows: I64 | None = None
    bitmap: Bool | None = None
    vectors: F32 | None = None

    @property
    def nbytes(self) -> int:
        parts = self.rows, self.bitmap, self.vectors
        return sum(array.nbytes for array in parts if array is not None)

    def marked(self, items: int) -> Bool:
        """As a bitmap."""
        if self.bitmap is not None:
            return self.bitmap
        return _marked(items, [] if self.rows is None else [self.rows])


def few(items: int) -> int:
    """So many rows of a catalogue are scored before an index would have found the best of them."""
    return items // FEW_SHARE


class Selector:
    """Of one bundle."""

    def __init__(self, postings: Postings, vectors: F32) -> None:
        """`vectors` (N, D) of the items."""
        self._postings, self._vectors, self._items = postings, vectors, len(vectors)
        self._kept = Recent[frozenset[Condition], Selection](KEPT_BYTES, _cost)

    def select(self, conditions: Sequence[Condition]) -> Selection:
        """The rows that meet all of one condition or more."""
        key = frozenset(conditions)
        found = self._kept.get(key)
        if found is None:
            found = self._find(conditions)
            self._kept.put(key, found)
        return found

    def among(self, rows: I64, conditions: Sequence[Condition]) -> Selection:
        """Those of `rows`, ascending, that meet all conditions, if there are any conditions."""
        return Selection(_met(rows, map(self._look_up, conditions)))

    def _find(self, conditions: Sequence[Condition]) -> Selection:
        first, *others = sorted(map(self._look_up, conditions), key=lambda found: found.most)
        if first.most <= few(self._items):
            return self._gathered(_met(first.rows(), others))
        bitmap = first.bitmap(self._items)
        for other in others:
            bitmap &= other.bitmap(self._items)
        count = int(np.count_nonzero(bitmap))
        if count <= few(self._items) or self._are_gathered(count):
            return self._gathered(np.flatnonzero(bitmap))
        return Selection(bitmap=bitmap)

    def _are_gathered(self, rows: int) -> bool:
        size: int = rows * self._vectors.shape[1] * self._vectors.itemsize
        if rows <= few(self._items):
            return size <= SCORED_BYTES
        return rows <= self._items // GATHERED_SHARE and size <= GATHERED_BYTES

    def _gathered(self, rows: I64) -> Selection:
        vectors = self._vectors[rows] if self._are_gathered(len(rows)) else None
        return Selection(rows, vectors=vectors)

    def _look_up(self, condition: Condition) -> "_Found":
        postings = self._postings
        if isinstance(condition, AnyOf):
            name = condition.attribute
            names = postings.attributes.tags if name is None else (name,)
            tagged = [postings.tagged(n, tag) for n in names for tag in condition.values]
            return _Found(tagged, partial(_tagged, tagged))
        name, numbers = condition.attribute, postings.numbers(condition.attribute)
        return _Found(
            [postings.between(name, low, high) for low, high in condition.intervals],
            lambda rows: condition.holds(numbers[rows]),
        )


def _cost(conditions: frozenset[Condition], selection: Selection) -> int:
    """In bytes. One that has no rows costs too: there is no end of filters that nothing meets."""
    return SELECTION_COST + sum(map(_size, conditions)) + selection.nbytes


def _size(condition: Condition) -> int:
    if isinstance(condition, AnyOf):
        return CONDITION_COST + sum(map(sys.getsizeof, condition.values))
    return CONDITION_COST + INTERVAL_COST * len(condition.intervals)


@dataclass(frozen=True, eq=False)
class _Found:
    """The rows that meet one condition: those of any of its postings."""

    postings: Sequence[I32]
    among: Callable[[I64], Bool]
    """Which of these rows meet it."""

    @property
    def most(self) -> int:
        """At most so many do."""
        return sum(map(len, self.postings))

    def rows(self) -> I64:
        """Ascending."""
        return np.unique(np.concatenate([NO_ROWS, *self.postings])).astype(np.int64)

    def bitmap(self, items: int) -> Bool:
        return _marked(items, self.postings)


def _met(rows: I64, found: Iterable[_Found]) -> I64:
    for one in found:
        rows = rows[one.among(rows)]
    return rows


def _marked(items: int, parts: Iterable[I32 | I64]) -> Bool:
    bitmap = np.zeros(items, np.bool_)
    for rows in parts:
        bitmap[rows] = True
    return bitmap


def _tagged(postings: Sequence[I32], rows: I64) -> Bool:
    met = np.zeros(len(rows), np.bool_)
    wanted = rows.astype(np.int32)
    for tagged in filter(len, postings):
        at = np.searchsorted(tagged, wanted)
        met |= tagged[np.minimum(at, len(tagged) - 1)] == wanted
    return met
