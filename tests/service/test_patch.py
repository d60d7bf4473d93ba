"""A change of an item: what is not named stays, and nobody's change is lost."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.bundle import Bundle
from contract.store import LocalStore
from tests.service.reference import Reference
from tests.service.server import Server
from tests.service.shop import Shop, ids_of, path

CHANGES = 100


@pytest.fixture(scope="module")
def shop(
    shelf: LocalStore, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    with Server(shelf.root, tmp_path_factory.mktemp("patch"), channels="exact") as server:
        yield Shop(server, Reference(bundle))


@pytest.mark.parametrize("item_id", ["i40", "posted"])
def test_an_item_that_is_out_of_stock_is_hidden_on_every_path_until_it_is_back(
    shop: Shop, item_id: str
) -> None:
    if item_id == "posted":
        shop.post(item_id, shop.reference.features["i41"])
    features = shop.reference.features[item_id]

    seq = shop.patch(item_id, available=False)

    known = shop.known(item_id)
    assert (known.source, known.seq, known.available) == ("overlay", seq, False)
    assert known.features == features
    shop.check_every_path()
    shop.patch(item_id, {"price": 3.5})
    assert shop.known(item_id).available is False
    shop.patch(item_id, available=True)
    assert item_id in ids_of(shop.check("nobody"))


def test_features_go_over_those_that_are_known_and_null_removes_one(shop: Shop) -> None:
    before = shop.reference.features["i42"]
    assert {"title", "price"} <= before.keys()

    shop.patch("i42", {"price": 1.25, "title": None, "tags": ["space"]})

    found = shop.known("i42").features
    assert found == {n: v for n, v in before.items() if n != "title"} | {
        "price": 1.25,
        "tags": ["space"],
    }
    shop.check_every_path()
    shop.patch("i42", {"title": "Again"})
    assert shop.known("i42").features == found | {"title": "Again"}
    shop.check("u1")


def test_what_is_journaled_is_the_whole_item(shop: Shop) -> None:
    features = dict(shop.reference.features["i43"])

    seq = shop.patch("i43", {"year": 1999})

    (record,) = shop.server.journal(after=seq - 1)
    assert (record.seq, record.kind) == (seq, "item")
    assert record.body == {
        "item_id": "i43",
        "features": features | {"year": 1999},
        "available": True,
    }


def test_an_empty_change_writes_the_item_as_it_is(shop: Shop) -> None:
    features = shop.reference.features["i44"]

    seq = shop.patch("i44")

    assert (shop.known("i44").features, shop.known("i44").seq) == (features, seq)


@pytest.mark.parametrize("item_id", ["never there", "i45"])
def test_a_change_of_an_item_that_is_not_there_is_refused(shop: Shop, item_id: str) -> None:
    if item_id == "i45":
        shop.delete(item_id)

    answer = shop.server.client.patch(path(item_id), json={"available": True})

    assert (answer.status_code, code(answer)) == (404, "unknown_item")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"features": {"price": "cheap"}}, "bad_items"),
        ({"features": {"colour": "red"}}, "bad_items"),
        ({"feature": {}}, "malformed_request"),
        ({"available": "maybe"}, "malformed_request"),
        ({"if_seq": -1}, "malformed_request"),
    ],
)
def test_a_bad_change_is_refused_and_nothing_is_written(
    shop: Shop, body: dict[str, Any], expected: str
) -> None:
    answer = shop.server.client.patch(path("i46"), json=body)

    assert (answer.status_code, code(answer)) == (422, expected)
    assert shop.known("i46").source == "bundle"


def test_a_change_may_insist_on_what_it_was_thought_out_on(shop: Shop) -> None:
    def patch(if_seq: int, price: float) -> httpx.Response:
        body = {"features": {"price": price}, "if_seq": if_seq}
        return shop.server.client.patch(path("i47"), json=body)

    first = patch(0, 2.0)
    late = patch(0, 3.0)
    second = patch(first.json()["seq"], 4.0)

    assert [answer.status_code for answer in (first, late, second)] == [200, 409, 200]
    assert code(late) == "conflict"
    assert shop.known("i47").features["price"] == 4.0
    shop.reference.patch("i47", {"price": 4.0})


def test_neighbours_are_shown_as_the_reference_ranks_them(shop: Shop) -> None:
    for item_id in ("shown", "its twin"):
        shop.post(item_id, shop.reference.features["i48"])

    for item_id in ("shown", "i49"):
        scores = shop.reference.similarities(item_id)
        best = sorted(scores[other] for other in shop.reference.eligible() if other != item_id)
        found = shop.known(item_id).neighbours
        assert [near.score for near in found] == pytest.approx(best[-1:-11:-1], abs=1e-5)
    answer = shop.server.client.get(path("shown"), params={"neighbours": 3}).json()
    assert len(answer["neighbours"]) == 3
    assert answer["neighbours"][0]["item_id"] == "its twin"
    none = shop.server.client.get(path("shown"), params={"neighbours": 0}).json()
    assert none["neighbours"] == []


def test_no_change_is_lost_when_two_workers_change_one_item_at_once(
    shelf: LocalStore, tmp_path: Path
) -> None:
    with (
        Server(shelf.root, tmp_path, channels="exact", workers=2) as server,
        server.client_of_each_worker() as workers,
        ThreadPoolExecutor(2) as pool,
    ):
        names = ("year", "price")
        start = server.client.patch(path("i1"), json={"features": dict.fromkeys(names, -1)})
        assert start.status_code == 200
        list(pool.map(_change, workers.values(), names))

        found = [record.body["features"] for record in server.journal()]

    # Record by record one of the two features goes on by one, and the other stays.
    values = [(features["year"], features["price"]) for features in found]
    steps = {(later[0] - one[0], later[1] - one[1]) for one, later in pairwise(values)}
    assert steps == {(1, 0), (0, 1)}
    assert len(values) == 1 + 2 * CHANGES
    assert values[-1] == (CHANGES - 1, CHANGES - 1)


def _change(client: httpx.Client, name: str) -> None:
    for n in range(CHANGES):
        answer = client.patch(path("i1"), json={"features": {name: n}})
        assert answer.status_code == 200, answer.text


def code(answer: httpx.Response) -> str:
    found: str = answer.json()["error"]["code"]
    return found
