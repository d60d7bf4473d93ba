"""`tandem bench serve`: the whole recall beside an empty web handler, and beside the naive service.

The planted world: real bundle, k = 50, a history of 50, seen items left out, journal checked and
metrics counted on every request. Absolute figures mean little on shared machines: what has a bar is
a ratio of two that were asked by turns in one run, one worker on one core, `wrk` on another.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from benchmarks.contest import CORES, Contender, Rates, contest, uvicorn
from benchmarks.loads import loaded
from benchmarks.memory import cpu_seconds, descendants, proportional_bytes
from benchmarks.naive import index_of
from benchmarks.planted import planted
from benchmarks.served import Asked, K, questions, serving, write_lines
from benchmarks.table import Row
from benchmarks.world import World
from benchmarks.wrk import CONNECTIONS
from contract.store import LocalStore
from offline import tune
from offline.build import IndexChoice
from offline.local import Service
from offline.publish import publish
from offline.run import Run, load_run
from offline.truth import measure as measured
from offline.truth import truth
from service.snapshot import load_snapshot

STAGES = ("encode", "tower", "search", "merge")
STARTS, SHARING = 3, 4
MOST_IN_A_GRAPH = 200_000
"""Up to here the naive service has a graph, beyond it a flat index: so its writers would choose."""
ASKED = 400
"""Users whose true neighbours are looked for in both."""
ALIKE = "alike"
BARRED = 1_000_000
"""From here on the recall has bars beside an empty handler and a flat index. In a smaller planted
world a cluster has hardly more items than a user has seen, and an index reads far more to find what
lies behind it."""


def measure(items: int, run: Path | None = None, picture: Path | None = None) -> list[Row]:
    """`run`: a trained one, of which throughput is measured too. `picture`: latency over load."""
    # A run that cannot be read is found before the rest is measured.
    trained = load_run(run) if run else None
    with planted(items) as made:
        made.publish("auto")
        label, asked = f"{items:,} items:", questions(made.folder, made.run)
        rows = _throughput(label, made, asked, items)
        rows += _latency(label, made, asked, picture)
        rows += _naive(label, made, asked, items)
        rows += _workers(label, made, asked)
        rows += _memory(label, made)
    return rows + (_trained(trained) if trained else [])


def _throughput(label: str, made: World, asked: Asked, items: int) -> list[Row]:
    bars = (0.45, 0.7) if items >= BARRED else (None, None)
    with ExitStack() as stack:
        plain = stack.enter_context(serving(made.folder, made.store))
        writing = stack.enter_context(serving(made.folder, made.store))
        keeping = stack.enter_context(serving(made.folder, made.store, cache_entries=1000))
        fastapi = stack.enter_context(uvicorn("benchmarks.ceilings:app", "/u1"))
        raw = stack.enter_context(uvicorn("benchmarks.ceilings:raw", "/u1"))
        before = _Used.of(plain)
        rates = contest(
            {
                "recall": Contender(plain.url, asked.paths),
                "fastapi": Contender(fastapi, asked.ceiling),
                "writing": Contender(writing.url, asked.paths, asked.events),
                "raw": Contender(raw, asked.ceiling),
                "repeated": Contender(keeping.url, asked.first),
            }
        )
        used = _Used.of(plain)
    return [
        Row(f"{label} recall", rates.rate("recall"), "requests/s"),
        Row(f"{label} FastAPI's own handler", rates.rate("fastapi"), "requests/s"),
        Row(f"{label} bare ASGI", rates.rate("raw"), "requests/s"),
        _ratio(f"{label} recall over FastAPI", rates, "recall", "fastapi", *bars),
        _ratio(f"{label} repeated, kept, over bare ASGI", rates, "repeated", "raw", 0.4, 0.7),
        _ratio(
            f"{label} recall, a tenth writes, over none", rates, "writing", "recall", 0.85, 0.95
        ),
        Row(f"{label} answers other than 2xx", rates.failed, "answers", at_most=0),
        *_used(label, before, used),
    ]


def _latency(label: str, made: World, asked: Asked, picture: Path | None) -> list[Row]:
    with serving(made.folder, made.store) as service:
        capacity = contest({"recall": Contender(service.url, asked.paths)}).rate("recall")
        found = loaded(service.url, asked.urls, capacity)
    if picture:
        found.draw(f"{label} one worker,", picture)
    what = f"{label} p99 at 70% load over p50 at 10%"
    return [
        *found.rows(label),
        Row(what, found.tail, "times", at_most=4, stretch=2.5),
        Row(f"{label} answers other than 2xx at a fixed rate", found.failed, "answers", at_most=0),
    ]


def _naive(label: str, made: World, asked: Asked, items: int) -> list[Row]:
    """Beside the service that everyone writes first, of the same vectors."""
    if items > MOST_IN_A_GRAPH:
        bars = (40.0, 80.0) if items >= BARRED else (None, None)
        rates = _beside_naive(made, asked, items, "flat", ["live"])
        return [
            Row(f"{label} the naive service, flat", rates.rate("naive"), "requests/s"),
            _ratio(f"{label} over the naive service, flat", rates, "live", "naive", *bars),
        ]
    like = _publish_alike(made, items)
    rates = _beside_naive(made, asked, items, "hnsw", ["live", ALIKE])
    what = f"{label} over the naive service, hnsw,"
    return [
        Row(f"{label} the naive service, hnsw", rates.rate("naive"), "requests/s"),
        _ratio(f"{what} indexes alike", rates, ALIKE, "naive", 4.0, 6.0),
        Row(f"{label} recall@{K} of the naive index", like.naive, ""),
        Row(f"{label} recall@{K} of ours", like.ours, "", at_least=like.naive),
        Row(f"{label} of that without what users have seen", like.unseen, ""),
        _ratio(f"{what} tuned for what users have not seen", rates, "live", "naive", None, None),
        Row(f"{label} recall@{K} then, without what users have seen", like.tuned, ""),
    ]


def _beside_naive(
    made: World, asked: Asked, items: int, kind: str, channels: Sequence[str]
) -> Rates:
    """Of the channels by their names, and of "naive"."""
    users = write_lines(made.folder / "users.txt", [f"/{user}?k={K}" for user in range(10_000)])
    with ExitStack() as stack:
        ours = {
            name: stack.enter_context(serving(made.folder, made.store, channels=name)).url
            for name in channels
        }
        naive = uvicorn("benchmarks.naive:create_app", "/1", ITEMS=str(items), INDEX=kind)
        theirs = Contender(stack.enter_context(naive), users)
        return contest(
            {name: Contender(url, asked.paths) for name, url in ours.items()} | {"naive": theirs}
        )


class _Alike(NamedTuple):
    """Recall of the first K."""

    naive: float
    ours: float
    unseen: float
    """Of ours, as it is served: the naive service leaves out nothing that a user has seen."""
    tuned: float
    """The same of the bundle that `tandem publish` makes."""


def _publish_alike(made: World, items: int) -> _Alike:
    """A bundle on channel ALIKE whose index finds as much as the naive service's, and no more."""
    channel = made.store.channel("live")
    assert channel
    live = load_snapshot(made.store.bundle(channel.version))
    bundle = live.bundle
    users = np.random.default_rng(6).permutation(len(bundle.user_ids))[:ASKED].tolist()
    vectors = np.concatenate([live.embed_known(user) for user in users])
    whole = truth(bundle.item_vectors, vectors, K)
    rest = truth(bundle.item_vectors, vectors, K, [bundle.seen(user) for user in users])
    found = index_of(items, "hnsw").search(vectors, K)[1]
    naive = np.mean([np.isin(own, top).mean() for own, top in zip(found, whole.rows, strict=True)])
    with TemporaryDirectory(dir=made.folder) as folder:
        goal = tune.Goal(float(naive), whole)
        entry = tune.choose(np.array(bundle.item_vectors), Path(folder), goal)
    choice = IndexChoice(entry.backend, entry.build, entry.search)
    # What it finds for real users may be less than the gate lets pass.
    version = publish(made.run, made.store, ALIKE, choice, force=True).version
    ours = load_snapshot(made.store.bundle(version)).index
    recalls = ((ours, whole), (ours, rest), (live.index, rest))
    return _Alike(float(naive), *(measured(index, items, one).recall for index, one in recalls))


def _workers(label: str, made: World, asked: Asked) -> list[Row]:
    """Both over so many connections that either of two workers can fill its rounds."""
    if len(CORES) < 2:
        return []
    with (
        serving(made.folder, made.store, cores=CORES) as one,
        serving(made.folder, made.store, cores=CORES, workers=2) as two,
    ):
        contenders = {
            name: Contender(service.url, asked.paths, cores=CORES, connections=2 * CONNECTIONS)
            for name, service in (("one", one), ("two", two))
        }
        rates = contest(contenders)
    return [_ratio(f"{label} two workers over one", rates, "two", "one", 1.6, 1.9)]


def _memory(label: str, made: World) -> list[Row]:
    """Of the workers, without what an interpreter that serves no bundle has."""
    empty = LocalStore(made.folder / "empty")
    first = [_started(made, f"state-{number}") for number in range(STARTS)]
    again = [_started(made, "state-0") for _ in range(STARTS)]
    with serving(made.folder, made.store) as service:
        alone = _pss(service)
    with serving(made.folder, made.store, cores=CORES, workers=SHARING) as service:
        together = _pss(service)
    with serving(made.folder, empty, cores=CORES, ready="/healthz", workers=SHARING) as service:
        bare = _pss(service) / SHARING
    ratio = (together - SHARING * bare) / (alone - bare)
    what = f"{label} memory of {SHARING} workers over that of one, without the interpreters"
    return [
        Row(f"{label} memory of one worker", alone / 2**20, "MiB"),
        Row(f"{label} of that, without a bundle", bare / 2**20, "MiB"),
        Row(what, ratio, "times", at_most=1.3, stretch=1.1),
        Row(f"{label} to ready, warm, a new bundle", median(first), "s", at_most=2, stretch=1),
        Row(
            f"{label} to ready, warm, a bundle served before",
            median(again),
            "s",
            at_most=2,
            stretch=1,
        ),
    ]


def _started(made: World, state: str) -> float:
    """Seconds from the start of the process until it is ready. A state directory that was there
    before knows the bundle."""
    started = time.perf_counter()
    with serving(made.folder, made.store, state=made.folder / state):
        return time.perf_counter() - started


def _trained(run: Run) -> list[Row]:
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder, store = Path(name), LocalStore(Path(name) / "store")
        publish(run, store, "live", IndexChoice("auto", recall=0.99), force=True)
        asked = questions(folder, run)
        service = stack.enter_context(serving(folder, store))
        fastapi = stack.enter_context(uvicorn("benchmarks.ceilings:app", "/u1"))
        before = _Used.of(service)
        rates = contest(
            {
                "recall": Contender(service.url, asked.paths),
                "fastapi": Contender(fastapi, asked.ceiling),
            }
        )
        used = _Used.of(service)
    label = f"{run.description.recipe.model}, {len(run.dataset.item_ids):,} items:"
    return [
        Row(f"{label} recall", rates.rate("recall"), "requests/s"),
        _ratio(f"{label} recall over FastAPI", rates, "recall", "fastapi", 0.8, 1.2),
        *_used(label, before, used),
    ]


def _pss(service: Service) -> int:
    """Of all processes of the service."""
    return sum(map(proportional_bytes, descendants(service.process.pid)[1:]))


class _Used(NamedTuple):
    """Processor time of a service, and what its metrics say."""

    cpu: float
    requests: float
    stages: Mapping[str, float]

    @classmethod
    def of(cls, service: Service) -> "_Used":
        text = service.call("GET", "/metrics")[1].decode()
        return cls(
            cpu_seconds(service.process.pid),
            _sample(text, 'tandem_recall_seconds_count{variant="live"}'),
            {
                name: _sample(
                    text, f'tandem_recall_stage_seconds_sum{{stage="{name}",variant="live"}}'
                )
                for name in STAGES
            },
        )


def _sample(text: str, series: str) -> float:
    found = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(series)]
    return float(found[0]) if found else 0.0


def _used(label: str, before: _Used, after: _Used) -> list[Row]:
    count = after.requests - before.requests
    stages = {name: after.stages[name] - before.stages[name] for name in STAGES}
    each = {"request": after.cpu - before.cpu, **stages}
    return [
        Row(f"{label} processor time of a request", 1e6 * each["request"] / count, "us"),
        *(Row(f"{label} of that, {name}", 1e6 * each[name] / count, "us") for name in STAGES),
    ]


def _ratio(
    what: str, rates: Rates, name: str, other: str, bar: float | None, stretch: float | None
) -> Row:
    ratio = rates.over(name, other)
    spread = (ratio.least, ratio.most)
    return Row(what, ratio.median, "times", at_least=bar, stretch=stretch, spread=spread)
