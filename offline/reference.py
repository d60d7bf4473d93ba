"""The reference of a bundle: what its answers look like, measured as the service measures them."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from contract.arrays import F32, F64, I64
from contract.bundle import Bundle, ItemState
from contract.index.exact import ExactIndex
from contract.merge import merge
from contract.reference import DECILES, DEPTH, Edges, Reference, decile, signals

USERS = 256
LEAST_USERS = 20
"""Deciles of fewer say nothing."""
MOST_SEEN = 1000
"""Who has seen more is left out: so many neighbours more would have to be found for everyone."""
LEAST_SPREAD = 1e-4
"""Values nearer to each other, relatively, are one: vectors of norm 1 differ by rounding alone."""
MOST_UNEVEN = 0.2
"""Largest share of the answers that may be in other deciles than they ought to."""


def measure(bundle: Bundle, users: I64, vectors: F32) -> Reference | None:
    """Of the answers to some of `users` (B,), whose vectors are (B, K, D); None where too few have
    a history and an answer of DEPTH items."""
    answers = list(_answers(bundle, users, vectors))
    if len(answers) < LEAST_USERS:
        return None
    measured = [signals(of_user, scores) for of_user, _, scores in answers]
    deciles = {}
    for name in measured[0]:
        values = np.array([found[name] for found in measured])
        if (edges := _edges(values)) is not None:
            deciles[name] = edges
    return Reference(deciles=deciles, overlap=_overlap([rows for _, rows, _ in answers]))


def _answers(bundle: Bundle, users: I64, vectors: F32) -> Iterator[tuple[F32, I64, F32]]:
    """User vectors, the rows of the exact answer and their scores, DEPTH of both."""
    seen = {at: bundle.seen(user) for at, user in enumerate(users.tolist())}
    able = [n for n, rows in seen.items() if 0 < len(rows) <= MOST_SEEN]
    asked = [able[at] for at in np.linspace(0, len(able) - 1, min(USERS, len(able)), dtype=int)]
    if not asked:
        return
    fetch = min(DEPTH + max(len(seen[at]) for at in asked), len(bundle.item_vectors))
    available = bundle.item_states == ItemState.AVAILABLE
    queries = vectors[asked].reshape(-1, vectors.shape[-1])
    rows, scores = ExactIndex(bundle.item_vectors).search(queries, fetch, available)
    interests = vectors.shape[1]
    for n, at in enumerate(asked):
        block = slice(n * interests, (n + 1) * interests)
        found, values = merge(rows[block].ravel(), scores[block].ravel(), fetch)
        # What is no number was measured by the gate, and published by force.
        kept = np.flatnonzero(np.isfinite(values) & ~np.isin(found, seen[at]))[:DEPTH]
        if len(kept) == DEPTH:
            yield vectors[at], found[kept], values[kept]


def _edges(values: F64) -> Edges | None:
    """The deciles; None where they are none, because many values are the same."""
    step = LEAST_SPREAD * max(float(np.abs(values).max()), 1e-9)
    values = np.round(values / step) * step
    edges = tuple(np.quantile(values, np.arange(1, DECILES) / DECILES).tolist())
    shares = np.bincount([decile(edges, v) for v in values], minlength=DECILES) / len(values)
    return edges if np.abs(shares - 1 / DECILES).sum() / 2 <= MOST_UNEVEN else None


def _overlap(lists: Sequence[I64]) -> float:
    """Over all pairs of lists, without going through them."""
    counts = Counter(row for rows in lists for row in rows.tolist())
    pairs = len(lists) * (len(lists) - 1)
    return sum(n * (n - 1) for n in counts.values()) / (pairs * DEPTH)
