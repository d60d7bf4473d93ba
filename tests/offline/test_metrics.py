from collections import Counter
from math import log2

import numpy as np
import pytest

from contract.arrays import F32, I64
from offline.metrics import (
    BUCKETS,
    bucket_metrics,
    catalogue_metrics,
    gini,
    popularity_buckets,
    ranking_metrics,
    similarities,
)
from tests.documents import table

ITEMS, K = 12, 5


def lists() -> I64:
    """Forty lists of different lengths, some items far more often than others, two never."""
    rng = np.random.default_rng(0)
    weights = np.arange(1, ITEMS - 1) ** 2
    rows = [rng.choice(ITEMS - 2, K, replace=False, p=weights / weights.sum()) for _ in range(40)]
    table = np.array(rows)
    table[3, 2:] = table[17, 4:] = -1
    return table


def test_metrics_of_four_users_are_those_worked_out_by_hand() -> None:
    # The targets are first, third, tenth and eleventh.
    found = ranking_metrics(np.array([0, 2, 9, 10]), (1, 10))

    expected = {
        "HR@1": 1 / 4,
        "Recall@1": 1 / 4,
        "Precision@1": 1 / 4,
        "NDCG@1": 1 / 4,
        "MRR@1": 1 / 4,
        "HR@10": 3 / 4,
        "Recall@10": 3 / 4,
        "Precision@10": 3 / 40,
        "NDCG@10": (1 + 1 / 2 + 1 / log2(11)) / 4,
        "MRR@10": (1 + 1 / 3 + 1 / 10) / 4,
    }
    assert found == pytest.approx(expected)


def test_perfect_ranks_have_metrics_of_one() -> None:
    found = ranking_metrics(np.zeros(3, np.int64), (5,))

    assert found == {"HR@5": 1.0, "Recall@5": 1.0, "Precision@5": 0.2, "NDCG@5": 1.0, "MRR@5": 1.0}


def test_nothing_is_measured_where_there_are_no_users() -> None:
    nobody = np.empty((0, 10), np.int64)

    assert ranking_metrics(nobody[:, 0], (10, 50)) == {}
    assert catalogue_metrics(nobody, np.ones(3, np.int64), np.ones(3, np.bool_), (10,)) == {}


@pytest.mark.parametrize("k", [1, 3, K])
def test_catalogue_metrics_are_those_of_their_definitions(k: int) -> None:
    popularity = np.array([0, 1, 0, 5, 9, 2, 40, 3, 3, 70, 8, 6])
    candidates = np.arange(ITEMS) != 2
    recommended = np.where(lists() == 2, 3, lists())

    found = catalogue_metrics(recommended, popularity, candidates, (k,))

    shown = Counter(row for line in recommended.tolist() for row in line[:k] if row >= 0)
    total = sum(popularity[row] + 1 for row in range(ITEMS) if candidates[row])
    surprise = [-log2((popularity[row] + 1) / total) for row in shown.elements()]
    assert found[f"Coverage@{k}"] == len(shown) / 11
    assert found[f"Novelty@{k}"] == pytest.approx(sum(surprise) / len(surprise))
    assert found[f"Gini@{k}"] == pytest.approx(
        slow_gini([shown[row] for row in range(ITEMS) if candidates[row]])
    )


def slow_gini(counts: list[int]) -> float:
    """Half the mean difference of two different items, over the mean."""
    n = len(counts)
    differences = sum(abs(a - b) for a in counts for b in counts) / (n * (n - 1))
    return differences / 2 / (sum(counts) / n)


def test_gini_is_zero_for_equals_and_one_for_a_single_winner() -> None:
    assert gini(np.full(9, 4)) == 0
    assert gini(np.array([0, 0, 7, 0])) == 1
    assert gini(np.array([1, 3])) == pytest.approx(slow_gini([1, 3]))
    assert gini(np.zeros(5, np.int64)) == gini(np.array([3])) == 0


def test_buckets_split_the_interactions_in_thirds_from_the_most_popular_on() -> None:
    counts = np.array([1, 30, 2, 0, 12, 18, 3, 24, 0])  # 90 in all
    names = [BUCKETS[bucket] for bucket in popularity_buckets(counts)]

    assert names == ["tail", "head", "tail", "cold", "tail", "torso", "tail", "torso", "cold"]
    assert popularity_buckets(np.zeros(2, np.int64)).tolist() == [3, 3]


def test_buckets_of_a_long_tail_hold_about_a_third_each() -> None:
    counts = (10_000 / np.arange(1, 2001)).astype(np.int64)

    buckets = popularity_buckets(counts)

    thirds = np.bincount(buckets, weights=counts)[:3] / counts.sum()
    np.testing.assert_allclose(thirds, 1 / 3, atol=counts[0] / counts.sum())
    assert (np.diff(buckets) >= 0).all()


def test_metrics_of_a_bucket_are_those_of_its_targets_alone() -> None:
    buckets = np.array([0, 0, 1, 2, 2, 2, 3])
    wanted, ranks = np.array([0, 2, 3, 0, 5]), np.array([0, 4, 9, 2, 0])
    candidates = np.array([1, 1, 1, 1, 1, 1, 0], np.bool_)

    found = bucket_metrics(ranks, wanted, buckets, candidates, (1, 5))

    assert list(found) == list(BUCKETS)
    assert [(b.items, b.targets) for b in found.values()] == [(2, 2), (1, 1), (3, 2), (0, 0)]
    assert found["head"].metrics == ranking_metrics(np.array([0, 2]), (1, 5))
    assert found["torso"].metrics["HR@5"] == 1
    assert found["tail"].metrics["HR@1"] == 1 / 2
    assert found["cold"].metrics == {}


def cosine(one: F32, other: F32) -> float:
    return float(one @ other / np.sqrt((one @ one) * (other @ other)))


def test_the_nearest_of_every_item_is_found_at_its_cosine() -> None:
    vectors = np.random.default_rng(1).normal(size=(700, 4)).astype(np.float32)

    found = similarities(vectors, np.random.default_rng(2))

    expected = [
        max(cosine(one, other) for m, other in enumerate(vectors) if m != n)
        for n, one in enumerate(vectors[:40])
    ]
    assert len(found.nearest) == 700
    for value in expected:
        assert np.abs(found.nearest - value).min() < 1e-6


def test_random_pairs_are_never_an_item_with_itself() -> None:
    vectors = np.array([[1, 0], [0, 3], [-2, 0]], np.float32)

    found = similarities(vectors, np.random.default_rng(0), most=500)

    assert set(found.random.tolist()) == {0, -1}
    # A third of the pairs are the opposite ones.
    assert (found.random == -1).mean() == pytest.approx(1 / 3, abs=0.1)


def test_one_item_has_no_similarities() -> None:
    found = similarities(np.ones((1, 3), np.float32), np.random.default_rng(0))

    assert len(found.random) == len(found.nearest) == 0


def test_every_metric_is_documented() -> None:
    found = ranking_metrics(np.zeros(1, np.int64), (1,))
    found |= catalogue_metrics(lists(), np.ones(ITEMS, np.int64), np.ones(ITEMS, np.bool_), (1,))

    documented = table("docs/models.md", "metric", "what it says").column("metric")
    assert documented == [f"{name.partition('@')[0]}@k" for name in found]
