"""The nearest unseen items of users, by hand, and how much of them an index finds."""

import numpy as np
import pytest

from contract.arrays import F32, I64
from contract.index.base import OVERFETCH, Answer, depth
from contract.index.exact import ExactIndex
from offline.truth import measure, truth

ITEMS, K = 200, 10


@pytest.fixture
def vectors() -> F32:
    return np.random.default_rng(0).standard_normal((ITEMS, 8), dtype=np.float32)


@pytest.fixture
def queries() -> F32:
    return np.random.default_rng(1).standard_normal((6, 8), dtype=np.float32)


@pytest.fixture
def nearest(vectors: F32, queries: F32) -> I64:
    """All rows for each query, the nearest first."""
    return np.argsort(-(queries @ vectors.T), axis=1, kind="stable")


class Shallow(ExactIndex):
    """Finds nothing beyond its first answers, as too small an effort does."""

    def __init__(self, vectors: F32, most: int) -> None:
        super().__init__(vectors)
        self.most, self.asked = most, list[int]()

    def search(self, queries: F32, k: int, allowed: object = None) -> Answer:
        self.asked.append(k)
        rows, scores = super().search(queries, k)
        rows[:, self.most :] = -1
        return rows, scores


def test_whoever_has_seen_nothing_wants_the_nearest(
    vectors: F32, queries: F32, nearest: I64
) -> None:
    wanted = truth(vectors, queries, K)

    np.testing.assert_array_equal(wanted.rows, nearest[:, :K])
    assert wanted.k == K


def test_what_was_seen_is_left_out_however_often(vectors: F32, queries: F32, nearest: I64) -> None:
    """The nearest but one, the third nearest twice, and one that is far away."""
    seen = [rows[[1, 2, 2, 150]].astype(np.int32) for rows in nearest]

    wanted = truth(vectors, queries, K, seen)

    np.testing.assert_array_equal(wanted.rows, np.delete(nearest, [1, 2], axis=1)[:, :K])


def test_of_long_histories_the_last_items_are_left_out(
    vectors: F32, queries: F32, nearest: I64
) -> None:
    most = OVERFETCH * K
    seen = [rows[: most + 3][::-1].astype(np.int32) for rows in nearest]

    wanted = truth(vectors, queries, K, seen)

    np.testing.assert_array_equal(wanted.rows, nearest[:, most : most + K])


def test_where_fewer_are_left_these_are_all(vectors: F32, queries: F32) -> None:
    few = vectors[:12]
    seen = [np.arange(5, dtype=np.int32)] * len(queries)

    wanted = truth(few, queries, K, seen)
    found = measure(ExactIndex(few), len(few), wanted)

    assert (np.sort(wanted.rows[:, :7], axis=1) == np.arange(5, 12)).all()
    assert (wanted.rows[:, 7:] == -1).all()
    assert found.recall == 1.0


@pytest.mark.parametrize(("most", "recall"), [(5 * K, 1.0), (15, 0.5), (K, 0.0)])
def test_recall_is_what_is_left_when_the_seen_are_taken_out(
    vectors: F32, queries: F32, nearest: I64, most: int, recall: float
) -> None:
    """Everyone has seen the ten nearest. An index that finds ten finds no other."""
    seen = [rows[:K].astype(np.int32) for rows in nearest]
    index = Shallow(vectors, most)

    found = measure(index, ITEMS, truth(vectors, queries, K, seen))

    assert found.recall == recall
    assert len(found.seconds) == len(queries)
    assert index.asked == [2 * K] * len(queries)


def test_a_search_asks_for_multiples_of_k_and_not_without_end() -> None:
    asked = [depth(K, removed) for removed in (0, 1, 10, 11, 40, 41, 10_000)]

    assert asked == [10, 20, 20, 30, 50, 50, 50]
