"""`tandem bench build`: from a trained run to a bundle, from a bundle to ready, and what workers
share of it."""

import time

from benchmarks.memory import descendants, mapped_bytes
from benchmarks.table import Row
from benchmarks.world import World, world
from offline.local import local_service
from service.snapshot import load_snapshot

WORKERS = 4


def measure(items: int) -> list[Row]:
    with world(items) as made:
        started = time.perf_counter()
        version = made.publish("auto")
        published = time.perf_counter() - started
        path = made.store.bundle(version)
        size = sum(file.stat().st_size for file in path.iterdir())
        started = time.perf_counter()
        snapshot = load_snapshot(path)
        loaded = time.perf_counter() - started
        ready, _ = _serve(made, workers=1)
        _, together = _serve(made, workers=WORKERS)
    label = f"{items:,} items, {snapshot.bundle.manifest.index.backend}:"
    return [
        Row(f"{label} publish, with export, tuning, gate and fsync", published, "s"),
        Row(f"{label} bundle", size / items, "bytes/item"),
        Row(f"{label} load, check and rehearse, warm", loaded, "s"),
        Row(f"{label} from process start to ready, warm", ready, "s", at_most=2.0),
        # A worker maps no more than the files hold; pages not touched yet count less.
        Row(
            f"{label} mapped by {WORKERS} workers, summed, over the bundle's size",
            together / size,
            "times",
            at_most=1.15,
        ),
    ]


def _serve(made: World, workers: int) -> tuple[float, int]:
    """Seconds until ready, and the proportional set size of the bundle's files."""
    started = time.perf_counter()
    log = made.folder / "service.log"
    with local_service(str(made.store.root), log, {"workers": workers}) as service:
        ready = time.perf_counter() - started
        seen: set[str] = set()
        while len(seen) < workers:
            seen.add(service.call("GET", "/readyz")[2])
        return ready, mapped_bytes(descendants(service.process.pid), made.store.root)
