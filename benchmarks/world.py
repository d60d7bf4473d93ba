"""A store to publish to and a run on generated data, for the benchmarks that need a bundle.

The model is a real one whose weights were never trained: what is measured does not depend on how
good they are, and a million items would take an hour to train on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch

from benchmarks import RECIPES
from contract.store import LocalStore
from offline.build import IndexChoice
from offline.data.dataset import Dataset, prepare
from offline.data.synthetic import generate
from offline.data.tables import Tables
from offline.models import create_model
from offline.models.base import Retriever
from offline.publish import publish
from offline.recipe import Recipe, read_recipe
from offline.run import Description, Run, load_run, save_run

RECIPE = RECIPES / "demo.toml"

USERS = 2_000
MOST_INTERACTIONS = 1_000_000


class World(NamedTuple):
    folder: Path
    run: Run
    store: LocalStore

    def publish(self, backend: str) -> str:
        """Tuned as `tandem publish` does it."""
        return publish(self.run, self.store, "live", IndexChoice(backend, recall=0.99)).version


@contextmanager
def world(items: int) -> Iterator[World]:
    """Nothing published yet."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        interactions = min(50 * items + 50_000, MOST_INTERACTIONS)
        tables = generate(users=USERS, items=items, interactions=interactions).tables
        recipe = read_recipe(RECIPE)
        run = save(folder / "run", recipe, *untrained(recipe, tables))
        yield World(folder, run, LocalStore(folder / "store"))


def untrained(recipe: Recipe, tables: Tables) -> tuple[Dataset, Retriever]:
    """Prepared data and a model of random weights."""
    dataset = prepare(tables, recipe.features.users, recipe.features.items, recipe.history_length)
    torch.manual_seed(recipe.seed)
    users, items = len(dataset.user_ids), len(dataset.item_ids)
    model = create_model(recipe.model, dataset.schema, users, items, recipe.parameters)
    return dataset, model


def save(path: Path, recipe: Recipe, dataset: Dataset, model: Retriever) -> Run:
    """A run without a training."""
    description = Description(
        recipe=recipe,
        features=dataset.schema,
        seq=dataset.seq,
        epochs=(),
        samples_per_second=0.0,
        metrics={},
    )
    save_run(path, description, dataset, model)
    return load_run(path)
