"""`tandem bench swaps`: what swaps cost under load, beside the throughput of the quiet service.

Generated data, k = 50, seen items excluded, journal checked and metrics counted on every request.
The Python load generator shares the cores and is the slower side: these are figures of correctness
under load, not of the service's limit.
"""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np

from benchmarks.load import Answered, Load
from benchmarks.table import Row
from benchmarks.world import World, world
from offline.local import Service, local_service

WORKERS = 2
CONNECTIONS = 8
SATURATION_SECONDS = 5.0
SWAPS = 20
SWAP_SECONDS = 1.5
"""Of steady load for each swap; the first WINDOW_SECONDS from the swap's call are its window."""
WINDOW_SECONDS = 0.75


def measure(items: int) -> list[Row]:
    with world(items) as made:
        versions = [made.publish("faiss_hnsw"), made.publish("faiss_hnsw")]
        with _service(made, workers=1) as service:
            alone = _saturate(service, made, f"{items:,} items, 1 worker:")
        with _service(made, workers=WORKERS) as service:
            together = _saturate(service, made, f"{items:,} items, {WORKERS} workers:")
            swaps = _swap(service, made, versions, together[0].measured / 2)
    return [*alone, *together, *swaps]


def _service(made: World, workers: int) -> AbstractContextManager[Service]:
    options = {"workers": workers, "watch_seconds": 0.1}
    return local_service(str(made.store.root), made.folder / "service.log", options)


def _saturate(service: Service, made: World, label: str) -> list[Row]:
    with Load(service.port, made.run.dataset.user_ids, CONNECTIONS, None) as load:
        time.sleep(SATURATION_SECONDS)
    answers = load.answers
    return [
        Row(f"{label} throughput", len(answers) / SATURATION_SECONDS, "requests/s"),
        Row(f"{label} not 2xx", _failed(answers), "answers", at_most=0),
        Row(f"{label} p50 at saturation", _percentile(answers, 50), "ms"),
        Row(f"{label} p99 at saturation", _percentile(answers, 99), "ms"),
    ]


def _swap(service: Service, made: World, versions: Sequence[str], rate: float) -> list[Row]:
    starts: list[float] = []
    with Load(service.port, made.run.dataset.user_ids, CONNECTIONS, rate) as load:
        time.sleep(SWAP_SECONDS)
        for swap in range(SWAPS):
            starts.append(time.monotonic())
            made.store.point("live", versions[swap % 2])
            time.sleep(SWAP_SECONDS)
    inside = [a for a in load.answers if any(0 <= a.due - s < WINDOW_SECONDS for s in starts)]
    quiet = sorted(set(load.answers) - set(inside))
    ratio = _percentile(inside, 99) / _percentile(quiet, 99)
    unnamed = sum(a.status == 200 and a.bundle not in versions for a in load.answers)
    label = f"{SWAPS} swaps at {rate:,.0f} requests/s:"
    return [
        Row(f"{label} not 2xx", _failed(load.answers), "answers", at_most=0),
        Row(f"{label} naming no bundle of the two", unnamed, "answers", at_most=0),
        Row(f"{label} quiet p99", _percentile(quiet, 99), "ms"),
        Row(f"{label} p99 in the swap windows", _percentile(inside, 99), "ms"),
        Row(f"{label} window p99 over quiet p99", ratio, "times"),
    ]


def _failed(answers: Sequence[Answered]) -> int:
    return sum(not 200 <= answer.status < 300 for answer in answers)


def _percentile(answers: Sequence[Answered], q: float) -> float:
    return float(np.percentile([answer.seconds for answer in answers], q)) * 1000
