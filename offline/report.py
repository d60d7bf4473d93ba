"""The evaluation of a run: exactly, and through an index as the service would search it."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl

from contract.arrays import F32, I64
from contract.index import Index, load_backend
from contract.merge import merge
from offline.data.dataset import Dataset
from offline.evaluate import BLOCK, Evaluation, Target, embed, ranked, ranks, targets
from offline.metrics import ranking_metrics
from offline.run import Run

MISSED = np.iinfo(np.int64).max


def evaluate_run(
    run: Run, target: Target, ks: Sequence[int], backend: str
) -> dict[str, dict[str, float]]:
    """Metrics by way of ranking: "exact", and under the backend's name those through its index."""
    evaluation = embed(run.model, run.dataset)
    through = ranks_through(evaluation, run.dataset, target, backend, max(ks))
    return {
        "exact": ranking_metrics(ranks(evaluation, run.dataset, target), ks),
        backend: ranking_metrics(through, ks),
    }


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
        yield kind.open(path, vectors, kind.Build(), kind.Search())


def write_ranked(run: Run, target: Target, path: Path, k: int) -> None:
    """Parquet with user_id and ranked: the best k item ids of every user, best first. Ids that were
    integers in the interactions are integers here."""
    users, lists = ranked(embed(run.model, run.dataset), run.dataset, target, k)
    table = pl.DataFrame({"user_id": users, "ranked": lists})
    if "user_id" in run.dataset.integer_ids:
        table = table.with_columns(pl.col("user_id").cast(pl.Int64))
    if "item_id" in run.dataset.integer_ids:
        table = table.with_columns(pl.col("ranked").cast(pl.List(pl.Int64)))
    table.write_parquet(path)
