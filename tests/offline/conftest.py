"""A world that is trained on in a few hundredths of a second."""

import pytest

from offline.data.dataset import Dataset, prepare
from offline.data.synthetic import generate
from offline.recipe import Recipe
from tests.offline.training import changed


@pytest.fixture(scope="session")
def tiny() -> Dataset:
    world = generate(users=60, items=40, interactions=900, interests=4, seed=1)
    return prepare(
        world.tables, {"country": "category"}, {"category": "category", "tags": "multi"}, 10
    )


@pytest.fixture(scope="session")
def short(recipe: Recipe) -> Recipe:
    """The recipe of the tests, cut to the tiny world."""
    features = {"users": {"country": "category"}, "items": {"category": "category"}}
    return changed(
        recipe,
        features=features,
        history_length=10,
        training={"epochs": 2, "batch": 128},
    )
