"""Items and events over HTTP: what is written counts in the next answer, and is held against the
plain reference after every step."""

from collections.abc import Iterator

import pytest

from contract.bundle import Bundle
from contract.store import LocalStore
from tests.conftest import ITEMS
from tests.service.reference import Reference
from tests.service.server import Server
from tests.service.shop import Shop, ids_of, path


@pytest.fixture(scope="module")
def shop(
    shelf: LocalStore, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    with Server(shelf.root, tmp_path_factory.mktemp("shop"), channels="exact") as server:
        yield Shop(server, Reference(bundle))


def test_a_posted_item_is_known_and_ranked_as_the_item_tower_says(shop: Shop) -> None:
    features = shop.reference.features["i7"]

    seq = shop.post("fresh", features)

    known = shop.known("fresh")
    assert (known.source, known.seq, known.available) == ("overlay", seq, True)
    assert known.features == features
    shop.check_every_path()
    found = {item["item_id"]: item for item in shop.recommend(user_id="u1")["items"]}
    assert found["fresh"]["source"] == "overlay"


def test_a_posted_item_is_the_nearest_to_its_like(shop: Shop) -> None:
    features = {"title": "The Silent Nebula", "category": "space opera", "tags": ["space", "epic"]}
    shop.post("like-1", features)
    shop.post("like-2", features)

    assert ids_of(shop.similar("like-1", k=1)) == ["like-2"]
    assert ids_of(shop.similar("like-2", k=1)) == ["like-1"]
    assert shop.similar("like-1", k=1)["items"][0]["score"] == pytest.approx(1.0, abs=1e-5)


def test_in_a_session_a_posted_item_stands_beside_its_like(shop: Shop) -> None:
    # An item that nobody touched has no identity of its own, so its twin is in no way different.
    for item_id in shop.reference.ids[ITEMS : ITEMS + 3]:
        shop.post(f"twin of {item_id}", shop.reference.features[item_id])

        found = ids_of(shop.check(history=["i0", "i1"]))

        assert abs(found.index(item_id) - found.index(f"twin of {item_id}")) == 1


def test_a_posted_item_without_features_is_legal(shop: Shop) -> None:
    shop.post("bare", {})

    assert shop.known("bare").features == {}
    shop.check("u1")


def test_a_second_post_replaces_the_first(shop: Shop) -> None:
    shop.post("twice", shop.reference.features["i1"])
    before = shop.recommend(user_id="u1")

    shop.post("twice", shop.reference.features["i2"])

    assert shop.known("twice").features == shop.reference.features["i2"]
    after = shop.check("u1")
    scores = [
        next(i["score"] for i in answer["items"] if i["item_id"] == "twice")
        for answer in (before, after)
    ]
    assert abs(scores[0] - scores[1]) > 1e-3
    assert ids_of(after).count("twice") == 1


def test_a_changed_item_of_the_bundle_keeps_its_identity_and_popularity(shop: Shop) -> None:
    features = shop.reference.features["i30"] | {"price": 99.0}

    shop.post("i30", features)

    assert shop.known("i30").source == "overlay"
    assert shop.known("i30").features == features
    shop.check_every_path()
    best = max(shop.reference.shares().items(), key=lambda pair: pair[1])[0]
    shop.post(best, shop.reference.features[best])
    assert ids_of(shop.recommend(user_id="nobody", k=1)) == [best]


def test_an_item_of_the_bundle_shows_the_features_it_was_trained_with(shop: Shop) -> None:
    known = shop.known("i199")

    assert known.features == shop.reference.features["i199"]
    assert (known.source, known.seq, known.available) == ("bundle", None, True)


@pytest.mark.parametrize("item_id", ["much/similar", "/similar", "much/similar/similar"])
def test_an_id_may_end_like_a_route(shop: Shop, item_id: str) -> None:
    features = shop.reference.features["i40"]
    shop.post(item_id.removesuffix("/similar") or "much", shop.reference.features["i1"])
    seq = shop.post(item_id, features)

    known = shop.known(item_id)

    assert (known.item_id, known.seq, known.features) == (item_id, seq, features)
    assert shop.similar(item_id, k=3)["item_id"] == item_id


@pytest.mark.parametrize("item_id", ["sold out", "i40"])
def test_an_unavailable_item_is_hidden_on_every_path_and_still_known(
    shop: Shop, item_id: str
) -> None:
    features = shop.reference.features["i40"]
    shop.post(item_id, features)

    shop.post(item_id, features, available=False)

    assert shop.known(item_id).available is False
    shop.check_every_path()
    assert len(shop.similar(item_id, k=3)["items"]) == 3
    shop.post(item_id, features)
    assert item_id in ids_of(shop.check("nobody"))


@pytest.mark.parametrize("item_id", ["short-lived", "i50"])
def test_a_deleted_item_is_gone_from_every_path_until_it_is_posted_again(
    shop: Shop, item_id: str
) -> None:
    features = shop.reference.features["i50"]
    if item_id == "short-lived":
        shop.post(item_id, features)

    shop.delete(item_id)

    for method, suffix in (("GET", ""), ("GET", "/similar"), ("DELETE", "")):
        answer = shop.server.client.request(method, path(item_id, suffix))
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "unknown_item"
    shop.check_every_path()
    shop.post(item_id, features)
    assert item_id in ids_of(shop.check("nobody"))
    assert shop.known(item_id).features == features


def test_a_deleted_item_still_counts_in_the_histories_that_hold_it(shop: Shop) -> None:
    shop.post("remembered", shop.reference.features["i60"])
    shop.delete("remembered")

    answer = shop.check(history=["remembered", "i61"])

    assert answer["source"] == "session"
    assert answer["items"] != shop.recommend(history=["i61"])["items"]


def test_a_posted_item_counts_in_a_history(shop: Shop) -> None:
    shop.post("clicked", shop.reference.features["i62"])

    answer = shop.check(history=["clicked"])

    assert answer["source"] == "session"
    assert "clicked" not in ids_of(answer)


def test_an_event_counts_in_the_next_answer_and_its_item_is_not_returned_again(
    shop: Shop,
) -> None:
    before = shop.check("u2")
    touched = before["items"][0]["item_id"]

    shop.event("u2", touched)

    after = shop.check("u2")
    assert after["source"] == "model"
    assert touched not in ids_of(after)
    scores = {item["item_id"]: item["score"] for item in before["items"]}
    assert any(abs(i["score"] - scores[i["item_id"]]) > 1e-4 for i in after["items"])


def test_events_turn_an_unknown_user_into_a_session(shop: Shop) -> None:
    assert shop.check("visitor")["source"] == "fallback"

    for item_id in ("i70", "i71", "i70"):
        shop.event("visitor", item_id)

    assert shop.check("visitor")["source"] == "session"


def test_an_event_may_name_an_item_that_is_posted_later(shop: Shop) -> None:
    shop.event("early bird", "not there yet")
    assert shop.check("early bird")["source"] == "fallback"

    shop.post("not there yet", shop.reference.features["i72"])

    answer = shop.check("early bird")
    assert answer["source"] == "session"
    assert "not there yet" not in ids_of(answer)


def test_several_items_and_events_are_written_at_once(shop: Shop) -> None:
    features = shop.reference.features["i80"]
    items = [{"item_id": f"many-{n}", "features": features} for n in range(3)]
    events = [{"user_id": "busy", "item_id": f"many-{n}", "timestamp": n} for n in range(2)]

    first = shop.server.client.post("/v1/items", json={"items": items}).json()
    second = shop.server.client.post("/v1/events", json={"events": events}).json()

    assert first["items"] == ["many-0", "many-1", "many-2"]
    assert second["seq"] == first["seq"] + 2
    assert [shop.known(f"many-{n}").seq for n in range(3)] == [
        first["seq"] - 2,
        first["seq"] - 1,
        first["seq"],
    ]
    for n in range(3):
        shop.reference.post(f"many-{n}", features)
    for n in range(2):
        shop.reference.event("busy", f"many-{n}")
    assert shop.check("busy")["source"] == "session"


def test_of_several_items_with_a_bad_one_none_is_written(shop: Shop) -> None:
    items = [{"item_id": "good"}, {"item_id": "bad", "features": {"price": "cheap"}}]

    answer = shop.server.client.post("/v1/items", json={"items": items})

    assert answer.status_code == 422
    assert "'bad'" in answer.json()["error"]["message"]
    assert "'price'" in answer.json()["error"]["message"]
    assert shop.server.client.get(path("good")).status_code == 404


def test_an_answer_can_be_asked_to_include_a_write(shop: Shop) -> None:
    seq = shop.post("awaited", {})

    reached = shop.server.client.get("/v1/recommendations/u1", params={"min_seq": seq})
    ahead = shop.server.client.get("/v1/recommendations/u1", params={"min_seq": seq + 1})
    inline = shop.server.client.post("/v1/recommendations", json={"min_seq": seq + 1})

    assert reached.status_code == 200
    assert reached.json()["seq"] == seq
    for answer in (ahead, inline):
        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "not_yet_visible"
        assert f"is read up to {seq}" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "item_id", ["a/b", "a b?c=d#e", "é\U0001f6b2", "50%", "a/b/", "a\nb", "\n"]
)
def test_any_text_is_an_item_id(shop: Shop, item_id: str) -> None:
    shop.post(item_id, {"title": "odd"})

    assert shop.known(item_id).item_id == item_id
    assert item_id in ids_of(shop.check("nobody"))
    assert item_id not in ids_of(shop.similar(item_id))
    shop.delete(item_id)
    assert shop.server.client.get(path(item_id)).status_code == 404


def test_an_event_keeps_the_time_it_was_given(shop: Shop) -> None:
    body = {"user_id": "historian", "item_id": "i1", "timestamp": 0}
    seq = shop.server.client.post("/v1/events", json=body).json()["seq"]
    shop.reference.event("historian", "i1")

    records = shop.server.journal(after=seq - 1)

    assert [(record.seq, record.kind) for record in records] == [(seq, "event")]
    assert records[0].body == body | {"kind": "view"}


def test_everything_written_is_in_force_after_a_restart(shop: Shop) -> None:
    shop.post("before", shop.reference.features["i90"])
    shop.post("before, and deleted", shop.reference.features["i91"])
    shop.event("returning", "before")
    shop.event("returning", "before, and deleted")
    shop.delete("before, and deleted")
    shop.delete("i92")

    shop.server.stop()
    shop.server.restart()

    shop.check_every_path()
    assert shop.check("returning")["source"] == "session"
    assert shop.check("u2")["source"] == "model"
