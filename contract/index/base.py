"""The index seam: what a backend is, and the rules that every backend keeps.

One metric: the inner product (models normalise for cosine). One order: scores descending, equal
scores by ascending row (`exact` guarantees it; a library may break it where ties cross the k-th
place). One padding: row -1 with score -inf. One filter: a bitmap over rows. An answer has k rows
whenever k rows are allowed: what a library cannot find, the backend scans for.

Indexes are read-only and safe to search from several threads at once.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np

from contract.arrays import F32, I64, Bool
from contract.errors import BundleError, RecipeError

Answer = tuple[I64, F32]
"""Rows (Q, k) and their scores (Q, k)."""


class Index(Protocol):
    def search(self, queries: F32, k: int, allowed: Bool | None = None) -> Answer:
        """The k rows with the largest inner product, for each of `queries` (Q, D).

        `allowed` (N,): True where a row may be returned; None allows every row. Raises ValueError
        for a query of another dimension, a k below 1, a bitmap of another size or type.
        """
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


def checked_queries(vectors: F32, queries: F32, k: int, allowed: Bool | None) -> F32:
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
