"""`tandem bench build`: from a trained run to a bundle, and from a bundle to ready."""

import time

from benchmarks.table import Row
from benchmarks.world import world
from service.snapshot import load_snapshot


def measure(items: int) -> list[Row]:
    with world(items) as made:
        started = time.perf_counter()
        version = made.publish("faiss_hnsw")
        published = time.perf_counter() - started
        path = made.store.bundle(version)
        size = sum(file.stat().st_size for file in path.iterdir())
        started = time.perf_counter()
        load_snapshot(path)
        loaded = time.perf_counter() - started
    label = f"{items:,} items:"
    return [
        Row(f"{label} publish, with export, gate and fsync", published, "s"),
        Row(f"{label} bundle", size / items, "bytes/item"),
        Row(f"{label} load, check and rehearse, warm", loaded, "s", at_most=2.0),
    ]
