"""Vectors in clusters: k-means, and the cluster that a vector belongs to."""

import numpy as np

from contract.arrays import F32, I64, Bool

# Half as many find 2 to 4 % less, twice as many 1 % more.
SAMPLE_PER_CLUSTER = 128
ROUNDS = 10
SEED = 1234

# Squared lengths that differ by no more, as a share, are those of normalised vectors.
SAME_LENGTH = 1e-4

# Of the products of some vectors with all centres. So numpy finds the nearest of 2,000 to 4,000
# centres in a third of the time of FAISS, on the same cores. Blocks of a quarter of this size took
# eight times as long beside other work: the threads of a product wait for each other at its end.
BLOCK_BYTES = 16 << 20


class Clusters:
    """The centres of clusters, and which one a vector goes to; trained on a sample that is drawn
    by a seed.

    Where lengths differ, one more coordinate makes all vectors equally long, and the nearest one
    that with the largest inner product. A query has a zero there, so the centres are kept without
    it. Clusters of directions found half of what these find.
    """

    def __init__(
        self, vectors: F32, count: int, sample: int = SAMPLE_PER_CLUSTER, seed: int = SEED
    ) -> None:
        """`vectors` (N, D), of which at most `sample` for each of `count` clusters are looked at;
        N >= `count`."""
        lengths = squares(vectors)
        self._longest = float(lengths.max())
        self._levelled = not alike(lengths)
        self._means = self._train(vectors, count, sample, seed)
        self.centres: F32 = np.ascontiguousarray(self._means[:, : vectors.shape[1]])
        """(count, D)"""

    def assign(self, vectors: F32) -> I64:
        """The cluster of each vector (n, D)."""
        return _nearest(self._level(vectors), self._means)

    def _train(self, vectors: F32, count: int, sample: int, seed: int) -> F32:
        """Spherical k-means (Dhillon and Modha, 2001)."""
        generator = np.random.default_rng(seed)
        rows = generator.permutation(len(vectors))[: sample * count]
        drawn = self._level(vectors[rows])
        means = _unit(drawn[:count])
        for _ in range(ROUNDS):
            clusters = _nearest(drawn, means)
            filled, means = _sums(drawn, clusters, count)
            # A cluster that nothing went to begins again at some vector: most lie in large ones.
            means[~filled] = drawn[generator.choice(len(drawn), count - np.count_nonzero(filled))]
            means = _unit(means)
        return means

    def _level(self, vectors: F32) -> F32:
        if not self._levelled:
            return vectors
        lacking = np.maximum(self._longest - squares(vectors), 0, dtype=np.float32)
        return np.column_stack([vectors, np.sqrt(lacking)])


def squares(vectors: F32) -> F32:
    """The squared length of each vector (n, D)."""
    found: F32 = np.einsum("nd,nd->n", vectors, vectors)
    return found


def alike(lengths: F32) -> bool:
    """Whether squared lengths are those of normalised vectors."""
    return float(np.ptp(lengths)) <= SAME_LENGTH * float(lengths.max())


def _nearest(vectors: F32, means: F32) -> I64:
    """The mean (count, D) of the largest inner product with each vector (n, D)."""
    size = max(1, BLOCK_BYTES // (4 * len(means)))
    nearest = np.empty(len(vectors), np.int64)
    products = np.empty((size, len(means)), np.float32)
    for start in range(0, len(vectors), size):
        block = vectors[start : start + size]
        found = np.matmul(block, means.T, out=products[: len(block)])
        nearest[start : start + size] = found.argmax(axis=1)
    return nearest


def _sums(vectors: F32, clusters: I64, count: int) -> tuple[Bool, F32]:
    """Which clusters have vectors, and the sum of those (count, D)."""
    order = np.argsort(clusters, kind="stable")
    sizes = np.bincount(clusters, minlength=count)
    filled = sizes > 0
    sums = np.zeros((count, vectors.shape[1]), np.float32)
    begins = np.cumsum(sizes)[filled] - sizes[filled]
    sums[filled] = np.add.reduceat(vectors[order], begins)
    return filled, sums


def _unit(vectors: F32) -> F32:
    lengths = np.sqrt(squares(vectors))
    lengths[lengths == 0] = 1
    unit: F32 = np.divide(vectors, lengths[:, None])
    return unit
