"""What was acknowledged is there: in the next answer of any worker, and after any kill."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from contract.bundle import Bundle
from contract.store import LocalStore
from tests.service.server import Server, wait_until

PAIRS, THREADS = 1000, 4
KILLS, WRITERS, ACKNOWLEDGED = 25, 2, 8


def test_every_worker_reads_what_any_worker_acknowledged(shelf: LocalStore, tmp_path: Path) -> None:
    with Server(shelf.root, tmp_path, channels="exact", workers=2) as server:
        with ThreadPoolExecutor(THREADS) as pool:
            parts = [range(start, PAIRS, THREADS) for start in range(THREADS)]
            misses = [
                miss for part in pool.map(lambda n: _pairs(server, n), parts) for miss in part
            ]

        assert misses == []
        assert server.journal()[-1].seq == PAIRS
        assert server.metric("tandem_writes_total") == PAIRS


def test_every_worker_draws_the_same_items_until_something_is_written(
    shelf: LocalStore, tmp_path: Path
) -> None:
    asked = "k=20&explore=0.5&source=model&source=popular&explain=true"

    def items(client: httpx.Client) -> Any:
        answer = client.get(f"/v1/recommendations/u1?{asked}")
        assert answer.status_code == 200, answer.text
        return answer.json()["items"]

    with (
        Server(shelf.root, tmp_path, channels="exact", workers=2) as server,
        server.client_of_each_worker() as workers,
    ):
        before = [items(client) for client in workers.values()]
        assert _item(server.client, 1).status_code == 201
        after = [items(client) for client in workers.values()]

    assert before[0] == before[1]
    assert after[0] == after[1] != before[0]


def _pairs(server: Server, numbers: range) -> list[tuple[int, str]]:
    """Write through one worker, read through both, the other one first: who did not see it."""
    misses = []
    with server.client_of_each_worker() as workers:
        names = sorted(workers)
        for n in numbers:
            order = names if n // 2 % 2 else names[::-1]
            write, seen = (_item, _has_item) if n % 2 else (_event, _has_event)
            assert write(workers[order[-1]], n).status_code == 201
            misses += [(n, name) for name in order if not seen(workers[name], n)]
    return misses


def _item(client: httpx.Client, n: int) -> httpx.Response:
    return client.post("/v1/items", json={"item_id": f"item-{n}"})


def _has_item(client: httpx.Client, n: int) -> bool:
    return client.get(f"/v1/items/item-{n}").status_code == 200


def _event(client: httpx.Client, n: int) -> httpx.Response:
    return client.post("/v1/events", json={"user_id": f"user-{n}", "item_id": "i1"})


def _has_event(client: httpx.Client, n: int) -> bool:
    answer = client.get(f"/v1/recommendations/user-{n}", params={"k": 1}).json()
    return bool(answer["source"] == "session")


Written = tuple[str, str]
"""What was written: kind, and the item or the user; each is written once."""


class Writer:
    """Posts items and events and deletes items, one after another, until the service is gone."""

    def __init__(self, server: Server, name: str) -> None:
        self._server, self._name = server, name
        self.sent: list[Written] = []
        self.acknowledged: dict[int, Written] = {}

    def run(self) -> None:
        with self._server.new_client() as client, contextlib.suppress(httpx.TransportError):
            for n in range(10_000):
                name = f"{self._name}-{n}"
                self._write(client, "POST", "/v1/items", ("item", name), {"item_id": name})
                body = {"user_id": name, "item_id": "i1"}
                self._write(client, "POST", "/v1/events", ("event", name), body)
                if n % 2:
                    self._write(client, "DELETE", f"/v1/items/{name}", ("delete", name), None)

    def _write(
        self, client: httpx.Client, method: str, path: str, written: Written, body: Any
    ) -> None:
        self.sent.append(written)
        answer = client.request(method, path, json=body)
        assert answer.is_success, answer.text
        self.acknowledged[answer.json()["seq"]] = written


def test_a_killed_service_has_all_that_it_acknowledged_and_nothing_else(
    shelf: LocalStore, bundle: Bundle, tmp_path: Path
) -> None:
    server = Server(shelf.root, tmp_path, channels="exact", max_k=10_000)
    writers: list[Writer] = []

    for cycle in range(KILLS):
        with server:
            _check(server, bundle, writers)
            writers += _killed_while_writing(server, cycle)
    with server:
        _check(server, bundle, writers)

    assert sum(len(writer.acknowledged) for writer in writers) >= KILLS * ACKNOWLEDGED


def _killed_while_writing(server: Server, cycle: int) -> list[Writer]:
    writers = [Writer(server, f"{cycle}-{n}") for n in range(WRITERS)]
    threads = [threading.Thread(target=writer.run) for writer in writers]
    for thread in threads:
        thread.start()
    wait_until(
        lambda: sum(len(writer.acknowledged) for writer in writers) >= ACKNOWLEDGED,
        "acknowledged writes",
    )
    server.kill()
    for thread in threads:
        thread.join()
    return writers


def _check(server: Server, bundle: Bundle, writers: list[Writer]) -> None:
    """The journal holds what was acknowledged, under its seq, and only what was sent, once; the
    service answers as the journal says."""
    records = server.journal()
    found = [(r.kind, r.body["user_id" if r.kind == "event" else "item_id"]) for r in records]
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    assert len(set(found)) == len(found)
    assert set(found) <= {written for writer in writers for written in writer.sent}
    for writer in writers:
        for seq, written in writer.acknowledged.items():
            assert found[seq - 1] == written

    ids = {bundle.item_ids[row] for row in range(bundle.manifest.dims.items)}
    ids |= {name for kind, name in found if kind == "item"}
    ids -= {name for kind, name in found if kind == "delete"}
    assert set(_everything(server)) == ids
    latest = [name for kind, name in found if kind == "event"][-ACKNOWLEDGED:]
    for name in latest:
        answer = server.client.get(f"/v1/recommendations/{name}", params={"k": 1}).json()
        assert answer["source"] == "session"


def _everything(server: Server) -> Iterator[str]:
    answer = server.client.get("/v1/recommendations/nobody", params={"k": 10_000}).json()
    assert answer["source"] == "fallback"
    return (item["item_id"] for item in answer["items"])
