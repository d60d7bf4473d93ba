"""One small world, trained and published once; what a test may change is a copy."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from contract.bundle import Bundle, open_bundle
from contract.manifest import Manifest
from contract.store import LocalStore
from offline.build import IndexChoice
from offline.data.dataset import Dataset, prepare
from offline.data.synthetic import World, generate
from offline.evaluate import embed, ranks
from offline.metrics import ranking_metrics
from offline.publish import publish
from offline.recipe import Recipe, parse_recipe
from offline.run import Description, Run, save_run
from offline.train import train

USERS, ITEMS, COLD = 300, 200, 10
CHANNEL = "live"

RECIPE = {
    "model": "dssm",
    "history_length": 20,
    "features": {
        "users": {"age": "number", "country": "category"},
        "items": {
            "title": "text",
            "category": "category",
            "tags": "multi",
            "year": "number",
            "price": "number",
        },
    },
    "parameters": {
        "dim": 16,
        "history_dim": 12,
        "user_identity_dim": 8,
        "item_identity_dim": 16,
        "field_dim": 8,
        "hidden": 32,
    },
    "objective_parameters": {"temperature": 0.1},
    "training": {"epochs": 4, "batch": 256, "learning_rate": 0.03},
}


def pytest_configure() -> None:
    # Two busy threads are slower than one on tensors of this size.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def world() -> World:
    return generate(users=USERS, items=ITEMS, interactions=12_000, interests=6, seed=3, cold=COLD)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return parse_recipe(RECIPE, "the recipe of the tests")


@pytest.fixture(scope="session")
def dataset(world: World, recipe: Recipe) -> Dataset:
    return prepare(
        world.tables, recipe.features.users, recipe.features.items, recipe.history_length, seq=7
    )


@pytest.fixture(scope="session")
def run(dataset: Dataset, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained run on disk. Not to be changed."""
    return trained_run(dataset, recipe, tmp_path_factory.mktemp("runs") / "run")


def trained_run(dataset: Dataset, recipe: Recipe, path: Path) -> Run:
    trained = train(recipe, dataset, "cpu", lambda epoch: None)
    found = ranks(embed(trained.model, dataset), dataset, "test")
    description = Description(
        recipe=recipe,
        features=dataset.schema,
        seq=dataset.seq,
        epochs=tuple(trained.history),
        samples_per_second=trained.samples_per_second,
        metrics=ranking_metrics(found, (10, 50)),
    )
    return save_run(path, description, dataset, trained.model)


@pytest.fixture(scope="session")
def make_store(
    run: Run, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[IndexChoice], LocalStore]:
    """A new store whose live channel points at a bundle of the run. It takes seconds."""

    def make(choice: IndexChoice) -> LocalStore:
        store = LocalStore(tmp_path_factory.mktemp("store"))
        publish(run, store, CHANNEL, choice)
        return store

    return make


@pytest.fixture(scope="session")
def published(make_store: Callable[[IndexChoice], LocalStore]) -> LocalStore:
    """One bundle, searched exactly, behind the live channel. Not to be changed."""
    return make_store(IndexChoice("exact"))


@pytest.fixture(scope="session")
def bundle(published: LocalStore) -> Bundle:
    return open_bundle(live(published))


@pytest.fixture
def store(published: LocalStore, tmp_path: Path) -> LocalStore:
    """A copy of the published store, for a test to change."""
    shutil.copytree(published.root, tmp_path / "store")
    return LocalStore(tmp_path / "store")


def live(store: LocalStore) -> Path:
    """The directory of the bundle that the live channel points at."""
    channel = store.channel(CHANNEL)
    assert channel
    return store.bundle(channel.version)


def add_copy(store: LocalStore) -> str:
    """The live bundle once more, as a new version that no channel points at yet."""
    original = open_bundle(live(store))

    def fill(directory: Path, version: str) -> Manifest:
        for name in original.manifest.files:
            shutil.copyfile(original.path / name, directory / name)
        return original.manifest.model_copy(update={"version": version, "parent": original.version})

    return store.add(fill).version
