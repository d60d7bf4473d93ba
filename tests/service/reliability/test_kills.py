"""Kill loop: processes of the service die at random moments while it is written to, read and
swapped. What is checked is seen from outside: answers, and the journal as any reader of SQLite
finds it.

SIGKILL leaves the page cache, so this proves that processes may die, not that power may fail; for
that see the order of system calls in `test_failpoints.py`.
"""

import json
import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.service.reliability.conftest import Floor
from tests.service.reliability.scale import SEED, found, lasting
from tests.service.reliability.threads import running
from tests.service.server import Server, wait_until
from tests.service.shop import ids_of, path

KILLS = lasting(3, 30, 900)
MOST_SECONDS_BETWEEN_KILLS = lasting(1, 3, 5)
WRITERS, READERS, WORKERS, LATEST = 2, 1, 2, 20
PAUSE = 0.05
READY_SECONDS = 5.0
EVERYTHING = 10_000

Written = tuple[str, str]
"""Kind, and the item or the user of an event. Each is written once."""


class Ledger:
    """What the clients sent, what was acknowledged, and what was wrong with an answer."""

    def __init__(self) -> None:
        self.original: list[str] = []
        """The items of the bundle."""
        self.sent: list[Written] = []
        self.acknowledged: dict[int, Written] = {}
        self.deleted: list[str] = []
        """Acknowledged deletes, in their order."""
        self.wrong: list[str] = []

    def items(self) -> list[str]:
        """The acknowledged items that nobody has tried to delete."""
        gone = {name for kind, name in self.sent if kind == "delete"}
        kept = list(self.acknowledged.values())
        return [name for kind, name in kept if kind == "item" and name not in gone]


class Client:
    """Runs a thread of requests through every death of the service."""

    def __init__(self, server: Server, ledger: Ledger, number: int) -> None:
        self.ledger, self._server, self.number = ledger, server, number
        self.random = random.Random(SEED + number)

    def write(self, written: list[Written], method: str, path: str, body: Any = None) -> bool:
        """Entries of one request: all of them stand, or none. Whether they were acknowledged."""
        self.ledger.sent += written
        answer = self.ask(method, path, json=body)
        if answer is None:
            return False
        first = answer["seq"] - len(written) + 1
        self.ledger.acknowledged.update(enumerate(written, first))
        self.ledger.deleted += [name for kind, name in written if kind == "delete"]
        return True

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """The answer; None when the connection broke, or something was wrong with it."""
        try:
            answer = self._client.request(method, path, **more)
        except httpx.TransportError:
            time.sleep(PAUSE)
            return None
        if not answer.is_success:
            self.ledger.wrong.append(f"{method} {path}: {answer.status_code} {answer.text}")
            return None
        return answer.json()

    def run(self, step: Callable[["Client", int], None], ended: threading.Event) -> None:
        with self._server.new_client() as self._client:
            for n in range(10**9):
                if ended.wait(PAUSE):
                    return
                step(self, n)


def write(client: Client, n: int) -> None:
    """A pair of twins, so that each is the nearest of the other; an event; now and then a delete of
    one of the twins, or of an item of the bundle."""
    name = f"{client.number}-{n}"
    twins = [f"{name}-a", f"{name}-b"]
    features = {"title": f"twins {SEED} {name}", "year": 1900 + n % 100, "price": float(n % 97)}
    bodies = [{"item_id": twin, "features": features} for twin in twins]
    pair = [("item", twin) for twin in twins]
    there = client.write(pair, "POST", "/v1/items", {"items": bodies})
    body = {"user_id": name, "item_id": "i1"}
    client.write([("event", name)], "POST", "/v1/events", body)
    if n % 4 == 0 and there:
        client.write([("delete", twins[0])], "DELETE", path(twins[0]))
    bundled = client.ledger.original[client.number :: WRITERS]
    if n % 8 == 1 and n // 8 < len(bundled) // 2:
        client.write([("delete", bundled[n // 8])], "DELETE", path(bundled[n // 8]))


def read(client: Client, n: int) -> None:
    gone = set(client.ledger.deleted)
    asked = {"user_id": f"u{client.random.randrange(100)}", "k": 100}
    answer = client.ask("POST", "/v1/recommendations", json=asked)
    if answer is None:
        return
    ids = ids_of(answer)
    if gone & set(ids):
        client.ledger.wrong.append(f"deleted and back: {sorted(gone & set(ids))}")
    if len(set(ids)) < 100:
        client.ledger.wrong.append(f"{len(set(ids))} different items of 100")


@contextmanager
def traffic(server: Server, floor: Floor, ledger: Ledger) -> Iterator[None]:
    ended = threading.Event()

    def swap() -> None:
        for n in range(10**9):
            if ended.wait(1.0):
                return
            floor.store.point("live", floor.versions[n % 2])

    steps = [write] * WRITERS + [read] * READERS
    clients = [Client(server, ledger, number) for number in range(len(steps))]
    works = [partial(client.run, step, ended) for client, step in zip(clients, steps, strict=True)]
    with running([*works, swap], ended):
        yield


@pytest.mark.timeout(4 * 3600)
def test_no_kill_loses_or_brings_back_anything(floor: Floor, tmp_path: Path) -> None:
    ledger, chance = Ledger(), random.Random(SEED)
    options = {"workers": WORKERS, "max_k": EVERYTHING, "channels": "live"}
    server = Server(floor.store.root, tmp_path / "state", **options)
    seconds = []
    with ExitStack() as stack:
        stack.enter_context(server)
        ledger.original = everything(server.client)
        with traffic(server, floor, ledger):
            for _ in range(KILLS):
                time.sleep(chance.uniform(0, MOST_SECONDS_BETWEEN_KILLS))
                started = time.monotonic()
                kill(server, chance)
                server.wait_ready()
                seconds.append(time.monotonic() - started)
                check_latest(server, ledger)
        expected = journal_holds(tmp_path / "state" / "journal.db", ledger)
        with server.client_of_each_worker() as workers:
            for client in workers.values():
                listed = everything(client)
                assert len(listed) == len(set(listed))
                assert set(listed) == expected
            check_twins(workers["0"], ledger)

    assert ledger.wrong == []
    assert len(ledger.deleted) >= KILLS
    found(
        f"kill loop: {KILLS} kills, {len(ledger.acknowledged):,} acknowledged writes",
        "0 lost, back, phantom or double; every item first for its own vector",
        "0",
    )
    late = sum(one > READY_SECONDS for one in seconds)
    found(
        "kill loop: both workers ready again",
        f"<= {READY_SECONDS:g} s",
        f"p50 {np.median(seconds):.1f} s, most {max(seconds):.1f} s, {late} later",
    )


def kill(server: Server, chance: random.Random) -> None:
    """One of the workers, or the supervisor, which an operator's own supervisor starts again."""
    victim = chance.randrange(WORKERS + 1)
    pids = server.workers()
    if victim == WORKERS:
        server.kill_supervisor()
        # They have the port until they have noticed.
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the workers")
        server.start()
        return
    os.kill(pids[victim], signal.SIGKILL)
    wait_until(lambda: len(set(server.workers()) - {pids[victim]}) == WORKERS, "another worker")


def check_latest(server: Server, ledger: Ledger) -> None:
    """At once, and while writes go on: nobody waits for a recovery to hide a loss."""
    items, deleted = ledger.items()[-LATEST:], ledger.deleted[-LATEST:]
    with server.client_of_each_worker() as workers:
        for client in workers.values():
            missing = {i for i in items if client.get(path(i)).status_code != 200}
            # Some may have been deleted while this looked.
            assert missing & set(ledger.items()) == set()
            assert [i for i in deleted if client.get(path(i)).status_code != 404] == []


def journal_holds(file: Path, ledger: Ledger) -> set[str]:
    """Every acknowledged write under its seq, nothing that was not sent, nothing twice, pairs
    together. Returns the items that there must be."""
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as connection:
        rows = connection.execute("SELECT seq, kind, body FROM entries ORDER BY seq").fetchall()
    written = [
        (kind, json.loads(body)["user_id" if kind == "event" else "item_id"])
        for _, kind, body in rows
    ]
    assert [seq for seq, *_ in rows] == list(range(1, len(rows) + 1))
    assert len(set(written)) == len(written)
    assert set(written) <= set(ledger.sent)
    assert {seq: written[seq - 1] for seq in ledger.acknowledged} == ledger.acknowledged
    posted = [name for kind, name in written if kind == "item"]
    assert {f"{name[:-1]}b" for name in posted} | {f"{name[:-1]}a" for name in posted} == set(
        posted
    )
    deleted = {name for kind, name in written if kind == "delete"}
    return (set(ledger.original) | set(posted)) - deleted


def everything(client: httpx.Client) -> list[str]:
    answer = client.get("/v1/recommendations/nobody", params={"k": EVERYTHING}).json()
    assert answer["source"] == "fallback"
    return ids_of(answer)


def check_twins(client: httpx.Client, ledger: Ledger) -> None:
    """The nearest of an item is the one that has its vector."""
    kept = set(ledger.items())
    pairs = [name for name in kept if name.endswith("-a") and f"{name[:-1]}b" in kept]
    assert pairs
    for name in pairs:
        (nearest,) = client.get(path(name, "/similar"), params={"k": 1}).json()["items"]
        assert nearest["item_id"] == f"{name[:-1]}b"
        assert nearest["score"] == pytest.approx(1.0, abs=1e-4)
