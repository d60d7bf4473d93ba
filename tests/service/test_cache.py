"""Answers out of the cache are those that would be computed, whatever happened in between."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.journal import Record
from contract.store import LocalStore
from service.cache import Cache, Kept
from service.metrics import Metrics
from service.request import Recall
from service.snapshot import Snapshot
from service.state import State
from tests.service.reference import Reference
from tests.service.server import Server, wait_until
from tests.service.shop import Shop, ids_of


@pytest.fixture
def shop(shelf: LocalStore, reference: Reference, tmp_path: Path) -> Iterator[Shop]:
    with Server(shelf.root, tmp_path, channels="exact", cache_entries=100) as server:
        yield Shop(server, reference)


def hits(server: Server) -> float:
    return server.metric("tandem_cache_lookups_total", result="hit")


def test_an_answer_is_kept_until_something_that_it_depends_on_is_written(shop: Shop) -> None:
    server = shop.server

    def again() -> tuple[dict[str, Any], bool]:
        """The answer, right by the reference, and whether it was kept."""
        before = hits(server)
        return shop.check("u1"), hits(server) == before + 1

    first, kept = again()
    assert not kept
    assert again() == (first, True)

    seq = shop.event("u2", "i5")
    assert again() == (first | {"seq": seq}, True)

    best = ids_of(first)[0]
    shop.event("u1", best)
    answer, kept = again()
    assert best not in ids_of(answer)
    assert not kept
    assert again() == (answer, True)

    gone = ids_of(answer)[0]
    shop.delete(gone)
    answer, kept = again()
    assert gone not in ids_of(answer)
    assert not kept

    shop.post("new", shop.reference.features["i0"])
    answer, kept = again()
    assert "new" in ids_of(answer)
    assert not kept

    assert server.metric("tandem_answers_total", source="model") == 7
    assert server.metric("tandem_recall_seconds_count") == 4


def test_requests_that_differ_have_answers_of_their_own(shop: Shop) -> None:
    bodies: list[dict[str, Any]] = [
        {"user_id": "u1"},
        {"user_id": "u2"},
        {"user_id": None},
        {"user_id": "u1", "k": 5},
        {"user_id": "u1", "exclude": ["i1"]},
        {"user_id": "u1", "category": shop.reference.features["i0"]["category"]},
        {"user_id": "u1", "history": []},
        {"user_id": "u1", "history": ["i1", "i2"]},
        {"user_id": "u1", "history": ["i2", "i1"]},
        {"user_id": "u1", "features": {}},
        {"user_id": "u1", "features": {"age": 1}},
    ]

    first = [shop.recommend(**body) for body in bodies]
    assert hits(shop.server) == 0
    again = [shop.recommend(**body) for body in bodies]

    assert hits(shop.server) == len(bodies)
    assert again == first


def test_a_swap_leaves_no_answer_of_the_old_bundle(store: LocalStore, tmp_path: Path) -> None:
    with Server(store.root, tmp_path / "state", cache_entries=10) as server:
        before = server.client.get("/v1/recommendations/u1").json()
        assert server.client.get("/v1/recommendations/u1").json() == before
        channel = store.channel("rolled")
        assert channel

        store.point("live", channel.version)
        wait_until(
            lambda: server.client.get("/v1/bundle").json()["version"] == channel.version, "a swap"
        )

        after = server.client.get("/v1/recommendations/u1").json()
        assert after["bundle"] == channel.version
        assert ids_of(after) != ids_of(before)


def test_any_interleaving_of_writes_and_reads_answers_as_the_reference(
    shelf: LocalStore, reference: Reference, tmp_path: Path
) -> None:
    draw = random.Random(5)
    with (
        Server(shelf.root, tmp_path, channels="exact", workers=2, cache_entries=4) as server,
        server.client_of_each_worker() as clients,
    ):
        shop = Shop(server, reference)
        alive = list(reference.ids)
        for step in range(120):
            server.client = draw.choice(list(clients.values()))
            action = draw.choice(["post", "delete", "event", *["check"] * 6])
            if action == "post":
                shop.post(f"n{step % 5}", reference.features[draw.choice(alive)])
            elif action == "delete":
                shop.delete(alive.pop(draw.randrange(len(alive))))
            elif action == "event":
                shop.event(draw.choice(["u1", "u2", "new user"]), draw.choice(alive))
            else:
                shop.check(draw.choice(["u1", "u2", "new user", None]))

        assert hits(server) > 0


def test_the_answer_used_longest_ago_makes_room(snapshot: Snapshot, metrics: Metrics) -> None:
    state, cache = State.of(snapshot, 10, 1), Cache(2, metrics)

    def made(k: int) -> bool:
        """Whether the answer to this request was not there."""
        fresh = Kept(b"{", "model")
        return cache.find("live", state, [Recall(k)], lambda _: [fresh])[0] is fresh

    assert [made(1), made(2), made(1), made(3)] == [True, True, False, True]
    assert [made(1), made(2)] == [False, True]
    assert len(cache) == 2


def test_a_cache_of_none_keeps_nothing(snapshot: Snapshot, metrics: Metrics) -> None:
    state, cache = State.of(snapshot, 10, 1), Cache(0, metrics)

    for body in (b"1", b"2"):
        made = [Kept(body, "model")]
        assert cache.find("live", state, [Recall(1)], lambda _: made) is made  # noqa: B023
    assert len(cache) == 0


def test_a_position_moves_with_items_and_with_the_users_own_events(snapshot: Snapshot) -> None:
    state = State.of(snapshot, 10, 1)

    def apply(seq: int, kind: Any, **body: Any) -> None:
        state.apply([Record(seq, 0.0, kind, body)])

    assert state.position("ann") == state.position(None) == (0, 0)
    apply(4, "event", user_id="ann", item_id="i1")
    assert (state.position("ann"), state.position("bob")) == ((0, 4), (0, 0))
    apply(5, "item", item_id="x")
    apply(6, "event", user_id="bob", item_id="x")
    apply(7, "delete", item_id="i3")
    assert (state.position("ann"), state.position("bob")) == ((7, 4), (7, 6))
    assert state.position(None) == (7, 0)
