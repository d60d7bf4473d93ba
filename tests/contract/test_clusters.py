"""k-means against planted clusters, and against FAISS's own."""

import numpy as np
import pytest

from contract.arrays import F32, I64
from contract.index._clusters import Clusters, squares
from contract.index._faiss import faiss

SIZE, DIM = 40, 16


def unit(vectors: F32) -> F32:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / lengths, np.float32)


def planted(count: int, spread: float) -> tuple[F32, I64]:
    """Normalised vectors around so many directions, and which of these each is near."""
    generator = np.random.default_rng(0)
    of = np.repeat(np.arange(count), SIZE)
    directions = unit(generator.standard_normal((count, DIM)).astype(np.float32))
    noise = spread * generator.standard_normal((len(of), DIM)).astype(np.float32)
    order = generator.permutation(len(of))
    return unit(directions[of] + noise)[order], of[order]


def test_what_lies_together_is_one_cluster() -> None:
    vectors, of = planted(8, 0.01)
    found = Clusters(vectors, 32).assign(vectors)
    assert all(len(np.unique(of[found == cluster])) == 1 for cluster in np.unique(found))


def test_a_vector_goes_to_the_nearest_centre() -> None:
    vectors, _ = planted(50, 0.3)
    clusters = Clusters(vectors, 20)
    np.testing.assert_array_equal(
        clusters.assign(vectors), (vectors @ clusters.centres.T).argmax(axis=1)
    )
    np.testing.assert_allclose(squares(clusters.centres), 1, rtol=1e-5)


def test_where_lengths_differ_a_vector_goes_to_those_of_its_length_too() -> None:
    vectors, _ = planted(50, 0.3)
    vectors *= np.random.default_rng(1).lognormal(0, 0.4, (len(vectors), 1)).astype(np.float32)
    lacking = np.sqrt(squares(vectors).max() - squares(vectors))
    level = np.column_stack([vectors, lacking]).astype(np.float32)
    clusters = Clusters(vectors, 20)
    found = clusters.assign(vectors)
    means = unit(np.stack([level[found == cluster].mean(axis=0) for cluster in range(20)]))
    assert np.mean((level @ means.T).argmax(axis=1) == found) > 0.95  # it settles
    np.testing.assert_allclose(clusters.centres, means[:, :DIM], atol=0.1)


@pytest.mark.parametrize("spread", [0.1, 0.5])
def test_as_tight_as_those_of_faiss(spread: float) -> None:
    vectors, _ = planted(100, spread)
    theirs = faiss.Kmeans(DIM, 64, niter=10, spherical=True, min_points_per_centroid=1)
    theirs.train(vectors)
    ours = Clusters(vectors, 64)
    tight = [
        (vectors @ centres.T).max(axis=1).mean() for centres in (ours.centres, theirs.centroids)
    ]
    assert tight[0] > tight[1] - 0.01


def test_the_same_vectors_give_the_same_centres() -> None:
    vectors, _ = planted(100, 0.5)
    np.testing.assert_array_equal(Clusters(vectors, 64).centres, Clusters(vectors, 64).centres)


def test_fewer_different_vectors_than_clusters() -> None:
    vectors = np.repeat(np.eye(4, DIM, dtype=np.float32), 10, axis=0)
    clusters = Clusters(vectors, 9)
    assert np.isfinite(clusters.centres).all()
    np.testing.assert_allclose(clusters.centres[clusters.assign(vectors)], vectors)


def test_vectors_of_zeros() -> None:
    clusters = Clusters(np.zeros((10, DIM), np.float32), 3)
    assert np.isfinite(clusters.centres).all()
