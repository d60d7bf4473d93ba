from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from contract.errors import RecipeError
from contract.features import Category, Text
from offline import peers
from offline.cold import Row, Split, cold_report, hold_out, rows
from offline.data.dataset import Dataset, prepare
from offline.data.synthetic import World
from offline.data.tables import Tables, write_tables
from offline.evaluate import Evaluation, targets
from offline.recipe import Recipe, parse_recipe

QUESTIONS = ["cold among cold", "cold among all", "warm among all"]


@pytest.fixture(scope="module")
def split(dataset: Dataset, recipe: Recipe) -> Split:
    return hold_out(dataset, recipe)


def test_a_fifth_of_the_items_with_interactions_is_held_out(split: Split, dataset: Dataset) -> None:
    rated = dataset.counts() > 0

    assert split.held.sum() == round(0.2 * rated.sum())
    assert not split.held[~rated].any()
    assert not split.counts[split.held].any()


def test_training_keeps_all_other_interactions_in_order(split: Split, dataset: Dataset) -> None:
    offsets, items, *_ = dataset.sequences
    training = split.training.sequences

    for user in range(0, len(dataset.user_ids), 20):
        every = items[offsets[user] : offsets[user + 1]]
        kept = training.items[training.offsets[user] : training.offsets[user + 1]]
        assert kept.tolist() == every[~split.held[every]].tolist()


def test_no_target_is_trained_on(split: Split) -> None:
    users, positions = targets(split.whole, "test")
    target = split.whole.sequences.items[positions]
    end, training = split.training.split().train_end, split.training.sequences

    for user, item in zip(users, target, strict=True):
        assert item not in training.items[training.offsets[user] : end[user]]


def test_the_encoder_knows_only_the_other_items() -> None:
    items = pl.DataFrame({"item_id": list("abcdefghij"), "kind": [f"k{n}" for n in range(10)]})
    users = [f"u{n}" for n in range(4)]
    log = [(u, i, n) for u in users for n, i in enumerate("abcdefghij")]
    tables = Tables(
        pl.DataFrame(log, schema=["user_id", "item_id", "timestamp"], orient="row"), items, None
    )
    recipe = parse_recipe({"model": "dssm", "features": {"items": {"kind": "category"}}}, "x")

    split = hold_out(prepare(tables, {}, recipe.features.items, 5), recipe)

    field = split.whole.schema.items.field("kind")
    assert isinstance(field, Category)
    assert len(field.values) == 8
    assert (split.whole.items.codes[:, 0] == 0).tolist() == split.held.tolist()
    assert split.held.sum() == 2


def test_what_training_saw_is_no_target() -> None:
    log = [(user, f"i{item}", item) for user in ("long", "short") for item in range(5)]
    log = [row for row in log if row[0] == "long" or row[2] < 3]
    interactions = pl.DataFrame(log, ["user_id", "item_id", "timestamp"], orient="row")
    kinds = pl.DataFrame({"item_id": [f"i{n}" for n in (1, 2, 3, 4, 0)], "kind": list("abcde")})
    recipe = parse_recipe({"model": "dssm", "features": {"items": {"kind": "category"}}}, "x")
    split = hold_out(
        prepare(Tables(interactions, kinds, None), {}, {"kind": "category"}, 5), recipe
    )
    held = [split.whole.item_ids[row] for row in np.flatnonzero(split.held)]
    assert held == ["i0"]  # so `short` has two items left, and training sees both

    asked = {row.question: row.users for row in rows("chance", peers.chance(split.whole), split)}

    assert asked == {"cold among cold": 0, "cold among all": 0, "warm among all": 1}


def catalogue() -> Dataset:
    """Four items; the history of the one user before his target d is a, b."""
    items = pl.DataFrame(
        {
            "item_id": ["a", "b", "c", "d"],
            "kind": ["x", "x", "x", "y"],
            "tags": [["p", "q"], ["p"], ["q"], None],
        }
    )
    log = pl.DataFrame({"user_id": ["u"] * 3, "item_id": ["a", "b", "d"], "timestamp": [1, 2, 3]})
    return prepare(Tables(log, items, None), {}, {"kind": "category", "tags": "multi"}, 5)


def scores(method: Evaluation, users: Sequence[int], positions: Sequence[int]) -> list[list[float]]:
    vectors = method.embed_users(np.array(users), np.array(positions))
    table: list[list[float]] = (vectors[:, 0] @ method.items.items.T).tolist()
    return table


def test_an_item_is_as_popular_as_its_categories_are() -> None:
    method = peers.popular_categories(catalogue(), np.array([6, 2, 0, 1]))

    # x: 8 over the two items that are known; p the same; q: 6 over one; y: 1 over one.
    assert scores(method, [0], [2]) == [pytest.approx([(4 + 4 + 6) / 3, 4, (4 + 6) / 2, 1])]


def test_the_nearest_items_share_rare_words_with_the_history() -> None:
    dataset = catalogue()
    x, y, p, q = np.log([4 / 3, 4, 4 / 2, 4 / 2])
    vectors = np.array([[x, 0, p, q], [x, 0, p, 0], [x, 0, 0, q], [0, y, 0, 0]])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    method = peers.nearest(dataset)

    assert scores(method, [0], [2]) == [pytest.approx(vectors @ (vectors[0] + vectors[1]))]
    assert scores(method, [0], [0]) == [[0.0] * 4]


def test_the_terms_of_an_item_are_its_distinct_codes(dataset: Dataset) -> None:
    found = peers.terms(dataset, (Text,))

    block = dataset.schema.items.block("title")
    assert block
    codes = dataset.items.codes[:, block.start : block.start + block.width]
    assert found.sum(axis=1).tolist() == [len(set(row.tolist()) - {0}) for row in codes]
    assert found.shape[1] == len(np.unique(codes)) - 1


def test_chance_finds_what_chance_finds(split: Split) -> None:
    among_cold = rows("chance", peers.chance(split.whole), split)[0]

    assert among_cold.users > 40
    assert among_cold.metrics["HR@10"] == pytest.approx(10 / split.held.sum(), abs=0.15)


@pytest.fixture(scope="module")
def report(
    world: World, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Row]:
    directory = tmp_path_factory.mktemp("tables")
    write_tables(world.tables, directory)
    found = cold_report(recipe, directory, "cpu", lambda epoch: None)
    return {(row.method, row.question): row for row in found}


def test_a_model_finds_cold_items_by_their_content(report: dict[tuple[str, str], Row]) -> None:
    model, chance = (
        report[name, "cold among cold"].metrics["HR@10"] for name in ("dssm", "chance")
    )
    anywhere = report["dssm", "cold among all"].metrics["HR@10"]

    assert model > chance + 0.3
    assert anywhere > 3 * report["chance", "cold among all"].metrics["HR@10"]


def test_a_report_has_every_method_and_question(
    report: dict[tuple[str, str], Row], dataset: Dataset
) -> None:
    methods = ["dssm", "chance", "popular categories", "tf-idf"]
    assert list(report) == [(method, question) for method in methods for question in QUESTIONS]
    for method in methods:
        cold, same, warm = (report[method, question] for question in QUESTIONS)
        assert cold.users == same.users
        assert cold.users + warm.users == len(targets(dataset, "test")[0])
        assert {"HR@10", "HR@50", "NDCG@10", "NDCG@50"} <= set(warm.metrics)


def test_a_recipe_without_features_of_items_is_refused(tmp_path: Path) -> None:
    recipe = parse_recipe({"model": "sasrec"}, "x")

    with pytest.raises(RecipeError, match=r"^features.items is empty: .*; name a feature"):
        cold_report(recipe, tmp_path, "cpu", lambda epoch: None)
