"""Posts that the bundle of their day could encode, and the one that is served after a rollback
cannot: what was known of these items before is not what they are now."""

from pathlib import Path

from contract.bundle import open_bundle
from contract.store import LocalStore
from tests.conftest import live
from tests.service.reference import Reference
from tests.service.server import ADMIN, Server
from tests.service.shop import Shop, ids_of, path
from tests.service.test_filters import with_stock
from tests.service.test_swap import swap

NEWER = {"region": "north"}


def test_a_rollback_to_fewer_attributes_returns_no_item_that_it_cannot_encode(
    store: LocalStore, tmp_path: Path
) -> None:
    older = live(store)
    newer = with_stock(store, open_bundle(older))
    with Server(store.root, tmp_path / "state") as server:
        shop = Shop(server, Reference(open_bundle(older)))
        features = shop.reference.features
        swap(server, store, newer)
        gone = ["i3", "i4", "new", "newer"]
        for item_id in gone:
            body = {"item_id": item_id, "features": NEWER, "available": item_id != "i3"}
            assert server.client.post("/v1/items", json=body).status_code == 201

        answer = server.client.post("/v1/bundle/rollback", headers=ADMIN)

        assert answer.json()["version"] == older.name
        assert server.metric("tandem_overlay_refused_items") == 4
        shop.reference.unavailable |= set(gone)
        shop.check_every_path()
        told = server.client.get(path("i3"))
        assert told.status_code == 404
        assert told.json()["error"]["message"] == (
            f"item 'i3': bundle {older.name} cannot encode what was posted of it last; "
            "post it again"
        )
        shop.post("i3", features["i3"], available=False)
        shop.post("new", features["i4"])
        shop.delete("newer")
        assert server.client.delete(path("newer")).status_code == 404
        assert server.metric("tandem_overlay_refused_items") == 1
        shop.check_every_path()
        shop.post("i4", features["i4"])
        assert {"i4", "new"} < set(ids_of(shop.check("nobody")))
        assert server.metric("tandem_overlay_refused_items") == 0
