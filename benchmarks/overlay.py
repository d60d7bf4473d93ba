"""`tandem bench overlay`: what items that were posted since the bundle cost a recall, and what it
costs to take them in.

New items have the features of items of the bundle, and titles of their own. k = 50, one thread, a
state with the overlay and one without by turns, user by user; medians of processor time, so that
what else the machine does counts little. Appends to the journal are real ones, with fsync.
"""

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import orjson

from benchmarks.table import Row
from benchmarks.world import World, world
from contract.arrays import F32
from contract.index.exact import scan
from contract.journal import Entry, GroupCommit, Record
from contract.journal.sqlite import SqliteJournal
from contract.merge import merge
from offline.progress import Progress
from service.engine import recall
from service.posted import encode_items
from service.request import Recall
from service.snapshot import Snapshot, load_snapshot
from service.state import State

SIZES = (1_000, 20_000, 200_000)
MOST = {20_000: 1.3, 200_000: 2.0}
"""Times the recall without an overlay."""
LEAST_RECALL = 0.99
K, BATCH, TURNS = 50, 1_000, 400
WRITERS, SECONDS = 32, 3.0


def measure(items: int) -> list[Row]:
    with world(items) as made, Progress("overlay", 0) as progress:
        progress.advance(0, "publishing")
        snapshot = load_snapshot(made.store.bundle(made.publish("auto")))
        progress.advance(0, "recalling")
        return [*_sizes(made, snapshot), *_appends(made.folder, snapshot)]


def _sizes(made: World, snapshot: Snapshot) -> Iterator[Row]:
    label = f"{snapshot.items:,} items"
    bare, grown = (State.of(snapshot, 1_000, 1) for _ in range(2))
    users = [Recall(K, user) for user in made.run.dataset.user_ids[:TURNS]]
    yield Row(f"{label}, no overlay: recall p50", _us(_turns(bare, bare, users)[0]), "us")
    for size in SIZES:
        before, start = _resident(), grown.overlay.slots
        applied = [_applied(grown, snapshot, first) for first in range(start, size, BATCH)]
        grown.overlay.settle()
        alone, beside = _turns(bare, grown, users)
        name = f"{label}, {size:,} in the overlay:"
        yield Row(f"{name} recall p50", _us(beside), "us")
        yield Row(f"{name} over no overlay", beside / alone, "times", at_most=MOST.get(size))
        found = _recall(grown, made, users)
        yield Row(f"{name} recall@{K} of the overlay", found, "", at_least=LEAST_RECALL)
        yield Row(f"{name} to apply {BATCH:,}, median", 1e3 * median(applied), "ms")
        yield Row(f"{name} to apply {BATCH:,}, longest", 1e3 * max(applied), "ms")
        grew = (_resident() - before) / (grown.overlay.slots - start)
        yield Row(f"{name} memory that was added", grew, "bytes/item")
    yield from _tower(snapshot, label)


def _tower(snapshot: Snapshot, label: str) -> Iterator[Row]:
    """Of what an apply takes: the parts that do not grow with the overlay."""
    bodies = [_body(snapshot, n) for n in range(BATCH)]
    identity = snapshot.bundle.item_identity[[0] * BATCH]
    encoded = encode_items(snapshot, bodies)
    encoding = median(_timed(partial(encode_items, snapshot, bodies)) for _ in range(9))
    embedding = median(_timed(partial(snapshot.item_tower, identity, encoded)) for _ in range(9))
    yield Row(f"{label}, {BATCH:,} appended: to encode them", 1e3 * encoding, "ms")
    yield Row(f"{label}, {BATCH:,} appended: item tower", 1e3 * embedding, "ms")


def _body(snapshot: Snapshot, n: int) -> dict[str, Any]:
    features = orjson.loads(snapshot.bundle.attributes.raw(n * 7919 % snapshot.items))
    words = str(features.get("title") or "The Posted").rsplit(" ", 1)[0]
    return {"item_id": f"posted-{n}", "features": features | {"title": f"{words} {n}"}}


def _applied(state: State, snapshot: Snapshot, first: int) -> float:
    records = [Record(n + 1, 0.0, "item", _body(snapshot, n)) for n in range(first, first + BATCH)]
    return _timed(partial(state.apply, records))


def _turns(bare: State, grown: State, users: Sequence[Recall]) -> tuple[float, float]:
    """Median seconds of a recall on each, by turns."""
    seconds: dict[int, list[float]] = {0: [], 1: []}
    for number, user in enumerate(users):
        for side, state in ((0, bare), (1, grown))[:: 1 if number % 2 else -1]:
            recall(state, user)
            seconds[side].append(_timed(partial(recall, state, user)))
    return median(seconds[0]), median(seconds[1])


def _recall(state: State, made: World, users: Sequence[Recall]) -> float:
    """The share of the overlay's best k that its search finds, over users of the bundle."""
    shares = []
    for user in users:
        assert user.user_id
        vectors = _user_vectors(state.snapshot, user.user_id)
        rows, scores = state.overlay.search_slots(vectors, K)
        found, _ = merge(rows.ravel(), scores.ravel(), K)
        best, best_scores = scan(state.overlay.vectors, vectors, K)
        wanted, _ = merge(best.ravel() + state.overlay.base, best_scores.ravel(), K)
        shares.append(np.isin(wanted, found).mean())
    return float(np.mean(shares))


def _user_vectors(snapshot: Snapshot, user_id: str) -> F32:
    return snapshot.embed_known(snapshot.bundle.user_ids.row(user_id))


def _appends(folder: Path, snapshot: Snapshot) -> Iterator[Row]:
    entries = [Entry("item", _body(snapshot, n)) for n in range(BATCH)]
    journal = SqliteJournal(folder / "journal.db")
    label = "durable appends,"
    single = _rate(lambda n: journal.append([entries[n % BATCH]]))
    yield Row(f"{label} one writer, one by one", single, "items/s")
    with ThreadPoolExecutor(WRITERS) as writers:
        group = GroupCommit(journal)
        together = _rate(lambda n: _submit(group, entries, writers)) * BATCH
        group.close()
    yield Row(f"{label} {WRITERS} writers, one by one", together, "items/s")
    yield Row(
        f"{label} {BATCH:,} at a time", _rate(lambda n: journal.append(entries)) * BATCH, "items/s"
    )
    journal.close()


def _submit(group: GroupCommit, entries: Sequence[Entry], writers: ThreadPoolExecutor) -> None:
    for _ in writers.map(lambda entry: group.submit([entry]).result(), entries):
        pass


def _rate(write: Callable[[int], object]) -> float:
    """Calls a second."""
    count, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < SECONDS:
        write(count)
        count += 1
    return count / passed


def _timed(run: Callable[[], object]) -> float:
    started = time.thread_time()
    run()
    return time.thread_time() - started


def _us(seconds: float) -> float:
    return seconds * 1e6


def _resident() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
