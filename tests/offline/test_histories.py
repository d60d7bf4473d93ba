"""Several histories of a user, told apart by the kind of event."""

import numpy as np
import polars as pl
import pytest

from contract.errors import DataError
from contract.kinds import Kinds
from offline.data.dataset import Dataset, Windows, prepare, windows
from offline.data.tables import Tables
from offline.evaluate import embed, ranks
from offline.recipe import parse_recipe
from offline.train import train

USERS, ITEMS, LENGTH = 300, 40, 20


def planted(rng: np.random.Generator) -> pl.DataFrame:
    """Users who view anything, none to four items, and then like what comes after what they liked
    last."""
    rows = []
    for user in range(USERS):
        liked = int(rng.integers(ITEMS))
        for n in range(10):
            # The last two are likes: what is validated can be known.
            views = rng.choice(ITEMS, rng.integers(0, 5) if n < 9 else 0, replace=False)
            rows += [(f"u{user}", f"i{item}", "view") for item in views]
            liked = (liked + 1) % ITEMS
            rows.append((f"u{user}", f"i{liked}", "like"))
    log = pl.DataFrame(rows, ["user_id", "item_id", "kind"], orient="row")
    return log.with_columns(timestamp=pl.int_range(pl.len(), dtype=pl.Int64))


@pytest.fixture(scope="module")
def tables() -> Tables:
    return Tables(planted(np.random.default_rng(1)), None, None)


def hits(tables: Tables, histories: tuple[str, ...]) -> float:
    """The share of users whose next like is the first of all items."""
    recipe = parse_recipe(
        {
            "model": "youtube_dnn",
            "histories": histories,
            "history_length": LENGTH,
            "negatives": "full",
            "parameters": {"dim": 32, "history_dim": 32, "hidden": 64, "dropout": 0.0},
            "objective_parameters": {"temperature": 0.1},
            "training": {"epochs": 30, "batch": 256, "learning_rate": 0.01, "patience": 30},
        },
        "planted",
    )
    dataset = prepare(tables, {}, {}, LENGTH, histories=histories)
    model = train(recipe, dataset, "cpu", lambda epoch: None).model
    return float(np.mean(ranks(embed(model, dataset), dataset, "test") == 0))


def test_what_matters_is_found_where_the_kinds_are_told_apart(tables: Tables) -> None:
    assert hits(tables, ("view", "like")) > 0.85
    assert hits(tables, ()) < 0.65


def test_a_window_says_which_history_each_item_belongs_to() -> None:
    kinds = ["like", "view", "share", None, "like", "hover", "buy"]
    log = pl.DataFrame(
        {
            "user_id": ["u"] * 7,
            "item_id": [f"i{n}" for n in range(7)],
            "timestamp": range(7),
            "kind": kinds,
        }
    )
    dataset = prepare(
        Tables(log, None, None),
        {},
        {},
        LENGTH,
        kinds=Kinds({"hover": "nothing", "share": "seen"}),
        histories=("view", "like", "buy"),
    )

    found = window(dataset, 4)

    assert dataset.schema.histories == ("view", "like", "buy")
    assert [dataset.item_ids[row] for row in found.rows[0]] == ["i1", "i3", "i4", "i6"]
    assert found.kinds.tolist() == [[1, 0, 2, 3]]


def window(dataset: Dataset, length: int) -> Windows:
    """The last items of the first user."""
    end = dataset.sequences.offsets[1:2]
    return windows(dataset.sequences, np.array([0]), end, length)


def test_a_history_that_no_interaction_belongs_to_is_refused(tables: Tables) -> None:
    with pytest.raises(
        DataError,
        match=r"of kind 'buy', which has .*; known are like, view; ",
    ):
        prepare(tables, {}, {}, LENGTH, histories=("view", "buy"))
    bare = Tables(tables.interactions.drop("kind"), None, None)
    with pytest.raises(
        DataError, match=r"'view', which has a history in the recipe; known are none; "
    ):
        prepare(bare, {}, {}, LENGTH, histories=("view", "buy"))
