"""A journal that is taken into the bundle while the service runs, and kinds of events over HTTP."""

from pathlib import Path
from typing import Any

from contract.bundle import open_bundle
from contract.journal import open_journal
from contract.store import LocalStore
from offline.compact import Compacted, compact
from tests.conftest import live
from tests.service.reference import TOLERANCE, Reference
from tests.service.server import ADMIN, Server, wait_until
from tests.service.shop import ALL, Shop, ids_of, path
from tests.service.test_swap import Load

ASKED = ["u1", "u2", "u40", "visitor"]


def compacted(server: Server, store: LocalStore, keep: float) -> Compacted:
    """The journal of a running service, taken in; when it serves the new bundle."""
    journal = open_journal(str(server.state / "journal.db"))
    try:
        done = compact(store, journal, "live", keep=keep)
    finally:
        journal.close()
    assert done
    wait_until(
        lambda: server.client.get("/v1/bundle").json()["version"] == done.version, "the swap"
    )
    return done


def answers(server: Server) -> dict[str, dict[str, float]]:
    """The whole ranking of some users, a session, and the neighbours of an item."""
    asked: dict[str, dict[str, Any]] = {user: {"k": ALL, "user_id": user} for user in ASKED}
    asked["session"] = {"k": ALL, "history": ["posted", "i3"]}
    found = {
        name: server.client.post("/v1/recommendations", json=body).json()
        for name, body in asked.items()
    }
    found["similar"] = server.client.get(path("i3", "/similar"), params={"k": ALL}).json()
    return {
        name: {item["item_id"]: item["score"] for item in answer["items"]}
        for name, answer in found.items()
    }


def assert_same(found: dict[str, dict[str, float]], wanted: dict[str, dict[str, float]]) -> None:
    for name, scores in wanted.items():
        assert found[name].keys() == scores.keys(), name
        assert all(abs(found[name][i] - s) <= TOLERANCE for i, s in scores.items()), name


def test_a_running_service_swaps_to_what_it_has_written(store: LocalStore, tmp_path: Path) -> None:
    first = live(store).name
    _forget_other_channels(store)
    with Server(store.root, tmp_path / "state") as server:
        shop = Shop(server, Reference(open_bundle(live(store))))
        features = shop.reference.features
        shop.post("posted", features["i8"])
        shop.post("i3", features["i9"])
        shop.post("i4", features["i4"], available=False)
        shop.delete("i5")
        shop.event("u1", "posted", "buy")
        shop.event("u1", "i7", "listen")
        shop.event("u1", "i8", "show")
        seq = shop.event("visitor", "posted")
        before = answers(server)

        with Load(server) as load:
            done = compacted(server, store, keep=3600.0)
            load.wait_for(20)

        assert {sample.status for sample in load.samples} == {200}
        assert {sample.body["bundle"] for sample in load.samples} == {first, done.version}
        assert (done.seq, done.trimmed) == (seq, 0)
        assert server.metric("tandem_overlay_items") == 0
        assert_same(answers(server), before)
        known = {item_id: shop.known(item_id) for item_id in ("posted", "i3", "i4")}
        assert {k.source for k in known.values()} == {"bundle"}
        assert [k.available for k in known.values()] == [True, True, False]
        assert known["posted"].features == features["i8"]
        assert server.client.get(path("i5")).status_code == 404
        assert server.client.get(path("i5", "/similar")).status_code == 404
        assert server.client.delete(path("i5")).status_code == 404

        shop.reference = Reference(open_bundle(live(store)))
        shop.check_every_path()
        shop.post("i5", features["i5"])
        shop.post("i4", features["i4"])
        shop.delete("posted")
        shop.check_every_path()
        assert {"i4", "i5"} <= set(ids_of(shop.recommend()))

        assert compacted(server, store, keep=0.0).trimmed == seq + 3
        assert server.journal() == []
        after = answers(server)
        server.stop()
        server.restart()
        assert_same(answers(server), after)
        assert server.client.get("/v1/bundle").json()["seq"] == seq + 3


def _forget_other_channels(store: LocalStore) -> None:
    """Their bundles lack the whole journal, and nothing could be trimmed."""
    for name in store.channels().keys() - {"live"}:
        (store.root / "channels" / f"{name}.json").unlink()


def test_a_rollback_reaches_what_the_journal_has_kept(store: LocalStore, tmp_path: Path) -> None:
    first = live(store).name
    with Server(store.root, tmp_path / "state") as server:
        shop = Shop(server, Reference(open_bundle(live(store))))
        shop.post("posted", shop.reference.features["i8"])
        compacted(server, store, keep=3600.0)

        back = server.client.post("/v1/bundle/rollback", headers=ADMIN)

        assert back.json() == {"variant": "live", "version": first, "swapped": True}
        assert shop.known("posted").source == "overlay"
        shop.check_every_path()


def test_a_kind_counts_as_the_recipe_says(store: LocalStore, tmp_path: Path) -> None:
    with Server(store.root, tmp_path / "state") as server:
        shop = Shop(server, Reference(open_bundle(live(store))))
        fresh = shop.reference.eligible("u1")[:4]
        start = shop.check("u1")
        assert shop.event("u1", fresh[0], "hover")
        assert shop.check("u1")["items"] == start["items"]

        shop.event("u1", fresh[1], "show")
        shown = shop.check("u1")
        kept = [item for item in start["items"] if item["item_id"] != fresh[1]]
        assert shown["items"] == kept

        shop.event("u1", fresh[2], "listen")
        listened = shop.check("u1")
        assert set(ids_of(listened)) == set(ids_of(shown))
        assert listened["items"] != shown["items"]

        shop.event("u1", fresh[3], "a kind of one's own")
        assert set(ids_of(shop.check("u1"))) == set(ids_of(shown)) - {fresh[3]}

        for kind, source in (("hover", "fallback"), ("show", "fallback"), ("listen", "session")):
            shop.event("visitor", "i1", kind)
            assert shop.check("visitor")["source"] == source
