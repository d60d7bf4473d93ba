"""Full-catalogue ranking of a held-out target per user, exactly.

Candidates are the items that occur in the interactions; what the user has already seen is left out,
as in an answer of the service. So a user who had seen their last item before has no target.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from contract.arrays import F32, I32, I64
from offline.data.dataset import Dataset
from offline.embed import ItemVectors, UserEmbedder, embed_items, known_rows, user_embedder
from offline.models.base import Retriever

Target = Literal["validation", "test"]
KS = (10, 50, 100, 200)
MOST_USERS = 20_000
"""Of more users that have a target so many are ranked: the error of HR is .0035 at most."""
BLOCK = 512
SCORES = 2**24
"""Scores at a time, at most; with a large catalogue a block has fewer users."""


class Evaluation(NamedTuple):
    """The embedded catalogue and users of a model at one state of its training."""

    items: ItemVectors
    embed_users: UserEmbedder


def embed(model: Retriever, dataset: Dataset) -> Evaluation:
    """Identity rows of items and users that training never saw are the unknown ones."""
    end = dataset.split().train_end
    items = embed_items(model, dataset, known_rows(dataset.counts(end)))
    users = known_rows(end - dataset.sequences.offsets[:-1])
    return Evaluation(items, user_embedder(model, dataset, users, items.history))


def targets(dataset: Dataset, target: Target) -> tuple[I64, I64]:
    """Users (E,) that have a target, of at most MOST_USERS who are drawn evenly, and the position
    (E,) of the target in the sequences."""
    split = dataset.split()
    positions = split.test if target == "test" else split.validation
    users = np.flatnonzero(positions >= 0)
    if len(users) > MOST_USERS:
        users = users[np.linspace(0, len(users) - 1, MOST_USERS).astype(np.int64)]
    offsets, items, *_ = dataset.sequences
    ends = positions[users]
    new = [
        items[end] not in items[begin:end] for begin, end in zip(offsets[users], ends, strict=True)
    ]
    return users[new], ends[new]


def _block_size(dataset: Dataset) -> int:
    """Users whose scores are worked on at a time."""
    return max(1, min(BLOCK, SCORES // len(dataset.item_ids)))


def scores(
    evaluation: Evaluation, dataset: Dataset, users: I64, positions: I64
) -> Iterator[tuple[slice, F32]]:
    """For blocks of the users: score of every item (b, N), the best over the interests; -inf for
    what was seen before the position and for items without interactions.
    """
    unrated = np.flatnonzero(dataset.counts() == 0)
    size = _block_size(dataset)
    for start in range(0, len(users), size):
        block = slice(start, start + size)
        vectors = evaluation.embed_users(users[block], positions[block])
        # One product of all vectors: numpy multiplies (b, K, D) user by user.
        every = vectors.reshape(-1, vectors.shape[2]) @ evaluation.items.items.T
        table = every.reshape(*vectors.shape[:2], -1).max(axis=1)  # (b, N)
        table[:, unrated] = -np.inf
        for row, (user, position) in enumerate(zip(users[block], positions[block], strict=True)):
            seen = dataset.sequences.items[dataset.sequences.offsets[user] : position]
            table[row, seen] = -np.inf
        yield block, table


def ranks(evaluation: Evaluation, dataset: Dataset, target: Target) -> I64:
    """Rank (E,) of each user's target, 0 for the best; among equal scores the lower row leads."""
    users, positions = targets(dataset, target)
    found = np.empty(len(users), np.int64)
    for block, table in scores(evaluation, dataset, users, positions):
        found[block] = ranks_in(table, dataset.sequences.items[positions[block]])
    return found


class Ranking(NamedTuple):
    """The first `k` items of every user that has a target, and where the target stands."""

    users: I64  # (E,)
    positions: I64  # (E,)
    ranks: I64  # (E,), as of `ranks`
    lists: I64  # (E, k) item rows, best first, -1 after the last candidate


def ranking(evaluation: Evaluation, dataset: Dataset, target: Target, k: int) -> Ranking:
    users, positions = targets(dataset, target)
    found = np.empty(len(users), np.int64)
    lists = np.full((len(users), k), -1)
    for block, table in scores(evaluation, dataset, users, positions):
        found[block] = ranks_in(table, dataset.sequences.items[positions[block]])
        for row, line in zip(lists[block], table, strict=True):
            best = _best(line, k)
            row[: len(best)] = best
    return Ranking(users, positions, found, lists)


def ranks_in(table: F32, wanted: I32) -> I64:
    found = np.empty(len(table), np.int64)
    for row, (line, item) in enumerate(zip(table, wanted, strict=True)):
        own = line[item]
        # Not `line > own`: with that, a score that is NaN would rank first.
        behind = np.count_nonzero(line <= own)
        found[row] = len(line) - behind + np.count_nonzero(line[:item] == own)
    return found


def _best(line: F32, k: int) -> I64:
    """Rows of the k best finite scores of one user; among equal ones the lower row leads."""
    cost = -line  # NaN sorts last, so behind every score
    last = np.partition(cost, min(k, len(line)) - 1)[min(k, len(line)) - 1]
    enough = np.flatnonzero(~(cost > last))
    order = enough[np.argsort(cost[enough], kind="stable")[:k]]
    return order[np.isfinite(line[order])]
