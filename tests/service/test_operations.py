"""Random operations against the plain reference: state agrees, answers are eligible, k of k.

The seed is printed; TANDEM_SEED repeats a run, TANDEM_OPERATIONS makes it longer (`make soak`).
"""

import os
import random
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.bundle import open_bundle
from contract.journal import opened_journal
from contract.store import LocalStore
from offline.compact import compact
from tests.service.conftest import KINDS
from tests.service.reference import Reference
from tests.service.server import ADMIN, Server, wait_until
from tests.service.shop import path

OPERATIONS = int(os.environ.get("TANDEM_OPERATIONS", 20_000))
ITEMS, USERS, LARGEST_K = 400, 100, 60
CATEGORIES = ("space opera", "slow cooking", "classic", "space", "unheard of")
FILTERS: tuple[dict[str, Any], ...] = (
    {"tags": ["new", "loud"]},
    {"category": "space opera", "year": {"gte": 1980}},
    {"year": {"lt": 2000}},
    {"price": {"gt": 5, "lte": 50}},
    {"tags": "classic", "category": ["slow cooking", "unheard of"]},
)
BLENDS: tuple[dict[str, Any], ...] = (
    {"sources": {"model": 1.0, "similar": 0.9, "popular": 0.8, "new": 0.7}},
    {"diversity": 0.3, "explore": 0.2},
    {"category_diversity": 0.1, "explore": 0.3, "explore_from": "new", "explain": True},
)


class Story:
    """A service, the reference, and what was written to both."""

    def __init__(self, server: Server, store: LocalStore, seed: int) -> None:
        self.server, self.store, self.random = server, store, random.Random(seed)
        self.written: list[tuple[int, Callable[[Reference], None]]] = []
        """Every write with its seq."""
        self.reference = self._read()
        self.ids = [*self.reference.ids, *(f"new-{n}" for n in range(ITEMS))]
        self.users = [f"u{n}" for n in range(USERS // 2)] + [f"x{n}" for n in range(USERS // 2)]
        self.client = server.new_client()
        self.recalls = 0

    def _read(self) -> Reference:
        """The reference of the bundle that is served, with all that came after it."""
        channel = self.store.channel("live")
        assert channel
        bundle = open_bundle(self.store.bundle(channel.version))
        reference = Reference(bundle)
        for seq, write in self.written:
            if seq > bundle.manifest.seq:
                write(reference)
        return reference

    def _write(self, answer: httpx.Response, write: Callable[[Reference], None]) -> None:
        assert answer.is_success, answer.text
        self.written.append((answer.json()["seq"], write))
        write(self.reference)

    def item(self) -> str:
        return self.random.choice(self.ids)

    def user(self) -> str:
        return self.random.choice(self.users)

    def features(self) -> dict[str, Any]:
        draw = self.random
        tags = draw.sample(["new", "old", "loud", "quiet"], draw.randrange(3))
        return {"title": f"story {draw.randrange(99)}", "category": draw.choice(CATEGORIES)} | (
            {"tags": tags, "year": draw.randrange(1950, 2026)} if tags else {"price": 12.5}
        )

    def post(self) -> None:
        item_id, features, available = self.item(), self.features(), self.random.random() < 0.85
        body = {"item_id": item_id, "features": features, "available": available}
        answer = self.client.post("/v1/items", json=body)
        self._write(answer, lambda reference: reference.post(item_id, features, available))

    def post_many(self) -> None:
        ids = self.random.sample(self.ids, self.random.randrange(2, 12))
        features = {item_id: self.features() for item_id in ids}
        items = [{"item_id": item_id, "features": features[item_id]} for item_id in ids]
        answer = self.client.post("/v1/items", json={"items": items})

        def write(reference: Reference) -> None:
            for item_id, its in features.items():
                reference.post(item_id, its)

        self._write(answer, write)

    def patch(self) -> None:
        item_id, available = self.item(), self.random.choice((True, False, None))
        features = self.random.choice(({}, {"title": None}, self.features()))
        given = {"features": features, "available": available}
        body = {name: value for name, value in given.items() if value is not None}
        answer = self.client.patch(path(item_id), json=body)
        if not self.reference.knows(item_id):
            assert answer.status_code == 404, answer.text
            return
        # A patch stands for the whole item that it made, beside another bundle too.
        self.reference.patch(item_id, features, available)
        whole = self.reference.features[item_id]
        available = item_id not in self.reference.unavailable
        self._write(answer, lambda reference: reference.post(item_id, whole, available))

    def delete(self) -> None:
        item_id = self.item()
        answer = self.client.delete(path(item_id))
        if self.reference.knows(item_id):
            self._write(answer, lambda reference: reference.delete(item_id))
        else:
            assert answer.status_code == 404, answer.text

    def event(self) -> None:
        user_id, item_id = self.user(), self.item()
        kind = self.random.choice(("view", *KINDS.root))
        body = {"user_id": user_id, "item_id": item_id, "kind": kind}
        answer = self.client.post("/v1/events", json=body)
        self._write(answer, lambda reference: reference.event(user_id, item_id, kind))

    def look(self) -> None:
        item_id = self.item()
        answer = self.client.get(path(item_id))
        if not self.reference.knows(item_id):
            assert answer.status_code == 404, answer.text
            return
        found = answer.json()
        assert found["features"] == self.reference.features[item_id]
        assert found["available"] == (item_id not in self.reference.unavailable)

    def asked(self) -> dict[str, Any]:
        """A request without k, as the body of a POST and as the reference takes it."""
        draw, asked = self.random, dict[str, Any]()
        if draw.random() < 0.9:
            asked["user_id"] = draw.choice((self.user(), "nobody"))
        options: dict[str, Callable[[], Any]] = {
            "history": lambda: draw.sample(self.ids, draw.randrange(1, 8)),
            "exclude": lambda: draw.sample(self.ids, draw.randrange(1, 30)),
            "include": lambda: draw.sample(self.ids, draw.randrange(1, 200)),
            "category": lambda: draw.choice(CATEGORIES),
            "filters": lambda: draw.choice(FILTERS),
            "exclude_seen": lambda: False,
        }
        return asked | {name: make() for name, make in options.items() if draw.random() < 0.2}

    def recall(self) -> None:
        asked, k = self.asked(), self.random.randrange(1, LARGEST_K)
        blend = self.random.choice(({}, {}, *BLENDS))
        answer = self.client.post("/v1/recommendations", json={"k": k, **asked, **blend})
        self._check(answer, self.reference.eligible(**asked), k)

    def recall_many(self) -> None:
        many = [self.asked() for _ in range(self.random.randrange(1, 6))]
        requests = [{"k": LARGEST_K, **asked} for asked in many]
        answer = self.client.post("/v1/recommendations:batch", json={"requests": requests})
        assert answer.status_code == 200, answer.text
        for found, asked in zip(answer.json()["answers"], many, strict=True):
            self._check_items(found, self.reference.eligible(**asked), LARGEST_K)

    def similar(self) -> None:
        item_id, k = self.item(), self.random.randrange(1, LARGEST_K)
        answer = self.client.get(path(item_id, "/similar"), params={"k": k})
        if self.reference.knows(item_id):
            eligible = [other for other in self.reference.eligible() if other != item_id]
            self._check(answer, eligible, k)
        else:
            assert answer.status_code == 404, answer.text

    def _check(self, answer: httpx.Response, eligible: list[str], k: int) -> None:
        assert answer.status_code == 200, answer.text
        self._check_items(answer.json(), eligible, k)

    def _check_items(self, answer: dict[str, Any], eligible: list[str], k: int) -> None:
        found = [item["item_id"] for item in answer["items"]]
        assert len(found) == len(set(found)) == min(k, len(eligible))
        assert set(found) <= set(eligible)
        self.recalls += 1

    def swap(self) -> None:
        """To a bundle with other vectors, without a change of what there is."""
        channel = self.store.channel("live")
        assert channel
        version = self.random.choice([v for v in self.store.versions() if v != channel.version])
        self.store.point("live", version)
        self._follow()

    def compact(self) -> None:
        """Another bundle, with the journal in it, and nothing has changed for anyone."""
        before = {user_id: self.reference.eligible(user_id) for user_id in self.users}
        with opened_journal(str(self.server.state / "journal.db")) as journal:
            done = compact(self.store, journal, "live")
        self._follow()
        for user_id, eligible in before.items():
            assert set(self.reference.eligible(user_id)) == set(eligible)
        if done:
            assert self.client.get("/v1/bundle").json()["overlay_items"] == 0

    def roll_back(self) -> None:
        channel = self.store.channel("live")
        assert channel
        if channel.previous:
            answer = self.client.post("/v1/bundle/rollback", headers=ADMIN)
            assert answer.status_code == 200, answer.text
            self._follow()

    def restart(self) -> None:
        self.client.close()
        self.server.kill()
        self.server.restart()
        self.client = self.server.new_client()
        self._follow()

    def _follow(self) -> None:
        channel = self.store.channel("live")
        assert channel
        with self.server.client_of_each_worker() as workers:
            for client in workers.values():
                wait_until(
                    lambda: client.get("/v1/bundle").json()["version"] == channel.version,  # noqa: B023
                    f"{channel.version} to be served",
                )
        self.reference = self._read()

    def check_all(self) -> None:
        """Every item, and the whole ranking of every kind of asker."""
        for item_id in self.ids:
            answer = self.client.get(path(item_id))
            assert (answer.status_code == 200) == self.reference.knows(item_id), item_id
        for user_id in (*self.users, "nobody"):
            asked: dict[str, Any] = {"user_id": user_id}
            answer = self.client.post("/v1/recommendations", json={"k": 1000, **asked})
            self._check(answer, self.reference.eligible(**asked), 1000)


OFTEN: dict[str, float] = {
    "recall": 400,
    "recall_many": 30,
    "event": 200,
    "post": 120,
    "post_many": 30,
    "patch": 50,
    "look": 100,
    "delete": 60,
    "similar": 50,
    "swap": 0.3,
    "roll_back": 0.3,
    "restart": 0.3,
    "compact": 0.3,
}
"""Operation -> how often it comes among the others."""


@pytest.mark.timeout(0)
def test_any_operations_in_any_order_agree_with_the_reference(
    store: LocalStore, tmp_path: Path
) -> None:
    seed = int(os.environ.get("TANDEM_SEED", secrets.randbelow(10**9)))
    print(f"TANDEM_SEED={seed}")
    with Server(store.root, tmp_path / "state", workers=2) as server:
        story = Story(server, store, seed)
        try:
            for name in story.random.choices(list(OFTEN), list(OFTEN.values()), k=OPERATIONS):
                getattr(story, name)()
            story.check_all()
        finally:
            story.client.close()
    assert story.recalls > OPERATIONS / 4
