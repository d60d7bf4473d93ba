"""`tandem bench train`: seconds to prepare a million interactions, and DSSM samples a second."""

import tempfile
import time
from pathlib import Path

from benchmarks.table import Row
from offline.data.synthetic import generate
from offline.data.tables import write_tables
from offline.fit import prepare_recipe
from offline.recipe import read_recipe
from offline.train import train

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "demo.toml"
INTERACTIONS = 1_000_000
ITEMS = 4_000
USERS = 6_000


def measure() -> list[Row]:
    # The recipe of the generated data with the model and batch of the MovieLens-1M one.
    size = (
        "dim=64",
        "history_dim=64",
        "item_identity_dim=64",
        "user_identity_dim=32",
        "hidden=256",
    )
    changes = [f"parameters.{change}" for change in size]
    recipe = read_recipe(
        RECIPE, [*changes, "history_length=50", "training.batch=1024", "training.epochs=1"]
    )
    with tempfile.TemporaryDirectory() as folder:
        write_tables(generate(USERS, ITEMS, INTERACTIONS).tables, Path(folder))
        started = time.perf_counter()
        dataset = prepare_recipe(recipe, Path(folder))
        prepared = time.perf_counter() - started
    trained = train(recipe, dataset, "cpu", lambda _: None)
    count = len(dataset.sequences.items)
    return [
        Row(f"preparation of {count:,} interactions", prepared, "s", at_most=5.0),
        Row("DSSM, dim 64, history 50, batch 1024", trained.samples_per_second, "samples/s"),
    ]
