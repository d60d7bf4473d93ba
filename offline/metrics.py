"""Metrics of a ranking: of the targets' ranks, of the lists that are shown, of the item vectors."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from contract.arrays import F32, F64, I64, Bool

Metrics = dict[str, float]
BUCKETS = ("head", "torso", "tail", "cold")
THIRDS = 3
BLOCK = 512


def ranking_metrics(ranks: I64, ks: Sequence[int]) -> Metrics:
    """ranks (U,) int64, 0 for the best; a rank of k or more is a miss at k.

    Means over the users of HR, Recall, Precision, NDCG and MRR at every k; none where there are no
    users, since a mean of nothing is no number. One target per user, so Recall@k is HR@k.
    """
    metrics: Metrics = {}
    for k in ks if len(ranks) else ():
        hit = ranks < k
        gain: F64 = np.where(hit, 1.0 / np.log2(ranks + 2.0), 0.0)
        reciprocal: F64 = np.where(hit, 1.0 / (ranks + 1.0), 0.0)
        metrics[f"HR@{k}"] = metrics[f"Recall@{k}"] = float(hit.mean())
        metrics[f"Precision@{k}"] = float(hit.mean()) / k
        metrics[f"NDCG@{k}"] = float(gain.mean())
        metrics[f"MRR@{k}"] = float(reciprocal.mean())
    return metrics


def catalogue_metrics(lists: I64, popularity: I64, candidates: Bool, ks: Sequence[int]) -> Metrics:
    """What the lists make of the catalogue, at every k; nothing where nothing is shown.

    lists (U, K) item rows, best first, -1 after the end; popularity (N,) training interactions;
    candidates (N,) what may be recommended.

    Coverage: share of the candidates that stand in anyone's first k (Ge et al., RecSys 2010).
    Novelty: mean -log2 of the share of the interactions of what is shown (Zhou et al., PNAS 2010,
    with the share of the users); each item counts one interaction more, so that a cold one is
    finite. Gini: `gini` of the times that each candidate is shown.
    """
    shares = (popularity + 1.0) / (popularity[candidates] + 1.0).sum()
    metrics: Metrics = {}
    for k in ks if (lists >= 0).any() else ():
        shown = times_shown(lists[:, :k], len(popularity))
        metrics[f"Coverage@{k}"] = float((shown[candidates] > 0).mean())
        metrics[f"Novelty@{k}"] = float(-(shown * np.log2(shares)).sum() / shown.sum())
        metrics[f"Gini@{k}"] = gini(shown[candidates])
    return metrics


def times_shown(lists: I64, items: int) -> I64:
    """In how many of the lists each of the `items` rows stands, (items,)."""
    return np.bincount(lists[lists >= 0], minlength=items)


def gini(counts: I64) -> float:
    """How unequal the counts (N,) are: 0 where all are equal, 1 where one item has them all
    (Fleder and Hosanagar, Management Science 2009; scaled by N - 1 to reach 1)."""
    n, total = len(counts), counts.sum()
    if n < 2 or total == 0:
        return 0.0
    weights = 2.0 * np.arange(1, n + 1) - n - 1
    return float((weights * np.sort(counts)).sum() / (total * (n - 1)))


def popularity_buckets(counts: I64) -> I64:
    """counts (N,) training interactions -> the bucket of each item, a position in BUCKETS.

    From the most popular item on, head, torso and tail have a third of the interactions each; an
    item belongs where its first interaction falls. Items without any are cold.
    """
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    buckets = np.empty(len(counts), np.int64)
    buckets[order] = before * THIRDS // max(int(counts.sum()), 1)
    buckets[counts == 0] = BUCKETS.index("cold")
    return buckets


class Bucket(NamedTuple):
    """The targets that are items of one bucket."""

    items: int
    targets: int
    metrics: Metrics


def bucket_metrics(
    ranks: I64, wanted: I64, buckets: I64, candidates: Bool, ks: Sequence[int]
) -> Mapping[str, Bucket]:
    """ranks (U,) of the targets wanted (U,) -> the ranking metrics of every bucket by itself."""
    own = buckets[wanted]
    return {
        name: Bucket(
            items=int((buckets[candidates] == bucket).sum()),
            targets=int((own == bucket).sum()),
            metrics=ranking_metrics(ranks[own == bucket], ks),
        )
        for bucket, name in enumerate(BUCKETS)
    }


class Similarities(NamedTuple):
    """Cosines of item vectors: a healthy space has neighbours, and strangers far from them."""

    random: F32
    """Of pairs of different items, drawn at random."""
    nearest: F32
    """Of items with the one most similar to each."""


def similarities(vectors: F32, rng: np.random.Generator, most: int = 2000) -> Similarities:
    """vectors (N, D) -> cosines of `most` random pairs and of at most `most` items with their
    nearest; none where there are fewer than two items."""
    count = len(vectors)
    if count < 2:
        return Similarities(np.empty(0, np.float32), np.empty(0, np.float32))
    unit = directions(vectors)
    first = rng.integers(0, count, most)
    second = (first + rng.integers(1, count, most)) % count
    sample = rng.permutation(count)[:most]
    nearest = np.concatenate(
        [_nearest(unit, sample[start : start + BLOCK]) for start in range(0, len(sample), BLOCK)]
    )
    return Similarities((unit[first] * unit[second]).sum(axis=1), nearest)


def directions(vectors: F32) -> F32:
    """The vectors (N, D) at length 1; zero stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: F32 = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def _nearest(unit: F32, rows: I64) -> F32:
    table = unit[rows] @ unit.T
    table[np.arange(len(rows)), rows] = -np.inf
    best: F32 = table.max(axis=1)
    return best
