"""Latency at shares of what a service answers at saturation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.contest import LOADING, pinned
from benchmarks.pace import pace
from benchmarks.table import Row

LOADS = (0.1, 0.3, 0.5, 0.7, 0.9)
SECONDS = 3.0
QUANTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}


class Loaded(NamedTuple):
    ms: Mapping[float, Mapping[str, float]]
    """Milliseconds by load and quantile."""
    failed: int
    """Answers other than 2xx, and those that did not come."""

    @property
    def tail(self) -> float:
        """How much longer the slowest wait under load than the usual ones without."""
        return self.ms[0.7]["p99"] / self.ms[0.1]["p50"]

    def rows(self, label: str) -> list[Row]:
        return [
            Row(f"{label} {name} at {load:.0%} load", value, "ms")
            for load, quantiles in self.ms.items()
            for name, value in quantiles.items()
        ]

    def draw(self, label: str, picture: Path) -> None:
        from benchmarks.picture import draw_load

        draw_load(self.ms, f"{label} latency over load", picture)


def loaded(
    url: str, paths: Sequence[str], capacity: float, key: str = "", seconds: float = SECONDS
) -> Loaded:
    """`capacity`: answers a second at saturation. `key` goes with each request. `seconds`: of each
    load."""
    with pinned(LOADING):
        found = {load: pace(url, paths, load * capacity, seconds, key) for load in LOADS}
    ms = {
        load: {name: 1000 * float(np.percentile(seconds, q)) for name, q in QUANTILES.items()}
        for load, seconds in found.items()
    }
    return Loaded(ms, sum(int(np.isinf(seconds).sum()) for seconds in found.values()))
