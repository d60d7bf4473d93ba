"""Several histories of a user over HTTP: each event, and each item of a request, in its own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from contract.bundle import open_bundle
from contract.journal import Record
from contract.store import LocalStore
from offline.build import IndexChoice
from offline.data.dataset import prepare
from offline.data.synthetic import World
from offline.publish import publish
from offline.recipe import parse_recipe
from service.engine import recall
from service.recheck import answer_exactly, ask
from service.request import Recall
from service.snapshot import load_snapshot
from service.state import State
from tests.conftest import RECIPE, live, trained_run
from tests.service.reference import Reference
from tests.service.server import Server
from tests.service.shop import Shop
from tests.service.test_compact import assert_same, compacted

HISTORIES = ("view", "like")


@pytest.fixture
def store(world: World, tmp_path: Path) -> LocalStore:
    log = world.tables.interactions
    kinds = np.random.default_rng(5).choice([*HISTORIES, "share"], len(log))
    tables = replace(world.tables, interactions=log.with_columns(pl.Series("kind", kinds)))
    parameters = {"dim": 16, "history_dim": 12}
    several = {"model": "youtube_dnn", "histories": HISTORIES, "parameters": parameters}
    recipe = parse_recipe(RECIPE | several, "several")
    features = recipe.features
    dataset = prepare(tables, features.users, features.items, 20, histories=recipe.histories)
    store = LocalStore(tmp_path / "store")
    publish(trained_run(dataset, recipe, tmp_path / "run"), store, "live", IndexChoice("exact"))
    return store


def test_an_event_goes_into_the_history_of_its_kind(store: LocalStore, tmp_path: Path) -> None:
    with Server(store.root, tmp_path / "state") as server:
        shop = Shop(server, Reference(open_bundle(live(store))))
        shop.check("u1")
        scores = {kind: scores_after(shop, "i3", kind) for kind in (*HISTORIES, "share")}
        for kind in ("like", "view", "like", "a kind of one's own"):
            shop.event("u1", "i7", kind)
            shop.check("u1")
        shop.post("posted", shop.reference.features["i8"])
        shop.event("u1", "posted", "like")
        before = shop.check("u1")

        assert scores["view"] != scores["like"] != scores["share"] != scores["view"]

        compacted(server, store, keep=0.0)
        after = shop.recommend(user_id="u1")
        assert_same({"u1": scored(after)}, {"u1": scored(before)})


def scores_after(shop: Shop, item_id: str, kind: str) -> dict[str, float]:
    """Of a visitor who has done nothing else."""
    visitor = f"visitor-{kind}"
    shop.event(visitor, item_id, kind)
    return scored(shop.check(visitor))


def scored(answer: dict[str, Any]) -> dict[str, float]:
    return {item["item_id"]: item["score"] for item in answer["items"]}


def test_a_session_may_say_of_what_kind_its_items_are(store: LocalStore, tmp_path: Path) -> None:
    with Server(store.root, tmp_path / "state") as server:
        shop = Shop(server, Reference(open_bundle(live(store))))
        like = {"item_id": "i2", "kind": "like"}
        views = shop.check(history=["i1", "i2"])
        liked = shop.check(history=["i1", like])
        shop.check("u1", history=["i1", {"item_id": "unheard of", "kind": "like"}, like])

        assert scored(views) != scored(liked)
        for same in (["i1", {"item_id": "i2"}], ["i1", {"item_id": "i2", "kind": "share"}]):
            assert scored(shop.check(history=same)) == scored(views)
        refused = server.client.post("/v1/recommendations", json={"history": [{"kind": "like"}]})
        assert refused.status_code == 422
        assert refused.json()["error"]["message"] == "body.history.0.item_id: Field required"


def test_an_answer_is_checked_by_the_histories_it_was_made_from(store: LocalStore) -> None:
    state = State.of(load_snapshot(live(store)), 100, 1)
    events = [
        {"user_id": "u1", "item_id": f"i{n}", "kind": kind}
        for n in range(20, 30)
        for kind in ("like", "view")
    ]
    state.apply([Record(n, 0.0, "event", body) for n, body in enumerate(events, start=1)])
    request = Recall(10, "u1")

    wanted, found, _ = answer_exactly(ask(state, request, recall(state, request)))

    assert found == wanted == 10
