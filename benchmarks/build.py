"""`tandem bench build`: from a run to a bundle, from a bundle to ready, and what workers share of
it."""

import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.memory import descendants, mapped_bytes
from benchmarks.table import Row
from benchmarks.world import World, world
from contract.manifest import read_manifest
from offline.local import local_service
from service.snapshot import load_snapshot

WORKERS = 4
STARTS = 3


def measure(items: int) -> list[Row]:
    with world(items) as made:
        started = time.perf_counter()
        version = made.publish("auto")
        published = time.perf_counter() - started
        path = made.store.bundle(version)
        size = sum(file.stat().st_size for file in path.iterdir())
        backend, loaded = read_manifest(path).index.backend, _load(path)
        alone = [_serve(made, workers=1) for _ in range(STARTS)]
        together = _serve(made, workers=WORKERS)
    label = f"{items:,} items, {backend}:"
    mapped = alone[-1].mapped
    return [
        Row(f"{label} publish, with export, tuning, gate and fsync", published, "s"),
        Row(f"{label} bundle", size / items, "bytes/item"),
        Row(f"{label} load, check and rehearse, warm", loaded, "s"),
        Row(
            f"{label} from process start to ready, warm, median of {STARTS}",
            median(start.seconds for start in alone),
            "s",
            at_most=2.0,
        ),
        Row(f"{label} mapped by one worker, over the bundle's size", mapped / size, "times"),
        Row(
            f"{label} mapped by {WORKERS} workers, summed, over that of one",
            together.mapped / mapped,
            "times",
            at_most=1.15,
        ),
    ]


class Served(NamedTuple):
    seconds: float
    """Until ready."""
    mapped: int
    """Proportional set size of the bundle's files, summed over the processes."""


def _load(path: Path) -> float:
    """Seconds. Nothing stays mapped: this process would have a share of every page."""
    started = time.perf_counter()
    load_snapshot(path)
    return time.perf_counter() - started


def _serve(made: World, workers: int) -> Served:
    started = time.perf_counter()
    log = made.folder / "service.log"
    with local_service(str(made.store.root), log, {"workers": workers}) as service:
        seconds = time.perf_counter() - started
        seen: set[str] = set()
        while len(seen) < workers:
            seen.add(service.call("GET", "/readyz")[2])
        return Served(seconds, mapped_bytes(descendants(service.process.pid), made.store.root))
