"""`tandem bench train`: seconds to prepare a million interactions, DSSM samples a second, and those
of torch-rechub's DSSM on the same tables and cores."""

import json
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks import RECIPES
from benchmarks.table import Row
from contract.errors import TrainingError
from offline.data.synthetic import generate
from offline.data.tables import write_tables
from offline.fit import prepare_recipe
from offline.recipe import Recipe, parse_recipe, read_recipe
from offline.train import train

PEER = Path(__file__).resolve().parent / "peer_rechub.py"
USERS, ITEMS, INTERACTIONS = 6_000, 4_000, 1_000_000
EPOCHS = 2
RECORDED = 17_600.0
"""Samples a second of torch-rechub 0.9.0 on one core of an Intel Xeon at 2.3 GHz, one thread."""


def measure(peer: Path | None) -> list[Row]:
    """`peer`: the Python of an environment that has torch-rechub; without it ours is compared with
    the recorded figure, and the row says so."""
    with tempfile.TemporaryDirectory() as folder:
        write_tables(generate(USERS, ITEMS, INTERACTIONS).tables, Path(folder))
        return _measure(Path(folder), peer)


def _measure(tables: Path, peer: Path | None) -> list[Row]:
    recipe = generated_recipe(EPOCHS)
    started = time.perf_counter()
    dataset = prepare_recipe(recipe, tables)
    prepared = time.perf_counter() - started
    ours = train(recipe, dataset, "cpu", lambda _: None).samples_per_second
    count = len(dataset.sequences.items)
    rows = [
        Row(f"preparation of {count:,} interactions", prepared, "s", at_most=5.0),
        Row("DSSM as in dssm-ml1m.toml", ours, "samples/s"),
    ]
    if peer:
        theirs = _peer(peer, tables)
        found, label = theirs["samples_per_second"], "torch-rechub's DSSM"
        rows.append(Row(f"{label}: preparation", theirs["preparation"], "s"))
    else:
        found, label = RECORDED, "torch-rechub's DSSM, recorded, not run"
    rows.append(Row(label, found, "samples/s"))
    rows.append(Row(f"ours over {label}", ours / found, "times", at_least=10.0))
    return rows


def generated_recipe(epochs: int) -> Recipe:
    """The features of the generated data, all else as MovieLens-1M is trained."""
    demo, real = (read_recipe(RECIPES / name) for name in ("demo.toml", "dssm-ml1m.toml"))
    document = real.model_dump(exclude={"expect"}) | {"features": demo.features.model_dump()}
    document["training"] |= {"epochs": epochs}
    return parse_recipe(document, "the recipe of the benchmark")


def _peer(python: Path, tables: Path) -> dict[str, float]:
    """The last line that it prints is JSON."""
    done = subprocess.run([python, PEER, tables], capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise TrainingError(f"{python}: {reason}; see benchmarks/peer_rechub.py for what it needs")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found
