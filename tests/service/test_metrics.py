"""The metrics add up over all workers, whatever happened to them, and Prometheus reads them."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.store import LocalStore
from tests.conftest import live
from tests.places import ROOT, program
from tests.service.server import Server, free_port, samples, wait_until

STAGES = ("encode", "tower", "search", "merge")


class Counting:
    """Sends requests and counts the answers as the service should."""

    def __init__(self) -> None:
        self.answers: Counter[tuple[str, str, str]] = Counter()

    def send(self, client: httpx.Client, method: str, route: str, **more: Any) -> httpx.Response:
        path = route.replace("{user_id}", "u1").replace("{item_id}", "i1")
        answer = client.request(method, path, **more)
        unmatched = route == "/nothing" or answer.status_code == 401
        known = "unmatched" if unmatched else route
        self.answers[method, known, str(answer.status_code)] += 1
        return answer

    def send_some_of_all(self, client: httpx.Client, n: int) -> None:
        recommendations = "/v1/recommendations/{user_id}"
        self.send(client, "GET", recommendations, params={"k": 3})
        self.send(client, "GET", recommendations, params={"k": 0})
        self.send(client, "POST", "/v1/recommendations", json={"history": ["i1"], "k": 3})
        self.send(client, "POST", "/v1/recommendations", json={})
        batch = {"requests": [{"user_id": "u1"}, {"history": ["i1"]}, {}]}
        self.send(client, "POST", "/v1/recommendations:batch", json=batch)
        self.send(client, "GET", "/v1/items/{item_id}/similar")
        self.send(client, "GET", "/v1/items/{item_id}")
        self.send(client, "POST", "/v1/items", json={"item_id": f"new-{n}"})
        self.send(client, "POST", "/v1/items", content=b"{")
        self.send(client, "POST", "/v1/events", json={"user_id": "u", "item_id": f"new-{n}"})
        self.send(client, "PUT", "/v1/items")
        self.send(client, "GET", "/nothing")
        self.send(client, "POST", "/v1/bundle/rollback")
        self.send(client, "GET", "/v1/bundle")


def counted(text: str) -> Counter[tuple[str, str, str]]:
    """What /metrics says, without what asked for it and what asked whether it is ready."""
    found = Counter[tuple[str, str, str]]()
    for labels, value in samples(text, "tandem_requests_total"):
        if labels["route"] not in ("/metrics", "/readyz", "/healthz"):
            found[labels["method"], labels["route"], labels["status"]] += int(value)
    return found


def kill_a_worker(server: Server) -> None:
    killed, *_ = before = server.workers()
    os.kill(killed, signal.SIGKILL)
    wait_until(
        lambda: killed not in server.workers() and len(server.workers()) == len(before),
        "another worker",
    )
    server.wait_ready()


def test_the_counters_are_what_the_clients_counted_over_kills_and_swaps(
    store: LocalStore, tmp_path: Path
) -> None:
    counting, rounds = Counting(), 20
    rolled = store.channel("rolled")
    assert rolled
    with Server(store.root, tmp_path / "state", workers=2) as server:
        for _ in range(2):
            with server.client_of_each_worker() as clients:
                for n in range(rounds):
                    for client in clients.values():
                        counting.send_some_of_all(client, n)
            kill_a_worker(server)
            # The workers swap while they are asked for the second time.
            store.point("live", rolled.version)
        wait_until(lambda: served(server) == {rolled.version}, "the swap in both workers")
        text = server.client.get("/metrics").text

    posts = 2 * 2 * rounds
    recalls = posts * 6
    assert counted(text) == counting.answers
    assert len(counting.answers) == 13
    answers = {labels["source"]: value for labels, value in samples(text, "tandem_answers_total")}
    assert answers == {"model": recalls / 3, "session": recalls / 3, "fallback": recalls / 3}
    writes = {labels["kind"]: value for labels, value in samples(text, "tandem_writes_total")}
    assert writes == {"item": posts, "event": posts}
    stages = samples(text, "tandem_recall_stage_seconds_count")
    assert {labels["stage"]: value for labels, value in stages} == dict.fromkeys(STAGES, recalls)
    assert [value for _, value in samples(text, "tandem_recall_seconds_count")] == [recalls]
    assert {v for _, v in samples(text, "tandem_recall_seconds_bucket")} >= {recalls}
    seconds = {
        labels["route"]: value for labels, value in samples(text, "tandem_request_seconds_count")
    }
    by_route = Counter[str]()
    for (_, route, _), count in counting.answers.items():
        by_route[route] += count
    assert by_route.items() <= seconds.items()


def test_the_gauges_follow_swaps_and_outlive_workers(store: LocalStore, tmp_path: Path) -> None:
    first = live(store).name
    channel = store.channel("rolled")
    assert channel
    with Server(store.root, tmp_path / "state", workers=2) as server:
        assert served(server) == {first}
        for n in range(3):
            assert server.client.post("/v1/items", json={"item_id": f"{n}"}).status_code == 201
        assert server.client.delete("/v1/items/0").status_code == 200

        store.point("live", channel.version)
        wait_until(lambda: served(server) == {channel.version}, "the swap to show")

        for _ in range(2):
            wait_until(lambda: server.metric("tandem_journal_seq") == 4, "all workers to follow")
            assert server.metric("tandem_overlay_items") == 2
            assert server.metric("tandem_overlay_refused_items") == 0
            assert served(server) == {channel.version}
            assert server.metric("tandem_swaps_total", result="refused") == 0
            kill_a_worker(server)
        assert server.metric("tandem_swaps_total", result="swapped") == 2 + 2 + 2
        loaded = server.metric("tandem_bundle_loaded_timestamp_seconds")
        assert loaded > server.metric("tandem_bundle_created_timestamp_seconds") > 1.7e9


def served(server: Server) -> set[str]:
    text = server.client.get("/metrics").text
    return {labels["version"] for labels, value in samples(text, "tandem_bundle_info") if value}


def test_an_idle_worker_follows_the_journal(shelf: LocalStore, tmp_path: Path) -> None:
    with (
        Server(shelf.root, tmp_path, channels="exact", workers=2) as server,
        server.client_of_each_worker() as clients,
    ):
        busy = clients["0"]
        for n in range(5):
            assert busy.post("/v1/items", json={"item_id": f"{n}"}).status_code == 201

        # The metric is the smaller of the two workers'; only one of them gets requests.
        def journal_seq() -> float:
            found = samples(busy.get("/metrics").text, "tandem_journal_seq")
            return next(value for _, value in found)

        wait_until(lambda: journal_seq() == 5, "the idle worker to follow")


def test_metrics_start_anew_with_the_service(shelf: LocalStore, tmp_path: Path) -> None:
    with Server(shelf.root, tmp_path, channels="exact") as server:
        server.client.get("/v1/recommendations/u1")
        assert server.metric("tandem_answers_total") == 1

        server.stop()
        server.restart()

        assert server.metric("tandem_answers_total") == 0


@pytest.fixture
def prometheus() -> str:
    return program("prometheus", "prometheus")


def test_a_prometheus_with_the_configuration_of_deploy_scrapes_the_service(
    prometheus: str, shelf: LocalStore, tmp_path: Path
) -> None:
    with Server(shelf.root, tmp_path / "state", channels="exact") as server:
        for _ in range(7):
            assert server.client.get("/v1/recommendations/u1").status_code == 200
        with running(prometheus, configuration(server, tmp_path), tmp_path) as url:
            recommendations = 'tandem_requests_total{route="/v1/recommendations/{user_id}"}'
            wait_until(lambda: query(url, recommendations), "a scrape")

            assert query(url, recommendations) == [7]
            assert query(url, 'up{job="tandem"}') == [1]
            assert query(url, "sum(tandem_recall_stage_seconds_count)") == [7 * len(STAGES)]
            assert query(url, "tandem_bundle_info") == [1]


def configuration(server: Server, directory: Path) -> Path:
    """The one of deploy/, with this server as its target and a shorter interval."""
    text = (ROOT / "deploy" / "prometheus.yml").read_text()
    for old, new in (
        ("service:8000", f"127.0.0.1:{server.port}"),
        ("interval: 5s", "interval: 1s"),
    ):
        assert old in text
        text = text.replace(old, new)
    shutil.copy(ROOT / "deploy" / "alerts.yml", directory)
    path = directory / "prometheus.yml"
    path.write_text(text)
    return path


@contextlib.contextmanager
def running(prometheus: str, configuration: Path, directory: Path) -> Iterator[str]:
    """The URL of a Prometheus that answers queries."""
    address = f"127.0.0.1:{free_port()}"
    flags = {
        "config.file": configuration,
        "storage.tsdb.path": directory / "tsdb",
        "web.listen-address": address,
    }
    with (directory / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [prometheus, *(f"--{name}={value}" for name, value in flags.items())],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: answers(f"http://{address}/-/ready"), "prometheus to be ready")
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, verify=False).is_success
    return False


def query(url: str, expression: str) -> list[float]:
    answer = httpx.get(f"{url}/api/v1/query", params={"query": expression}, verify=False)
    return [float(one["value"][1]) for one in answer.json()["data"]["result"]]
