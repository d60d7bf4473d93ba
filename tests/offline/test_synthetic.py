import re

import numpy as np
import polars as pl
import pytest

from contract.errors import DataError
from offline.data import synthetic
from offline.data.synthetic import THEMES, World, generate
from offline.data.tables import Tables


@pytest.fixture(scope="module")
def world() -> World:
    return generate(cold=20)


def items_of(world: World) -> pl.DataFrame:
    assert world.tables.items is not None
    return world.tables.items


def histories(world: World) -> dict[str, list[str]]:
    grouped = world.tables.interactions.group_by("user_id", maintain_order=True).agg("item_id")
    return dict(grouped.iter_rows())


def test_the_same_seed_gives_the_same_world_and_another_seed_another() -> None:
    first, again, other = (
        generate(users=200, items=100, interactions=2000, seed=seed, cold=3) for seed in (1, 1, 2)
    )

    assert first.tables.interactions.equals(again.tables.interactions)
    assert items_of(first).equals(items_of(again))
    assert first.tables.users is not None
    assert again.tables.users is not None
    assert first.tables.users.equals(again.tables.users)
    np.testing.assert_array_equal(first.user_tastes, again.user_tastes)
    assert not first.tables.interactions.equals(other.tables.interactions)
    assert not items_of(first).equals(items_of(other))


def test_the_sizes_are_what_was_asked_for(world: World) -> None:
    assert world.tables.users is not None
    assert world.tables.users.height == 2000
    assert items_of(world).height == 1020
    assert 90_000 <= world.tables.interactions.height <= 100_000
    assert world.tables.interactions["user_id"].n_unique() == 2000
    assert world.tables.interactions["item_id"].n_unique() == 1000
    assert world.user_tastes.shape == (2000, 8)
    assert world.item_interests.shape == (1020,)
    np.testing.assert_allclose(world.user_tastes.sum(axis=1), 1.0, rtol=1e-5)


def test_users_drawn_in_many_chunks_keep_their_own_tastes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(synthetic, "DRAWS_PER_CHUNK", 1000)
    world = generate(users=300, items=400, interactions=9000, interests=4)

    log = world.tables.interactions
    assert log["user_id"].n_unique() == 300
    assert not log.select("user_id", "item_id").is_duplicated().any()
    users = log["user_id"].str.slice(1).cast(pl.Int64).to_numpy()
    items = log["item_id"].str.slice(1).cast(pl.Int64).to_numpy()
    tastes = world.user_tastes[users, world.item_interests[items]]
    assert tastes.mean() > 0.5
    others = world.user_tastes[(users + 1) % 300, world.item_interests[items]]
    assert others.mean() < 0.4


def test_no_user_has_an_item_twice_and_time_only_moves_on(world: World) -> None:
    log = world.tables.interactions

    assert not log.select("user_id", "item_id").is_duplicated().any()
    assert log["timestamp"].is_sorted()
    assert not log.select("user_id", "timestamp").is_duplicated().any()


def test_popularity_is_skewed(world: World) -> None:
    counts = world.tables.interactions["item_id"].value_counts(sort=True)["count"].to_numpy()

    assert counts[:100].sum() > 0.4 * counts.sum()


def test_what_comes_next_is_mostly_of_the_interest_of_what_came_last(world: World) -> None:
    log = world.tables.interactions.join(items_of(world), on="item_id", maintain_order="left")
    before = pl.col("category").shift(1).over("user_id")

    share = log.select((pl.col("category") == before).mean()).item()

    assert share > 0.7


def test_titles_are_readable_and_unique_and_features_tell_the_interest(world: World) -> None:
    items = items_of(world)

    assert items["title"].is_unique().all()
    assert all(re.fullmatch(r"The [A-Z][a-z]+ [A-Z][a-z]+ \d+", title) for title in items["title"])
    assert items["category"].to_list() == [
        world.interests[interest] for interest in world.item_interests
    ]
    assert world.interests[0] == "space opera"
    assert set(items["tags"].list.len()) == {2, 3}
    assert not items["tags"].list.eval(pl.element().is_duplicated()).list.any().any()
    tags, category = items["tags"].to_list(), items["category"].to_list()
    for found, interest in zip(tags, category, strict=True):
        assert set(found[:2]) <= set(THEMES[interest][1])


def test_more_interests_than_themes_have_names_of_their_own() -> None:
    world = generate(users=50, items=200, interactions=500, interests=40)

    assert len(set(world.interests)) == 40
    assert world.interests[16] == "space opera 2"
    assert items_of(world)["title"].is_unique().all()


def test_cold_items_have_features_and_no_interactions(world: World) -> None:
    cold = items_of(world).tail(20)

    assert cold["item_id"].to_list() == [f"i{row}" for row in range(1000, 1020)]
    assert cold["title"].null_count() == 0
    assert set(cold["item_id"]).isdisjoint(world.tables.interactions["item_id"])
    assert world.popularity[1000:].tolist() == [0.0] * 20
    assert set(cold["category"]) == set(world.interests)


def test_the_best_answer_is_the_law_worked_out_by_hand() -> None:
    # After i0, of interest 0: 0.7 to stay and 0.15 of it by taste again, so 0.85 against 0.15.
    # With i0, 0.8 of interest 0, passed over: interest 0 is drawn 0.85 / (1 - 0.8 * 0.85) times,
    # interest 1 0.46875 times; so i1 has 0.531, i2 0.281 and i3 0.1875: all in all 1.
    world = World(
        tables=Tables(pl.DataFrame(), None, None),
        interests=("space opera", "slow cooking"),
        user_tastes=np.array([[0.5, 0.5], [0.02, 0.98]], dtype=np.float32),
        item_interests=np.array([0, 0, 1, 1, 0]),
        popularity=np.array([0.8, 0.2, 0.6, 0.4, 0.0]),
    )

    assert world.best_answer(0, ["i0"], 3) == ["i1", "i2", "i3"]
    assert world.best_answer(0, ["i0"], 2) == ["i1", "i2"]
    assert world.best_answer(0, ["i0"], 9) == ["i1", "i2", "i3"]
    assert world.best_answer(0, [], 4) == ["i0", "i2", "i3", "i1"]
    assert world.best_answer(1, [], 4) == ["i2", "i3", "i0", "i1"]
    assert world.best_answer(0, ["i0", "i1", "i2", "i3"], 2) == []


def test_the_best_answer_finds_the_last_item_far_more_often_than_popularity(world: World) -> None:
    ranking = world.tables.interactions["item_id"].value_counts(sort=True)["item_id"].to_list()
    planted = popular = 0
    users = list(histories(world).items())[:500]
    for user_id, items in users:
        *history, last = items
        seen = set(history)
        planted += last in world.best_answer(int(user_id[1:]), history, 10)
        popular += last in [item for item in ranking if item not in seen][:10]

    assert planted > 0.3 * len(users)
    assert planted > 3 * popular


@pytest.mark.parametrize(
    ("users", "items", "interactions", "cold"), [(0, 10, 10, 0), (5, 7, 10, 0), (5, 10, 10, -1)]
)
def test_an_impossible_world_is_refused(
    users: int, items: int, interactions: int, cold: int
) -> None:
    with pytest.raises(DataError, match=f"{users} users, {items} items"):
        generate(users=users, items=items, interactions=interactions, cold=cold)


def test_a_user_who_never_came_leaves_the_others_as_they_are() -> None:
    world = generate(users=50, items=20, interactions=10, interests=2)

    assert 1 <= world.tables.interactions.height <= 10
    assert world.tables.users is not None
    assert world.tables.users.height == 50
