"""Kill loop of two services that share a journal on a Redis server: the server dies, and they do,
at random moments while both are written to and read.

What was cut off or refused may have been written; what was acknowledged has to be there.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from contract.journal import opened_journal
from tests.redis import RedisServer, redis_server
from tests.service.reliability.conftest import Floor
from tests.service.reliability.scale import SEED, found, lasting
from tests.service.reliability.threads import running
from tests.service.server import Server, wait_until
from tests.service.shop import ids_of, path

KILLS = lasting(4, 40, 1000)
MOST_SECONDS_BETWEEN_KILLS = lasting(1, 3, 5)
PAUSE = lasting(20, 50, 2000) / 1000
"""Seconds between two writes: all that is there at the end has to fit into one answer."""
EVERYTHING = 10_000

Written = tuple[str, str]
"""Kind, and the item, or the user of an event. Each is sent once."""


class Ledger:
    def __init__(self) -> None:
        self.sent: list[Written] = []
        self.acknowledged: dict[int, Written] = {}
        self.reads, self.wrong = 0, list[str]()

    def write(
        self, client: httpx.Client, written: Written, method: str, url: str, body: object
    ) -> bool:
        self.sent.append(written)
        try:
            answer = client.request(method, url, json=body)
        except httpx.TransportError:
            return False
        if answer.is_success:
            self.acknowledged[answer.json()["seq"]] = written
        elif answer.status_code != 503:
            self.wrong.append(f"{method} {url}: {answer.status_code} {answer.text}")
        return answer.is_success

    def has(self, acknowledged: int) -> bool:
        return len(self.acknowledged) >= acknowledged

    def read(self, client: httpx.Client, user_id: str) -> None:
        """Never refused, whatever becomes of the journal."""
        try:
            answer = client.get(f"/v1/recommendations/{user_id}", params={"k": 100})
        except httpx.TransportError:
            return  # this service was killed
        self.reads += 1
        if answer.status_code != 200 or len(set(ids_of(answer.json()))) != 100:
            self.wrong.append(f"read: {answer.status_code} {answer.text[:300]}")


def write(ledger: Ledger, server: Server, number: int, ended: threading.Event) -> None:
    """An item, an event on it, and now and then its end."""
    with server.new_client() as client:
        for n in range(10**9):
            if ended.wait(PAUSE):
                return
            name = f"{number}-{n}"
            item = {"item_id": name, "features": {"year": 1900 + n % 100}}
            there = ledger.write(client, ("item", name), "POST", "/v1/items", item)
            event = {"user_id": name, "item_id": "i1"}
            ledger.write(client, ("event", name), "POST", "/v1/events", event)
            if there and n % 4 == 0:
                ledger.write(client, ("delete", name), "DELETE", path(name), None)


def read(ledger: Ledger, server: Server, ended: threading.Event) -> None:
    with server.new_client() as client:
        for n in range(10**9):
            if ended.wait(PAUSE):
                return
            ledger.read(client, f"u{n % 100}")


@contextmanager
def traffic(ledger: Ledger, servers: list[Server]) -> Iterator[None]:
    ended = threading.Event()
    works: list[Callable[[], None]] = []
    for number, server in enumerate(servers):
        works += [
            partial(write, ledger, server, number, ended),
            partial(read, ledger, server, ended),
        ]
    with running(works, ended):
        yield


@pytest.mark.timeout(4 * 3600)
def test_no_kill_of_anyone_loses_what_was_acknowledged(floor: Floor, tmp_path: Path) -> None:
    ledger, chance = Ledger(), random.Random(SEED)
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(tmp_path))
        uri = redis.uri("shop")
        servers = [
            stack.enter_context(
                Server(floor.store.root, tmp_path / name, journal=uri, max_k=EVERYTHING)
            )
            for name in ("one", "other")
        ]
        victims: list[RedisServer | Server] = [redis, *servers]
        original = everything(servers[0], 0)
        with traffic(ledger, servers):
            for _ in range(KILLS):
                time.sleep(chance.uniform(0, MOST_SECONDS_BETWEEN_KILLS))
                victim = chance.choice(victims)
                victim.kill()
                time.sleep(chance.uniform(0, MOST_SECONDS_BETWEEN_KILLS))
                victim.start()
                if isinstance(victim, Server):
                    victim.wait_ready()  # it does not start without its journal
                wait_until(partial(ledger.has, len(ledger.acknowledged) + 4), "writes to go on")
        expected, last = journal_holds(uri, ledger, original)
        for server in servers:
            server.wait_ready()
            assert everything(server, last) == expected

    assert ledger.wrong == []
    found(
        f"a shared journal: {KILLS} kills of its server and of two services",
        "0 lost or phantom; reads go on",
        f"0 of {len(ledger.acknowledged):,} writes, {ledger.reads:,} reads",
    )


def journal_holds(uri: str, ledger: Ledger, original: set[str]) -> tuple[set[str], int]:
    """Every acknowledged write under its seq, and nothing that was not sent. The items that there
    must be, and the last seq."""
    with opened_journal(uri) as journal:
        records = journal.read(0, limit=10**9)
    names = [r.body["user_id" if r.kind == "event" else "item_id"] for r in records]
    written = {r.seq: (r.kind, name) for r, name in zip(records, names, strict=True)}
    assert list(written) == list(range(1, len(written) + 1))
    assert {seq: written[seq] for seq in ledger.acknowledged} == ledger.acknowledged
    assert len(set(written.values())) == len(written)
    assert set(written.values()) <= set(ledger.sent)
    deleted = {name for kind, name in written.values() if kind == "delete"}
    posted = {name for kind, name in written.values() if kind == "item"}
    return (original | posted) - deleted, len(written)


def everything(server: Server, seq: int) -> set[str]:
    answer = server.client.get(
        "/v1/recommendations/nobody", params={"k": EVERYTHING, "min_seq": seq}
    )
    assert answer.status_code == 200, answer.text
    return set(ids_of(answer.json()))
