"""What is popular among the users of a segment and among all, recent interactions counting more.

One function makes the arrays of a bundle out of all interactions: whoever writes a bundle, after
training or out of another bundle and a journal, calls it.
"""

import itertools
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from contract.arrays import F32, F64, I32, I64
from contract.errors import BundleError
from contract.features import Category, Encoded, Fields

DEPTH = 1000
"""Items kept of each segment; behind them stands the order of all items."""
PRIOR = 100.0
"""A segment of so many interactions weighs as much in its own list as all users together do."""
DAY = 86_400.0


class Popularity(BaseModel):
    """How popularity is counted."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    segment: str | None = None
    """A category feature of users: those of one value have a list of their own."""
    half_life_days: Annotated[float, Field(gt=0)] | None = None
    """An interaction so much older than the newest one counts half; None: all count alike."""

    def column(self, users: Fields) -> int | None:
        """The code column of the segment; None where there is none."""
        block = users.block(self.segment) if self.segment is not None else None
        return block.start if block else None

    def segments(self, users: Fields) -> int:
        """How many lists there are: that of all users, then one for each value of the segment.

        Raises BundleError when the segment is not a category feature of users."""
        if self.segment is None:
            return 1
        field = users.field(self.segment)
        if not isinstance(field, Category):
            raise BundleError(
                f"popularity.segment is '{self.segment}', expected a category feature of users"
            )
        return field.size


def popular_arrays(
    popularity: Popularity,
    fields: Fields,
    users: Encoded,
    interactions: tuple[I64, I32, I64],
    items: int,
) -> dict[str, F32 | I32]:
    """`interactions` are offsets (U + 1,), item rows (M,) and times (M,), in seconds: those of user
    u are offsets[u] : offsets[u + 1].

    popular_rows and popular_scores (S, T): in row 0 the T most popular items of all users and their
    shares of all interactions, in row c those of the users whose segment has code c; scores
    descend, of equal ones the lower row leads. A segment's share is smoothed towards that of all
    users (Dirichlet prior: Zhai and Lafferty, "A Study of Smoothing Methods", SIGIR 2001).
    """
    offsets, rows, times = interactions
    count = popularity.segments(fields)
    column = popularity.column(fields)
    codes = users.codes[:, column] if column is not None else np.zeros(len(offsets) - 1, np.int32)
    of_each = np.repeat(codes, np.diff(offsets))
    weights = _weights(popularity, times)
    everyone = _shares(np.bincount(rows, weights, items).astype(np.float64))
    order = np.argsort(of_each, kind="stable")
    bounds = np.searchsorted(of_each[order], np.arange(1, count + 1))
    lists = [everyone]
    for begin, end in itertools.pairwise(bounds):
        own = order[begin:end]
        lists.append(_shares(np.bincount(rows[own], weights[own], items) + PRIOR * everyone))
    best = np.stack([_most(shares) for shares in lists])
    scores = np.stack([shares[at] for shares, at in zip(lists, best, strict=True)])
    return {"popular_rows": best.astype(np.int32), "popular_scores": scores.astype(np.float32)}


def _weights(popularity: Popularity, times: I64) -> F64:
    if popularity.half_life_days is None or not len(times):
        return np.ones(len(times))
    age = (times.max() - times) / (popularity.half_life_days * DAY)
    weights: F64 = np.exp2(-age)
    return weights


def _shares(counts: F64) -> F64:
    total = float(counts.sum())
    return counts / total if total else counts


def _most(shares: F64) -> I64:
    """The rows of the DEPTH largest shares, or of all."""
    last = min(DEPTH, len(shares)) - 1
    enough = np.flatnonzero(shares >= -np.partition(-shares, last)[last])
    return enough[np.argsort(-shares[enough], kind="stable")[: last + 1]]
