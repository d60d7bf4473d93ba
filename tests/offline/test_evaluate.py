import numpy as np
import polars as pl
import pytest
import torch

from contract.arrays import F32, I64
from offline import evaluate
from offline.data.dataset import Dataset, prepare
from offline.data.tables import Tables
from offline.embed import ItemVectors, known_rows
from offline.evaluate import Evaluation, embed, ranking, ranks, scores, targets
from offline.run import Run

ITEMS, DIM = 30, 3


def small() -> Dataset:
    """Forty users of different lengths; some meet an item twice; six items are never met."""
    rng = np.random.default_rng(4)
    log = [
        (f"u{user}", f"i{item}", time)
        for user in range(40)
        for time, item in enumerate(rng.integers(0, ITEMS - 6, user % 9))
    ]
    interactions = pl.DataFrame(log, ["user_id", "item_id", "timestamp"], orient="row")
    items = pl.DataFrame({"item_id": [f"i{n}" for n in range(ITEMS)]})
    return prepare(Tables(interactions, items, None), {}, {}, 4)


def evaluation() -> Evaluation:
    """Vectors of small whole numbers: scores are exact, and many are equal."""
    rng = np.random.default_rng(5)
    items = rng.integers(-2, 3, (ITEMS, DIM)).astype(np.float32)
    users = rng.integers(-2, 3, (1000, 2, DIM)).astype(np.float32)

    def embed_users(rows: I64, positions: I64) -> F32:
        return users[positions]

    return Evaluation(ItemVectors(items, items), embed_users)


def slow_lists(
    dataset: Dataset, evaluation: Evaluation, target: evaluate.Target
) -> list[list[int]]:
    """All candidates of each user in order, a user and an item at a time."""
    lists = []
    offsets, items, *_ = dataset.sequences
    for user in range(len(dataset.user_ids)):
        begin, end = int(offsets[user]), int(offsets[user + 1])
        position = end - 1 if target == "test" else end - 2
        seen = set(items[begin:position].tolist())
        if end - begin < 3 or int(items[position]) in seen:
            continue
        vectors = evaluation.embed_users(np.array([user]), np.array([position]))[0]
        candidates = sorted(set(items.tolist()) - seen)
        scores = {
            row: max(float(vector @ evaluation.items.items[row]) for vector in vectors)
            for row in candidates
        }
        lists.append(sorted(candidates, key=lambda row: (-scores[row], row)))
    return lists


def test_ranks_and_lists_are_those_of_a_plain_reference() -> None:
    dataset, found = small(), evaluation()
    for target in ("validation", "test"):
        expected = slow_lists(dataset, found, target)
        users, positions = targets(dataset, target)
        wanted = dataset.sequences.items[positions]
        places = [order.index(item) for order, item in zip(expected, wanted, strict=True)]

        best = ranking(found, dataset, target, k=10)

        assert ranks(found, dataset, target).tolist() == best.ranks.tolist() == places
        assert best.users.tolist() == users.tolist()
        assert best.positions.tolist() == positions.tolist()
        assert best.lists.tolist() == [order[:10] for order in expected]


def test_lists_end_where_the_candidates_end() -> None:
    dataset, found = small(), evaluation()

    lists = ranking(found, dataset, "test", k=100).lists

    assert lists.tolist() == [
        order + [-1] * (100 - len(order)) for order in slow_lists(dataset, found, "test")
    ]
    assert (lists >= 0).sum(axis=1).max() < ITEMS - 5


def test_blocks_of_users_make_no_difference(run: Run) -> None:
    found = embed(run.model, run.dataset)
    users, positions = targets(run.dataset, "test")
    whole = found.embed_users(users, positions)

    parts = [
        found.embed_users(users[n : n + 1], positions[n : n + 1])[0] for n in range(0, 300, 29)
    ]

    np.testing.assert_allclose(whole[::29], np.array(parts), atol=1e-6)


def test_what_the_user_has_seen_is_never_recommended(run: Run) -> None:
    dataset = run.dataset
    found = ranking(embed(run.model, dataset), dataset, "test", k=50)
    offsets, items, *_ = dataset.sequences

    assert len(found.users) == 300
    for user, recommended in zip(found.users, found.lists.tolist(), strict=True):
        seen = items[offsets[user] : offsets[user + 1] - 1].tolist()
        assert len(set(recommended)) == 50
        assert min(recommended) >= 0
        assert not set(seen) & set(recommended)


def test_an_item_without_interactions_is_no_candidate(run: Run) -> None:
    cold = len(run.dataset.item_ids) - 10

    lists = ranking(embed(run.model, run.dataset), run.dataset, "test", k=300).lists

    assert lists.max() < cold


def test_a_model_of_nan_ranks_last_and_not_first() -> None:
    dataset, found = small(), evaluation()
    broken = ItemVectors(np.full_like(found.items.items, np.nan), found.items.history)

    best = ranking(found._replace(items=broken), dataset, "test", k=10)

    assert (best.ranks >= len(set(dataset.sequences.items.tolist()))).all()
    assert (best.lists == -1).all()


def test_an_item_whose_score_is_nan_is_left_out_of_the_lists() -> None:
    dataset, found = small(), evaluation()
    damaged = found.items.items.copy()
    damaged[3] = np.nan

    best = ranking(found._replace(items=ItemVectors(damaged, damaged)), dataset, "test", k=10)

    expected = [[row for row in order if row != 3] for order in slow_lists(dataset, found, "test")]
    assert best.lists.tolist() == [order[:10] for order in expected]


def test_items_and_users_that_training_never_saw_are_embedded_as_unknown(run: Run) -> None:
    assert known_rows(np.array([3, 0, 1])).tolist() == [1, 0, 3]

    dataset, model = run.dataset, run.model
    codes, numbers = (torch.from_numpy(a[-1:]) for a in dataset.items)
    with torch.no_grad():
        inputs = model.item_inputs(model.item_identity.weight[:1], codes, numbers)
        unknown = model.item_vectors(inputs)

    vectors = embed(model, dataset).items.items
    np.testing.assert_allclose(vectors[-1:], unknown.numpy(), atol=1e-6)


def test_of_very_many_users_an_even_share_is_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, found = small(), evaluation()
    users, positions = targets(dataset, "test")
    every = ranks(found, dataset, "test")

    monkeypatch.setattr(evaluate, "MOST_USERS", 9)
    some, their = targets(dataset, "test")

    long = np.flatnonzero(dataset.split().test >= 0)
    drawn = [long[share * (len(long) - 1) // 8] for share in range(9)]
    at = np.flatnonzero(np.isin(users, drawn))
    assert 0 < len(at) < 9  # the last item of some was not new
    assert some.tolist() == users[at].tolist()
    assert their.tolist() == positions[at].tolist()
    assert ranks(found, dataset, "test").tolist() == every[at].tolist()


def test_who_had_seen_their_last_item_before_has_no_target() -> None:
    log = [("u1", "a", 1), ("u1", "b", 2), ("u1", "c", 3), ("u1", "a", 4)]
    log += [("u2", "a", 1), ("u2", "b", 2), ("u2", "b", 3), ("u2", "c", 4)]
    interactions = pl.DataFrame(log, ["user_id", "item_id", "timestamp"], orient="row")
    dataset = prepare(Tables(interactions, None, None), {}, {}, 4)

    found = {name: targets(dataset, name) for name in ("validation", "test")}

    assert [found["validation"][0].tolist(), found["validation"][1].tolist()] == [[0], [2]]
    assert [found["test"][0].tolist(), found["test"][1].tolist()] == [[1], [7]]


def test_a_large_catalogue_is_scored_for_fewer_users_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset, found = small(), evaluation()
    users, positions = targets(dataset, "test")
    every = np.concatenate([table for _, table in scores(found, dataset, users, positions)])

    monkeypatch.setattr(evaluate, "SCORES", 2 * len(dataset.item_ids) + 1)
    blocks = list(scores(found, dataset, users, positions))

    assert {len(table) for _, table in blocks[:-1]} == {2}
    np.testing.assert_allclose(np.concatenate([table for _, table in blocks]), every, atol=1e-6)
