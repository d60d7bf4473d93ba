"""`tandem bench quality`: train a recipe on its data set and hold it to the figures it promises."""

import tempfile
import time
from pathlib import Path

from benchmarks import RECIPES
from benchmarks.table import Row
from offline.fit import fit
from offline.recipe import read_recipe


def measure(recipe: str, data: Path) -> list[Row]:
    """`recipe` is a name in the recipes folder; `data` a directory of tables."""
    read = read_recipe(RECIPES / f"{recipe}.toml")
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run = fit(read, data, Path(folder) / "run", "cpu", lambda _: None)
        seconds = time.perf_counter() - started
    metrics = run.description.metrics
    figures = [
        Row(f"{recipe}: {name}", metrics[name], "", at_least=wanted)
        for name, wanted in read.expect.items()
    ]
    return [*figures, Row(f"{recipe}: training and evaluation", seconds, "s")]
