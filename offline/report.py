"""The evaluation of a run: exactly, and through an index as the service would search it."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from contract.arrays import F32, I64
from contract.index import Index, discard_index, load_backend
from contract.merge import merge
from offline.data.dataset import Dataset
from offline.evaluate import BLOCK, Evaluation, Ranking, Target, embed, ranking, targets
from offline.metrics import (
    Bucket,
    Metrics,
    Similarities,
    bucket_metrics,
    catalogue_metrics,
    popularity_buckets,
    ranking_metrics,
    similarities,
)
from offline.run import Run

MISSED = np.iinfo(np.int64).max
SEED = 0
QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Report:
    target: Target
    ks: Sequence[int]
    backend: str
    exact: Metrics
    """Of the exact ranking: where the targets stand, and what the lists make of the catalogue."""
    through: Metrics
    """Where the targets stand in what the backend's index answers."""
    buckets: Mapping[str, Bucket]
    similarities: Similarities
    ranking: Ranking
    vectors: F32  # (N, D), of the items

    def figures(self) -> dict[str, Any]:
        """The report without its arrays, for a program to read."""
        return {
            "exact": self.exact,
            self.backend: self.through,
            "buckets": {
                name: {"items": bucket.items, "targets": bucket.targets, **bucket.metrics}
                for name, bucket in self.buckets.items()
            },
            "similarities": {
                name: {f"{q:.0%}": float(np.quantile(cosines, q)) for q in QUANTILES}
                for name, cosines in self.similarities._asdict().items()
                if len(cosines)
            },
        }


def evaluate_run(run: Run, target: Target, ks: Sequence[int], backend: str) -> Report:
    dataset, evaluation = run.dataset, embed(run.model, run.dataset)
    found = ranking(evaluation, dataset, target, max(ks))
    trained, candidates = dataset.counts(dataset.split().train_end), dataset.counts() > 0
    through = ranks_through(evaluation, dataset, target, backend, max(ks))
    wanted = dataset.sequences.items[found.positions].astype(np.int64)
    buckets = popularity_buckets(trained)
    vectors = evaluation.items.items
    return Report(
        target=target,
        ks=ks,
        backend=backend,
        exact=ranking_metrics(found.ranks, ks)
        | catalogue_metrics(found.lists, trained, candidates, ks),
        through=ranking_metrics(through, ks),
        buckets=bucket_metrics(found.ranks, wanted, buckets, candidates, ks),
        similarities=similarities(vectors[candidates], np.random.default_rng(SEED)),
        ranking=found,
        vectors=vectors,
    )


def ranks_through(
    evaluation: Evaluation, dataset: Dataset, target: Target, backend: str, depth: int
) -> I64:
    """Rank (E,) of each user's target in what an index answers; MISSED beyond `depth`.

    The index holds the items that occur in the interactions. As in the service, it is asked for as
    many more as the user has seen, which are then left out.
    """
    rated = np.flatnonzero(dataset.counts() > 0)
    users, positions = targets(dataset, target)
    found = np.full(len(users), MISSED)
    with temporary_index(backend, evaluation.items.items[rated]) as index:
        for start in range(0, len(users), BLOCK):
            block = slice(start, start + BLOCK)
            vectors = evaluation.embed_users(users[block], positions[block])
            for row, vector in enumerate(vectors, start=start):
                seen = dataset.sequences.items[
                    dataset.sequences.offsets[users[row]] : positions[row]
                ]
                rows, scores = index.search(vector, min(len(rated), depth + len(seen)))
                best, _ = merge(rows.ravel(), scores.ravel(), rows.size)
                unseen = rated[best][~np.isin(rated[best], seen)]
                hit = np.flatnonzero(unseen == dataset.sequences.items[positions[row]])
                found[row] = hit[0] if len(hit) else MISSED
    return found


@contextmanager
def temporary_index(backend: str, vectors: F32) -> Iterator[Index]:
    """An index with the backend's default parameters, gone afterwards."""
    kind = load_backend(backend)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / (kind.filename or "")
        kind.build(vectors, path, kind.Build())
        try:
            yield kind.open(path, vectors, kind.Build(), kind.Search())
        finally:
            discard_index(Path(folder))


def write_ranked(run: Run, ranking: Ranking, path: Path) -> None:
    """Parquet with user_id and ranked: the item ids of every user's list, best first. Ids that were
    integers in the interactions are integers here."""
    dataset = run.dataset
    item_ids = np.array(dataset.item_ids, dtype=object)
    lists = [item_ids[row[row >= 0]].tolist() for row in ranking.lists]
    users = [dataset.user_ids[user] for user in ranking.users]
    table = pl.DataFrame({"user_id": users, "ranked": lists})
    if "user_id" in dataset.integer_ids:
        table = table.with_columns(pl.col("user_id").cast(pl.Int64))
    if "item_id" in dataset.integer_ids:
        table = table.with_columns(pl.col("ranked").cast(pl.List(pl.Int64)))
    table.write_parquet(path)
