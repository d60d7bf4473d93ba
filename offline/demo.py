"""`tandem demo`: the whole story on a real service, told as it happens.

It goes through the same verbs and the same HTTP API as everyone else.
"""

import json
import secrets
import statistics
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from contract.errors import TandemError
from contract.store import open_store
from offline.build import IndexChoice
from offline.data import movielens, synthetic
from offline.data.tables import write_tables
from offline.fit import fit
from offline.local import Service, local_service
from offline.publish import publish
from offline.recipe import read_recipe
from offline.run import Run

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
WORKERS = 2
TITLE = "title"

console = Console(highlight=False, soft_wrap=True)


def tell(name: str, source: Path | None, out: Path, keep: bool) -> None:
    """Run the story in the directory `out`. Raises TandemError where it does not end well."""
    started = time.perf_counter()
    chapter(1, "An offline job trains a two-tower model on interaction logs")
    run = _train(name, source, out)
    chapter(2, "It publishes a bundle: index, both towers, catalogue, checked by a gate")
    store = str(out / "store")
    _publish(run, store, "faiss_hnsw")
    chapter(3, "A service with two workers maps it and answers")
    options = {"workers": WORKERS, "admin_key": secrets.token_hex(16), "watch_seconds": 0.2}
    with local_service(store, out / "service.log", options, keep=keep) as service:
        console.print(f"   ready at {service.url}")
        _recommend(service, run)
        chapter(4, "A new item is posted: searchable in the next request, of any worker")
        _append(service, run)
        chapter(5, "A rebuilt bundle is swapped in while requests run")
        _swap(service, run, store)
        chapter(6, "What Prometheus would scrape")
        _metrics(service)
        console.print(f"\nThe whole story took {time.perf_counter() - started:.0f} s.")
        if keep:
            _leave_up(service, _typical_user(run))


def chapter(number: int, title: str) -> None:
    console.print(f"\n[bold]{number}. {title}[/bold]")


def _train(name: str, source: Path | None, out: Path) -> Run:
    if name == "synthetic":
        tables, recipe = synthetic.generate().tables, read_recipe(RECIPES / "demo.toml")
    else:
        raw = source or movielens.download(name, out)
        tables = movielens.read_movielens(name, raw)
        # Two epochs give most of the quality; the recipe by itself trains to the end.
        recipe = read_recipe(RECIPES / f"dssm-{name.replace('-', '')}.toml", ["training.epochs=2"])
    write_tables(tables, out / "data")
    run = fit(recipe, out / "data", out / "run", "cpu", lambda line: console.print(f"   {line}"))
    metrics = run.description.metrics
    console.print(
        f"   test: HR@10 {metrics['HR@10']:.4f}, NDCG@10 {metrics['NDCG@10']:.4f}, "
        f"HR@50 {metrics['HR@50']:.4f}, over the whole catalogue"
    )
    return run


def _publish(run: Run, store: str, backend: str) -> str:
    manifest = publish(run, open_store(store), "live", IndexChoice(backend))
    size = sum(file.size for file in manifest.files.values()) / 2**20
    passed = sum(check.passed for check in manifest.gate)
    recall = next(check for check in manifest.gate if "recall" in check.check)
    console.print(
        f"   bundle {manifest.version}: {manifest.dims.items:,} items, {size:.1f} MiB, {backend}; "
        f"gate {passed} of {len(manifest.gate)} passed, {recall.check} {recall.found}"
    )
    return manifest.version


def _recommend(service: Service, run: Run) -> None:
    user = _typical_user(run)
    answer = service.get(f"/v1/recommendations/{user}", k=5)
    history = run.dataset.sequences.items[_slice(run, user)][-5:][::-1]
    columns = (f"what user {user} chose last", f"recommended ({answer['source']})", "score")
    table = Table(*columns, box=box.SIMPLE_HEAD)
    for row, item in zip(history, answer["items"], strict=True):
        table.add_row(
            _title(run, run.dataset.item_ids[row]), _title(run, item["item_id"]), _score(item)
        )
    console.print(table)
    stranger = service.post("/v1/recommendations", {"history": [answer["items"][0]["item_id"]]})
    console.print(
        f"   a stranger with one item in the session: {len(stranger['items'])} items, "
        f"source {stranger['source']}; with nothing: source "
        f"{service.get('/v1/recommendations/nobody', k=1)['source']}"
    )


def _append(service: Service, run: Run) -> None:
    user = _typical_user(run)
    liked = service.get(f"/v1/recommendations/{user}", k=1)["items"][0]["item_id"]
    features = service.get(f"/v1/items/{liked}")["features"] | {TITLE: "A Brand New Arrival"}
    known = {name: features[name] for name in features if name in _encoded(run)}
    written = service.post("/v1/items", {"item_id": "brand-new", "features": known})
    ranks: dict[str, int] = {}
    while len(ranks) < WORKERS:
        path = f"/v1/recommendations/{user}?k=200&min_seq={written['seq']}"
        _, body, worker = service.call("GET", path)
        ids = [item["item_id"] for item in json.loads(body)["items"]]
        ranks[worker] = ids.index("brand-new") + 1 if "brand-new" in ids else 0
    found = ", ".join(f"worker {w}: rank {r or 'over 200'}" for w, r in sorted(ranks.items()))
    console.print(
        f"   posted 'brand-new' with the features of '{_title(run, liked)}' and a new title: "
        f"seq {written['seq']}, durable\n   in the recommendations of user {user}: {found}"
    )
    near = service.get("/v1/items/brand-new/similar", k=3)["items"]
    console.print("   nearest to it: " + "; ".join(_title(run, i["item_id"]) for i in near))
    service.post("/v1/events", {"user_id": user, "item_id": "brand-new", "kind": "view"})
    after = service.get(f"/v1/recommendations/{user}", k=200)["items"]
    gone = "brand-new" not in [item["item_id"] for item in after]
    console.print(
        f"   user {user} views it: {'left out as seen' if gone else 'STILL SHOWN'} at once"
    )


def _swap(service: Service, run: Run, store: str) -> None:
    load = Load(service, run.dataset.user_ids)
    with load:
        load.wait_for(200)
        version = _publish(run, store, "exact")
        while service.get("/v1/bundle")["version"] != version or load.last_version != version:
            time.sleep(0.02)
        load.wait_for(200)
    table = Table("requests", "answered 2xx", "by bundle", "p50", "p99", box=box.SIMPLE_HEAD)
    p50, p99 = np.percentile(load.seconds, [50, 99]) * 1000
    by_bundle = "\n".join(f"{v}: {n}" for v, n in sorted(load.versions.items()))
    ok = sum(load.versions.values())
    table.add_row(str(load.sent), str(ok), by_bundle, f"{p50:.1f} ms", f"{p99:.1f} ms")
    console.print(table)
    kept = service.call("GET", "/v1/items/brand-new")[0] == 200
    console.print(
        f"   failed: {load.sent - ok}; 'brand-new' is {'still' if kept else 'NOT'} there: the "
        "journal was applied to the new bundle"
    )
    if ok != load.sent or not kept:
        raise TandemError("the swap lost a request or an item; this is a bug")


class Load:
    """One client that asks for recommendations without a pause, in a thread."""

    def __init__(self, service: Service, users: Sequence[str]) -> None:
        self._service, self._users = service, users
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.sent = 0
        self.seconds: list[float] = []
        self.versions: Counter[str] = Counter()
        self.last_version = ""

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def wait_for(self, requests: int) -> None:
        """Until so many more were sent."""
        until = self.sent + requests
        while self.sent < until:
            time.sleep(0.01)

    def _run(self) -> None:
        while not self._stop.is_set():
            user = self._users[self.sent % len(self._users)]
            started = time.perf_counter()
            status, body, _ = self._service.call("GET", f"/v1/recommendations/{user}?k=50")
            self.seconds.append(time.perf_counter() - started)
            self.sent += 1
            if status == 200:
                self.last_version = json.loads(body)["bundle"]
                self.versions[self.last_version] += 1


def _metrics(service: Service) -> None:
    text = service.call("GET", "/metrics")[1].decode()
    samples = _samples(text)
    table = Table("metric", "value", box=box.SIMPLE_HEAD)
    answered = {k: v for k, v in samples.items() if k.startswith("tandem_requests_total")}
    table.add_row("HTTP answers, both workers", f"{sum(answered.values()):,.0f}")
    failed = sum(v for k, v in answered.items() if 'status="5' in k)
    table.add_row("  of them 5xx", f"{failed:,.0f}")
    for source in ("model", "session", "fallback"):
        name = f'tandem_answers_total{{source="{source}",variant="live"}}'
        table.add_row(f"recalls, source {source}", f"{samples.get(name, 0):,.0f}")
    for stage in ("encode", "tower", "search", "merge"):
        table.add_row(f"  mean of stage {stage}", f"{_mean(samples, stage) * 1e6:,.0f} us")
    swapped = samples['tandem_swaps_total{result="swapped",variant="live"}']
    table.add_row("bundles loaded, both workers", f"{swapped:,.0f}")
    for name in ("tandem_overlay_items", "tandem_journal_seq"):
        value = samples[name + '{variant="live"}']
        table.add_row(name, f"{value:,.0f}")
    console.print(table)


def _samples(text: str) -> dict[str, float]:
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def _mean(samples: Mapping[str, float], stage: str) -> float:
    total, count = (
        samples[f'tandem_recall_stage_seconds_{part}{{stage="{stage}",variant="live"}}']
        for part in ("sum", "count")
    )
    return total / max(count, 1.0)


def _leave_up(service: Service, user: str) -> None:
    console.print("\n[bold]The service stays up:[/bold]")
    for path in ("/console", "/docs", f"/v1/recommendations/{user}?k=10", "/metrics"):
        console.print(f"   {service.url}{path}")
    console.print(f"   stop it with: kill {service.process.pid}")


def _typical_user(run: Run) -> str:
    """The user whose history is of median length."""
    lengths = np.diff(run.dataset.sequences.offsets)
    middle = statistics.median_low(lengths.tolist())
    return run.dataset.user_ids[int(np.flatnonzero(lengths == middle)[0])]


def _slice(run: Run, user: str) -> slice:
    row = run.dataset.user_ids.index(user)
    offsets = run.dataset.sequences.offsets
    return slice(int(offsets[row]), int(offsets[row + 1]))


def _encoded(run: Run) -> frozenset[str]:
    return run.dataset.schema.items.names


def _title(run: Run, item_id: str) -> str:
    attributes = run.dataset.attributes
    if TITLE not in attributes.columns:
        return item_id
    return str(attributes[TITLE][run.dataset.item_ids.index(item_id)])


def _score(item: Mapping[str, Any]) -> str:
    return f"{item['score']:.3f}"
