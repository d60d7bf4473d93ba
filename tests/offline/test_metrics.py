from math import log2

import numpy as np
import pytest

from offline.metrics import ranking_metrics


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
    assert ranking_metrics(np.empty(0, np.int64), (10, 50)) == {}
