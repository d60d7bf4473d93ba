"""A store with a trained bundle on generated data, for the benchmarks that need one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from contract.store import LocalStore
from offline.data.synthetic import generate
from offline.data.tables import write_tables
from offline.fit import fit
from offline.publish import IndexChoice, publish
from offline.recipe import read_recipe
from offline.run import Run

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "demo.toml"

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
    """One epoch of training; nothing published yet."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        interactions = min(50 * items + 50_000, MOST_INTERACTIONS)
        tables = generate(users=2_000, items=items, interactions=interactions).tables
        write_tables(tables, folder / "data")
        recipe = read_recipe(RECIPE, ["training.epochs=1"])
        run = fit(recipe, folder / "data", folder / "run", "cpu", lambda _: None)
        yield World(folder, run, LocalStore(folder / "store"))
