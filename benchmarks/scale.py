"""`tandem bench scale`: preparation and an epoch at any size, and the memory that they need."""

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar, TypeVarTuple

from benchmarks.memory import peak_bytes
from benchmarks.table import Row
from benchmarks.train import generated_recipe
from offline.data.synthetic import generate
from offline.data.tables import write_tables
from offline.fit import prepare_recipe
from offline.train import train

INTERACTIONS_PER_ITEM = 20
ITEMS_PER_USER = 2.5
GIB = 2**30

Given = TypeVarTuple("Given")
Result = TypeVar("Result")


class Trained(NamedTuple):
    interactions: int
    prepared: float
    """Seconds."""
    prepared_peak: int
    """Bytes, of all up to then, the interpreter and its libraries among them."""
    speed: float
    """Samples a second."""
    peak: int


def measure(items: int) -> list[Row]:
    """One epoch of DSSM on generated tables, 20 interactions to an item."""
    with tempfile.TemporaryDirectory() as folder:
        tables = Path(folder)
        _alone(_write, tables, items)
        found = _alone(_train, tables)
    label = f"{found.interactions:,} interactions, {items:,} items:"
    return [
        Row(f"{label} preparation", found.prepared, "s"),
        Row(f"{label} preparation, peak memory", found.prepared_peak / GIB, "GiB"),
        Row(f"{label} DSSM as in dssm-ml1m.toml, one epoch", found.speed, "samples/s"),
        Row(f"{label} and all, peak memory", found.peak / GIB, "GiB", at_most=6.0),
    ]


def _alone(work: Callable[[*Given], Result], *args: *Given) -> Result:
    """What `work` gives in a process of its own, whose memory is then its own too."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, *args).result()


def _write(tables: Path, items: int) -> None:
    users = int(items / ITEMS_PER_USER)
    write_tables(generate(users, items, INTERACTIONS_PER_ITEM * items).tables, tables)


def _train(tables: Path) -> Trained:
    recipe = generated_recipe(epochs=1)
    started = time.perf_counter()
    dataset = prepare_recipe(recipe, tables)
    prepared, prepared_peak = time.perf_counter() - started, peak_bytes()
    speed = train(recipe, dataset, "cpu", lambda _: None).samples_per_second
    return Trained(len(dataset.sequences.items), prepared, prepared_peak, speed, peak_bytes())
