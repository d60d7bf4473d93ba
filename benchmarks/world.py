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
from offline.data.dataset import prepare
from offline.data.synthetic import generate
from offline.models import create_model
from offline.publish import publish
from offline.recipe import read_recipe
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
        yield World(folder, _untrained(items, folder / "run"), LocalStore(folder / "store"))


def _untrained(items: int, path: Path) -> Run:
    recipe = read_recipe(RECIPE)
    interactions = min(50 * items + 50_000, MOST_INTERACTIONS)
    dataset = prepare(
        generate(users=USERS, items=items, interactions=interactions).tables,
        recipe.features.users,
        recipe.features.items,
        recipe.history_length,
    )
    torch.manual_seed(recipe.seed)
    model = create_model(recipe.model, dataset.schema, USERS, items, recipe.parameters)
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
