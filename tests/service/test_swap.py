"""Hot swap under load, what survives it, and the ways back."""

import itertools
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from contract.bundle import open_bundle
from contract.journal import open_journal
from contract.store import LocalStore
from service import schemas
from tests.conftest import live
from tests.service.bundles import derive
from tests.service.reference import Reference
from tests.service.server import ADMIN, Server, wait_until
from tests.service.shop import Shop, ids_of

SWAPS, CLIENTS, PAUSE = 20, 2, 0.01
K = 10


@dataclass(frozen=True)
class Sample:
    at: float
    seconds: float
    status: int
    body: dict[str, Any]


class Load:
    """A steady stream of requests from clients that wait between them."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        self.samples: list[Sample] = []

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        wanted = len(self.samples) + more
        wait_until(lambda: len(self.samples) >= wanted, f"{more} more answers")

    def _run(self) -> None:
        with self._server.new_client() as client:
            while not self._ends.wait(PAUSE):
                at = time.monotonic()
                answer = client.get("/v1/recommendations/u1", params={"k": K})
                seconds = time.monotonic() - at
                self.samples.append(Sample(at, seconds, answer.status_code, answer.json()))


def swap(server: Server, store: LocalStore, version: str, workers: int = 1) -> None:
    """Point the channel and wait until every worker serves the version."""
    before = server.metric("tandem_swaps_total", result="swapped")
    store.point("live", version)
    wait_until(
        lambda: server.metric("tandem_swaps_total", result="swapped") == before + workers,
        f"bundle {version} to be served",
    )


def other(store: LocalStore) -> str:
    """The version of the rolled bundle."""
    channel = store.channel("rolled")
    assert channel
    return channel.version


def best(path: Path) -> list[str]:
    reference = Reference(open_bundle(path))
    scores = reference.scores("u1")
    return sorted(reference.eligible("u1"), key=lambda i: -scores[i])[:K]


def test_swaps_under_load_fail_no_request_and_mix_no_answer(
    store: LocalStore, tmp_path: Path
) -> None:
    versions = (live(store).name, other(store))
    expected = {version: best(store.bundle(version)) for version in versions}
    assert expected[versions[0]] != expected[versions[1]]
    windows = []

    with Server(store.root, tmp_path / "state", workers=2) as server:
        with Load(server) as load:
            for version in itertools.islice(itertools.cycle(versions[::-1]), SWAPS):
                started = time.monotonic()
                swap(server, store, version, workers=2)
                windows.append((started, time.monotonic()))
                load.wait_for(20)
        served_by_all = [_mapped(pid) for pid in server.workers()]
        assert server.log.count(" serves after ") == 2 * (SWAPS + 1)

    assert {sample.status for sample in load.samples} == {200}
    assert {sample.body["bundle"] for sample in load.samples} == set(versions)
    assert all(ids_of(sample.body) == expected[sample.body["bundle"]] for sample in load.samples)
    assert served_by_all == [{versions[0]}] * 2
    _report(load.samples, windows)


def _mapped(pid: int) -> set[str]:
    """The bundles whose files a process has mapped."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return set(re.findall(r"/bundles/([^/]+)/", maps))


def _report(samples: list[Sample], windows: list[tuple[float, float]]) -> None:
    swapping = [s.seconds for s in samples if any(a <= s.at <= b for a, b in windows)]
    quiet = [s.seconds for s in samples if not any(a <= s.at <= b for a, b in windows)]
    for name, seconds in (("quiet", quiet), ("swapping", swapping)):
        p50, p99 = 1000 * np.quantile(seconds, [0.5, 0.99])
        print(f"{name}: {len(seconds)} requests, p50 {p50:.1f} ms, p99 {p99:.1f} ms")


def test_what_was_written_is_in_force_after_a_swap(store: LocalStore, tmp_path: Path) -> None:
    with Server(store.root, tmp_path / "state") as server:
        rolled = Reference(open_bundle(store.bundle(other(store))))
        shop = Shop(server, rolled)
        shop.post("posted", rolled.features["i3"])
        shop.post("i4", rolled.features["i5"])
        shop.post("i6", rolled.features["i6"], available=False)
        shop.delete("i7")
        shop.post("gone", rolled.features["i8"])
        shop.delete("gone")
        shop.event("u1", "posted")
        shop.event("visitor", "posted")

        swap(server, store, other(store))

        shop.check_every_path()
        assert shop.check("visitor")["source"] == "session"
        assert shop.known("posted").source == "overlay"
        assert shop.recommend()["bundle"] == other(store)


def test_a_bundle_that_includes_a_write_takes_it_out_of_the_overlay(
    store: LocalStore, tmp_path: Path
) -> None:
    with Server(store.root, tmp_path / "state") as server:
        shop = Shop(server, Reference(open_bundle(live(store))))
        shop.post("included", {})
        seq = shop.event("included", "i1")
        shop.post("later", {})

        swap(server, store, derive(store, live(store), seq=seq))

        known = server.client.get("/v1/bundle").json()
        assert (known["overlay_items"], known["seq"]) == (1, seq + 1)
        assert server.metric("tandem_overlay_items") == 1
        assert server.client.get("/v1/items/included").status_code == 404
        assert shop.known("later").seq == seq + 1
        assert shop.recommend(user_id="included")["source"] == "fallback"


def test_a_rollback_moves_every_worker(store: LocalStore, tmp_path: Path) -> None:
    first, second = live(store).name, other(store)
    with Server(store.root, tmp_path / "state", workers=2) as server:
        swap(server, store, second, workers=2)

        answer = server.client.post("/v1/bundle/rollback", headers=ADMIN)

        reloaded = schemas.Reloaded.model_validate(answer.json(), strict=True)
        assert (reloaded.version, reloaded.swapped) == (first, True)
        with server.client_of_each_worker() as clients:
            wait_until(
                lambda: {_version(client) for client in clients.values()} == {first}, "a rollback"
            )


def _version(client: httpx.Client) -> str:
    return str(client.get("/v1/bundle").json()["version"])


def test_a_rollback_from_a_refused_bundle_is_no_error(store: LocalStore, tmp_path: Path) -> None:
    good = live(store).name
    with Server(store.root, tmp_path / "state") as server:
        refuse(server, store, _without_tower)

        answer = server.client.post("/v1/bundle/rollback", headers=ADMIN)

        assert answer.json() == {"variant": "live", "version": good, "swapped": False}
        assert server.client.get("/v1/bundle").json()["refused"] is None


def refuse(
    server: Server, store: LocalStore, spoil: Callable[[Path], None], workers: int = 1
) -> str:
    """Point the channel at a spoiled bundle and wait until every worker has refused it."""
    before = server.metric("tandem_swaps_total", result="refused")
    version = derive(store, live(store))
    spoil(store.bundle(version))
    store.point("live", version)
    wait_until(
        lambda: server.metric("tandem_swaps_total", result="refused") == before + workers,
        "a refusal",
    )
    return version


def _without_tower(path: Path) -> None:
    (path / "user_tower.onnx").unlink()


def test_a_refused_bundle_that_was_repaired_is_taken_on_reload(
    store: LocalStore, tmp_path: Path
) -> None:
    tower = live(store) / "user_tower.onnx"
    with Server(store.root, tmp_path / "state") as server:
        version = refuse(server, store, _without_tower)
        refused = server.client.post("/v1/bundle/reload", headers=ADMIN)
        (store.bundle(version) / tower.name).write_bytes(tower.read_bytes())

        answer = server.client.post("/v1/bundle/reload", headers=ADMIN)

        assert refused.status_code == 409
        assert refused.json()["error"]["code"] == "bad_bundle"
        assert answer.json() == {"variant": "live", "version": version, "swapped": True}
        assert server.client.get("/v1/bundle").json()["refused"] is None


def test_a_worker_that_starts_behind_a_bad_bundle_serves_the_one_before(
    store: LocalStore, tmp_path: Path
) -> None:
    good = live(store).name
    with Server(store.root, tmp_path / "state", workers=2) as server:
        bad = refuse(server, store, _without_tower, workers=2)
        killed, *_ = server.workers()
        os.kill(killed, signal.SIGKILL)
        wait_until(
            lambda: killed not in server.workers() and len(server.workers()) == 2, "another worker"
        )
        server.wait_ready()

        with server.client_of_each_worker() as clients:
            known = [client.get("/v1/bundle").json() for client in clients.values()]
        assert [one["version"] for one in known] == [good, good]
        assert [one["refused"]["version"] for one in known] == [bad, bad]

        server.stop()
        server.restart()
        assert server.client.get("/v1/recommendations/u1").json()["bundle"] == good


def test_a_damaged_channel_file_changes_nothing_until_it_is_repaired(
    store: LocalStore, tmp_path: Path
) -> None:
    path = store.root / "channels" / "live.json"
    text = path.read_text()
    with Server(store.root, tmp_path / "state") as server:
        path.write_text("{")
        wait_until(lambda: "not a channel file" in server.log, "a line in the log")
        assert server.client.get("/v1/recommendations/u1").status_code == 200

        server.stop()
        server.start()
        wait_until(lambda: server.fresh("/healthz"), "the process to answer")
        assert server.client.get("/readyz").status_code == 503
        path.write_text(text)
        server.wait_ready()


def test_a_bundle_older_than_what_was_trimmed_from_the_journal_is_refused(
    store: LocalStore, tmp_path: Path
) -> None:
    with Server(store.root, tmp_path / "state") as server:
        for n in range(3):
            assert server.client.post("/v1/items", json={"item_id": f"{n}"}).status_code == 201
        journal = open_journal(str(server.state / "journal.db"))
        assert journal.trim(2) == 2
        journal.close()

        refuse(server, store, lambda path: None)

        reason = server.client.get("/v1/bundle").json()["refused"]["reason"]
        assert "up to seq 0, the journal was trimmed and begins at 3" in reason
        swap(server, store, derive(store, live(store), seq=2))
        assert server.client.get("/v1/bundle").json()["overlay_items"] == 1


@pytest.mark.parametrize("seq", [3, 1000])
def test_a_bundle_of_another_journal_is_refused(
    store: LocalStore, tmp_path: Path, seq: int
) -> None:
    with Server(store.root, tmp_path / "state") as server:
        for n in range(2):
            assert server.client.post("/v1/items", json={"item_id": f"{n}"}).status_code == 201
        store.point("live", derive(store, live(store), seq=seq))

        wait_until(lambda: server.client.get("/v1/bundle").json()["refused"], "a refusal")

        reason = server.client.get("/v1/bundle").json()["refused"]["reason"]
        assert f"up to seq {seq}, the journal of this service ends at 2" in reason
