"""The index seam: what a backend is, and the rules that every backend keeps.

One metric: the inner product (models normalise for cosine). One order: scores descending, equal
scores by ascending row (`exact` guarantees it; a library may break it where ties cross the k-th
place). One padding: row -1 with score -inf. One filter: a bitmap over rows. An answer has k rows
whenever k rows are allowed: what a library cannot find, the backend scans for.

Indexes are read-only and safe to search from several threads at once. Reading and appending are
different protocols: an index that also takes what was written online is `Appendable`. A backend
whose index lies on a server, not in the bundle, is `Hosted`.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from contract.arrays import F32, I64, Bool
from contract.errors import BundleError, RecipeError

Answer = tuple[I64, F32]
"""Rows (Q, k) and their scores (Q, k)."""

OVERFETCH = 4
"""A search without a filter asks for at most this many times k more, of which the filter is applied
to the answer; beyond it the filter goes into the search."""


def depth(k: int, removed: int) -> int:
    """How many a search without a filter asks for, so that k are left when `removed` are taken out:
    a multiple of k, so that many requests ask alike."""
    return k + k * min(math.ceil(removed / k), OVERFETCH)


class Matrix(Protocol):
    """What is scanned: an array (N, D), or several on top of each other."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | I64, /) -> F32: ...


class Index(Protocol):
    def search(self, queries: F32, k: int, allowed: Bool | None = None) -> Answer:
        """The k rows with the largest inner product, for each of `queries` (Q, D).

        `allowed` (N,): True where a row may be returned; None allows every row. Raises ValueError
        for a query of another dimension, a k below 1, a bitmap of another size or type.
        """
        ...


class Appended(Protocol):
    """The N rows of an index and those from N on, which one journal appended. Not to be used by
    several threads at once.

    Every process that follows the journal writes the same, in its own time: what was written at a
    seq never changes, and is found by those alone that have been told of it. Raises BackendError.
    """

    def upsert(self, rows: I64, seqs: I64, vectors: F32) -> None:
        """`rows` (n,), all from N on, have `vectors` (n, D), as journal position `seqs` (n,) says;
        what they had before is gone. Found by the next search.
        """
        ...

    def delete(self, rows: I64, seqs: I64) -> None:
        """`rows` (n,) need not be found any more, nor what was written at `seqs` (m,). Whoever
        searches leaves them out by himself, as he does with the rows of the bundle that are gone.
        """
        ...

    def search(self, queries: F32, k: int, allowed: Bool | None, appended: F32) -> Answer:
        """As `Index.search`, over the N + S rows of the bundle and of `appended` (S, D), which are
        the vectors of the rows from N on. `allowed` has N + S places.
        """
        ...


@runtime_checkable
class Appendable(Index, Protocol):
    """An index that also holds what is written online: one search finds both."""

    def append(self, journal: int) -> Appended:
        """For the journal of this identity; those of other journals are not found."""
        ...


class Effort(NamedTuple):
    """The search parameter that buys recall with time."""

    name: str
    counts: Literal["lists", "candidates"]
    """Lists are counted from 1; fewer candidates than k are raised to k."""

    def least(self, k: int) -> int:
        return k if self.counts == "candidates" else 1


class Backend(Protocol):
    """One index kind; its backend inherits from this, so that the type checker compares the two.

    `Build` and `Search` are frozen dataclasses whose fields all have defaults;
    both are written in the manifest, so one built index can be searched at many operating points.
    """

    Build: ClassVar[type[Any]]
    Search: ClassVar[type[Any]]
    filename: ClassVar[str | None]
    """The index's file in a bundle; None: the item vectors are all it needs."""

    effort: ClassVar[Effort | None]
    """None: always exact."""

    @staticmethod
    def build(vectors: F32, path: Path, params: Any) -> None:
        """Write the index of `vectors` (N, D), N >= 1, to the file `path`.

        Raises RecipeError where `params` do not suit a matrix of this shape.
        """
        ...

    @staticmethod
    def open(path: Path, vectors: F32, build: Any, search: Any) -> Index:
        """Open what `build` wrote to `path`; where the library can, the file is mapped, so that
        processes share its pages.

        `vectors` (N, D) is the bundle's memory-mapped matrix of item vectors. Raises BundleError
        where the file is missing, damaged, or was not built from a matrix of this shape.
        """
        ...


class Hosted(Backend, Protocol):
    """A backend whose index lies on a server; the file in the bundle says where.

    Every method raises BackendError where the server does not answer.
    """

    filename: ClassVar[str]

    @staticmethod
    def exclusive(path: Path) -> str | None:
        """What keeps a second process from the index in `path`, and what to do; None: nothing."""
        ...

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether the index that `path` names is still there."""
        ...

    @staticmethod
    def restore(path: Path, vectors: F32, build: Any) -> None:
        """Build the index that `path` names once more, under the same name."""
        ...

    @staticmethod
    def activate(path: Path, channel: str) -> None:
        """For those who look at the server: `channel` now leads to the index that `path` names."""
        ...

    @staticmethod
    def retire(current: Sequence[Path], left: Sequence[Path]) -> None:
        """Remove the indexes of `left` that have been out of use for longer than the grace period.
        The time counts from the first call that finds them among `left`; `current` are in use."""
        ...

    @staticmethod
    def drop(path: Path) -> None:
        """Remove the index that `path` names."""
        ...


def checked_queries(vectors: Matrix, queries: F32, k: int, allowed: Bool | None) -> F32:
    """The queries as contiguous float32; raises ValueError as `Index.search` says."""
    count, dim = vectors.shape
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise ValueError(f"queries have shape {queries.shape}, expected (Q, {dim})")
    if k < 1:
        raise ValueError(f"k is {k}, expected at least 1")
    if allowed is not None and (allowed.shape != (count,) or allowed.dtype != np.bool_):
        found = f"{allowed.dtype} of shape {allowed.shape}"
        raise ValueError(f"allowed is {found}, expected a boolean bitmap of shape ({count},)")
    return np.ascontiguousarray(queries, dtype=np.float32)


def require_match(path: Path, what: str, found: int, expected: int) -> None:
    """Raises BundleError unless the index file agrees with the rest of the bundle."""
    if found != expected:
        raise BundleError(
            f"{path}: {found} {what} in the index, expected {expected}; publish the bundle again"
        )


def require_at_least(least: int, **params: int) -> None:
    """Raises RecipeError naming the first parameter that is below `least`."""
    for name, value in params.items():
        if value < least:
            raise RecipeError(
                f"{name} is {value}, expected at least {least}; change it in the recipe"
            )
