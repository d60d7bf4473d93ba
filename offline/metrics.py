"""Ranking metrics from the rank of each target. One target per user, so Recall@k is HR@k."""

from collections.abc import Sequence

import numpy as np

from contract.arrays import F64, I64


def ranking_metrics(ranks: I64, ks: Sequence[int]) -> dict[str, float]:
    """ranks (U,) int64, 0 for the best; a rank of k or more is a miss at k.

    Means over the users of HR, Recall, Precision, NDCG and MRR at every k; none where there are no
    users, since a mean of nothing is no number.
    """
    metrics: dict[str, float] = {}
    for k in ks if len(ranks) else ():
        hit = ranks < k
        gain: F64 = np.where(hit, 1.0 / np.log2(ranks + 2.0), 0.0)
        reciprocal: F64 = np.where(hit, 1.0 / (ranks + 1.0), 0.0)
        metrics[f"HR@{k}"] = metrics[f"Recall@{k}"] = float(hit.mean())
        metrics[f"Precision@{k}"] = float(hit.mean()) / k
        metrics[f"NDCG@{k}"] = float(gain.mean())
        metrics[f"MRR@{k}"] = float(reciprocal.mean())
    return metrics
