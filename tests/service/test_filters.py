"""Filters over HTTP, against the plain reference: attributes that the model reads and such as it
does not, of the bundle and of posted items, in both spellings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from contract.attributes import AttributeKind, index_attributes
from contract.bundle import Bundle, open_bundle, texts_arrays
from contract.ids import Texts
from contract.store import LocalStore
from service import schemas
from tests.service.bundles import derive, with_backend
from tests.service.reference import Reference, assert_best
from tests.service.server import Server
from tests.service.shop import Shop, ids_of

KINDS: dict[str, AttributeKind] = {
    "category": "tags",
    "tags": "tags",
    "year": "number",
    "region": "tags",
    "stock": "number",
}
NOTHING = (["region=nowhere"], ["year>=2000", "year<1990"])
REGIONS = ("north", "south", "north|south", None)


def with_stock(store: LocalStore, bundle: Bundle) -> str:
    """The bundle with two attributes more, which are no features, and without the price."""
    items = [orjson.loads(bundle.attributes.raw(row)) for row in range(len(bundle.attributes))]
    for row, item in enumerate(items):
        item |= {"region": REGIONS[row % 4], "stock": row % 7 if row % 5 else None}
    columns = {name: [item[name] for item in items] for name in KINDS}
    attributes, arrays = index_attributes(KINDS, columns, len(items))
    given = [{name: value for name, value in item.items() if value is not None} for item in items]
    texts = Texts.of([orjson.dumps(item).decode() for item in given])

    def edit(directory: Path) -> None:
        for name, array in (arrays | texts_arrays("attributes", texts)).items():
            np.save(directory / f"{name}.npy", array)

    return derive(store, bundle.path, edit, attributes=attributes)


@pytest.fixture(scope="module")
def shop(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Behind an index: of a catalogue as small as this `exact` asks none."""
    store = LocalStore(tmp_path_factory.mktemp("filters"))
    version = with_backend(store, store.bundle(with_stock(store, bundle)), "faiss_flat")
    store.point("live", version)
    with Server(store.root, tmp_path_factory.mktemp("state")) as server:
        yield Shop(server, Reference(open_bundle(store.bundle(version))))


def get(shop: Shop, user_id: str = "u1", **params: Any) -> dict[str, Any]:
    answer = shop.server.client.get(f"/v1/recommendations/{user_id}", params={"k": 300} | params)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    ("texts", "filters"),
    [
        (["region=north"], {"region": "north"}),
        (
            ["tags=classic|space", "year>=1990"],
            {"tags": ["classic", "space"], "year": {"gte": 1990}},
        ),
        (["year>1990", "year<2000"], {"year": {"gt": 1990, "lt": 2000}}),
        (["stock=0|3"], {"stock": [0, 3]}),
        (["stock<=2", "region=south"], {"stock": {"lte": 2}, "region": "south"}),
        (["region=nowhere"], {"region": "nowhere"}),
        (["year>=2000", "year<1990"], {"year": {"gte": 2000, "lt": 1990}}),
    ],
)
def test_both_spellings_answer_with_the_best_of_what_passes(
    shop: Shop, texts: list[str], filters: dict[str, Any]
) -> None:
    answer = shop.check("u1", filters=filters)

    assert get(shop, filter=texts)["items"] == answer["items"]
    assert bool(answer["items"]) == (texts not in NOTHING)


def test_a_get_may_ask_for_two_tags_of_an_attribute(shop: Shop) -> None:
    both = get(shop, filter=["region=north", "region=south"])

    north, south = (set(ids_of(get(shop, filter=[f"region={r}"]))) for r in ("north", "south"))
    assert set(ids_of(both)) == north & south
    assert 0 < len(north & south) < len(north)


def test_every_source_keeps_to_the_filters(shop: Shop) -> None:
    filters = {"region": "north", "stock": {"gte": 1}}

    sources = [
        shop.check(**asked, filters=filters)["source"]
        for asked in ({"user_id": "u1"}, {"history": ["i0", "i1"]}, {"user_id": "nobody"})
    ]

    assert sources == ["model", "session", "fallback"]


def test_seen_items_come_back_when_they_are_asked_for(shop: Shop) -> None:
    seen = set(shop.reference.seen("u1"))

    everything = shop.check("u1", exclude_seen=False)
    session = shop.check(history=["i0", "i1"], exclude_seen=False)

    assert seen < set(ids_of(everything))
    assert {"i0", "i1"} < set(ids_of(session))
    assert get(shop, exclude_seen=False)["items"] == everything["items"]
    assert not seen & set(ids_of(get(shop)))


def test_only_included_items_are_answered(shop: Shop) -> None:
    include = [*shop.reference.ids[::9], "not an item"]

    for more in ({}, {"exclude_seen": False}, {"filters": {"region": "north"}}):
        assert shop.check("u1", include=include, **more)["items"]
    assert shop.check("nobody", include=include)["source"] == "fallback"
    answer = shop.check("u1", include=include, exclude=include[:5])
    assert get(shop, include=include, exclude=include[:5])["items"] == answer["items"]
    assert shop.check("u1", include=[])["items"] == []
    assert shop.check("u1", include=["not an item"])["items"] == []


def test_a_posted_item_is_filtered_by_what_was_posted_last(shop: Shop) -> None:
    shop.post("first", {"title": "Tide", "region": "east", "stock": 2, "tags": ["unheard of"]})
    shop.post("second", {"region": ["east", "north"]})
    shop.post("i5", {"region": "east", "stock": 9})

    for filters in (
        {"region": "east"},
        {"tags": "unheard of"},
        {"stock": {"gte": 2}},
        {"region": "east", "stock": {"gte": 0}},
        {"region": ["north", "west"]},
    ):
        shop.check(filters=filters)
    assert set(ids_of(shop.recommend(filters={"region": "east"}))) == {"first", "second", "i5"}
    assert ids_of(shop.recommend(category="unheard of")) == ["first"]
    assert shop.recommend(include=["first"])["items"][0]["source"] == "overlay"
    assert shop.known("first").features["stock"] == 2

    shop.post("first", {"region": "west"})
    shop.post("second", {"region": "east"}, available=False)
    shop.delete("i5")

    assert shop.check(filters={"region": "east"})["items"] == []
    assert ids_of(shop.check(filters={"region": "west"})) == ["first"]
    assert shop.check(filters={"tags": "unheard of"})["items"] == []
    assert shop.check(include=["second", "i5"])["items"] == []


def test_similar_items_are_of_every_kind(shop: Shop) -> None:
    scores = shop.reference.similarities("i0")
    eligible = [item_id for item_id in shop.reference.eligible() if item_id != "i0"]

    assert_best(shop.similar("i0"), scores, eligible, 1000)


def test_the_bundle_lists_what_can_be_filtered_by(shop: Shop) -> None:
    known = shop.server.client.get("/v1/bundle").json()

    assert schemas.BundleKnown.model_validate(known, strict=True).attributes == KINDS


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"stock": "many"}, "item 'x': attribute 'stock': expected a finite number, found str"),
        ({"region": 1.5}, "item 'x': attribute 'region': expected a string, an integer, or a list"),
        ({"regoin": "a"}, "item 'x': feature 'regoin': not in the schema; known are category, "),
    ],
)
def test_an_attribute_of_the_wrong_type_is_refused_and_named(
    shop: Shop, features: dict[str, Any], message: str
) -> None:
    answer = shop.server.client.post("/v1/items", json={"item_id": "x", "features": features})

    error = refused(answer, "bad_items")
    assert error.startswith(message)
    assert "regoin" not in features or error.endswith("did you mean 'region'?")


@pytest.mark.parametrize(
    ("params", "filters", "message"),
    [
        ("price<3", {"price": {"lt": 3}}, "filters.price: no such attribute; known are category, "),
        ("stock=some", {"stock": "some"}, "filters.stock: expected a finite number, found str"),
        ("region<3", {"region": {"lt": 3}}, "filters.region: bounds are for numbers"),
    ],
)
def test_a_wrong_filter_is_refused_and_named(
    shop: Shop, params: str, filters: dict[str, Any], message: str
) -> None:
    client = shop.server.client
    posted = client.post("/v1/recommendations", json={"filters": filters})
    asked = client.get("/v1/recommendations/u1", params={"filter": params})

    assert refused(posted, "malformed_request").startswith(message)
    assert refused(asked, "malformed_request") == refused(posted, "malformed_request")


def test_a_filter_that_is_none_is_refused_with_what_one_looks_like(shop: Shop) -> None:
    answer = shop.server.client.get("/v1/recommendations/u1", params={"filter": "north"})

    assert refused(answer, "malformed_request").startswith("filter 'north': expected name=value")


def test_searches_that_were_in_the_way_are_counted(shop: Shop) -> None:
    def counts() -> tuple[float, float]:
        metric = shop.server.metric
        return metric("tandem_searches_widened_total"), metric("tandem_searches_exact_total")

    scores = shop.reference.scores("u1")
    best = sorted(shop.reference.eligible("u1"), key=lambda item_id: -scores[item_id])
    (widened, exact) = counts()

    get(shop, k=50)
    get(shop, k=50, filter="region=north")
    assert counts() == (widened, exact)
    get(shop, k=50, include=best[:20])
    assert counts() == (widened, exact + 1)
    shop.recommend(user_id="u1", k=3, exclude=best[:40])
    assert counts() == (widened + 1, exact + 1)
    shop.recommend(user_id="u1", k=3, exclude=best[2:])
    assert counts() == (widened + 2, exact + 2)
    shop.recommend(user_id="u1", k=3, include=best[:20], diversity=0.5)
    assert counts() == (widened + 2, exact + 3)


def refused(answer: httpx.Response, code: str) -> str:
    assert answer.status_code == 422, answer.text
    error = schemas.Error.model_validate(answer.json(), strict=True).error
    assert error.code == code
    return error.message
