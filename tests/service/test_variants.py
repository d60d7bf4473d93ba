"""Several channels served at once: who gets which, and each on its own."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from contract.bundle import ids_arrays, open_bundle
from contract.features import Fields
from contract.ids import Ids
from contract.store import LocalStore
from service.split import parse_split
from tests.conftest import live
from tests.service.bundles import derive
from tests.service.reference import Reference, assert_best
from tests.service.server import ADMIN, Server, wait_until
from tests.service.shop import ALL, ids_of

SPLIT = "exact:2,rolled:1"
USERS = [f"u{n}" for n in range(60)]


@pytest.fixture(scope="module")
def server(shelf: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(shelf.root, tmp_path_factory.mktemp("variants"), channels=SPLIT) as server:
        yield server


@pytest.fixture(scope="module")
def versions(shelf: LocalStore) -> dict[str, str]:
    return {name: pointed(shelf, name) for name in ("exact", "rolled")}


def pointed(store: LocalStore, name: str) -> str:
    channel = store.channel(name)
    assert channel
    return channel.version


def recommend(server: Server, user_id: str | None, variant: str | None = None) -> dict[str, Any]:
    headers = {"X-Tandem-Variant": variant} if variant else {}
    body = {"user_id": user_id, "k": ALL}
    answer = server.client.post("/v1/recommendations", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def message(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["error"]["message"])


def assert_ranked(answer: dict[str, Any], reference: Reference, user_id: str) -> None:
    eligible = reference.eligible(user_id)
    assert_best(answer, reference.scores(user_id), eligible, ALL)


def test_every_user_is_answered_by_their_variant_out_of_its_bundle(
    server: Server, shelf: LocalStore, versions: dict[str, str]
) -> None:
    split = parse_split(SPLIT)
    references = {
        name: Reference(open_bundle(shelf.bundle(version))) for name, version in versions.items()
    }
    before = {name: server.metric("tandem_answers_total", variant=name) for name in versions}

    answers = {user: recommend(server, user) for user in USERS}

    for user, answer in answers.items():
        assert answer["variant"] == split.variant(user)
        assert answer["bundle"] == versions[answer["variant"]]
        assert_ranked(answer, references[answer["variant"]], user)
    served = Counter(answer["variant"] for answer in answers.values())
    assert set(served) == set(versions)
    for name in versions:
        after = server.metric("tandem_answers_total", variant=name)
        assert after - before[name] == served[name]
    assert server.metric("tandem_stand_ins_total") == 0


def test_a_request_without_a_user_gets_the_main_variant(server: Server) -> None:
    assert recommend(server, None)["variant"] == "exact"


@pytest.mark.parametrize("name", ["exact", "rolled"])
def test_a_header_pins_the_variant_on_every_reading_route(
    server: Server, versions: dict[str, str], name: str
) -> None:
    headers = {"X-Tandem-Variant": name}
    body = {"requests": [{"user_id": user} for user in USERS[:9]]}
    batch = server.client.post("/v1/recommendations:batch", json=body, headers=headers).json()

    found = [server.client.get(f"/v1/recommendations/{u}", headers=headers) for u in USERS[:9]]
    found += [server.client.get("/v1/items/i1/similar", headers=headers)]
    answers = [*batch["answers"], *(answer.json() for answer in found)]
    assert {answer["variant"] for answer in answers} == {name}
    assert {answer["bundle"] for answer in answers} == {versions[name]}
    known = server.client.get("/v1/items/i1", headers=headers).json()
    assert known["bundle"] == versions[name]


def test_an_unknown_variant_is_refused_and_the_known_ones_are_named(server: Server) -> None:
    headers = {"X-Tandem-Variant": "nothing"}

    for answer in (
        server.client.get("/v1/recommendations/u1", headers=headers),
        server.client.post("/v1/recommendations:batch", json={"requests": [{}]}, headers=headers),
        server.client.get("/v1/items/i1/similar", headers=headers),
        server.client.get("/v1/bundle", params={"variant": "nothing"}),
        server.client.post("/v1/bundle/reload", params={"variant": "nothing"}, headers=ADMIN),
    ):
        assert message(answer, 422) == "variant 'nothing': not served here; there are exact, rolled"


def test_the_requests_of_a_batch_go_to_the_variants_of_their_users(server: Server) -> None:
    split = parse_split(SPLIT)
    body = {"requests": [{"user_id": user} for user in USERS[:9]]}

    answers = server.client.post("/v1/recommendations:batch", json=body).json()["answers"]

    assert [answer["variant"] for answer in answers] == [split.variant(u) for u in USERS[:9]]


def test_what_is_written_counts_in_every_variant(server: Server) -> None:
    client, features = server.client, {"title": "brand new", "category": "c0"}
    assert client.post("/v1/items", json={"item_id": "w", "features": features}).is_success
    assert client.delete("/v1/items/i7").is_success
    assert client.post("/v1/events", json={"user_id": "writer", "item_id": "i3"}).is_success

    for name in ("exact", "rolled"):
        answer = recommend(server, "writer", name)
        assert answer["source"] == "session"
        assert "w" in ids_of(answer)
        assert not {"i3", "i7"} & set(ids_of(answer))
        assert server.metric("tandem_overlay_items", variant=name) == 1
        assert server.metric("tandem_journal_seq", variant=name) == 3


def test_the_bundle_of_each_variant_is_told(server: Server, versions: dict[str, str]) -> None:
    main = server.client.get("/v1/bundle").json()
    other = server.client.get("/v1/bundle", params={"variant": "rolled"}).json()

    assert (main["channel"], main["version"]) == ("exact", versions["exact"])
    assert (other["channel"], other["version"]) == ("rolled", versions["rolled"])
    shares = {"exact": 2 / 3, "rolled": 1 / 3}
    wanted = [
        {"variant": name, "share": shares[name], "version": versions[name], "refused": None}
        for name in ("exact", "rolled")
    ]
    assert main["variants"] == other["variants"] == wanted


def test_each_variant_swaps_refuses_and_rolls_back_alone(store: LocalStore, tmp_path: Path) -> None:
    first, second = pointed(store, "live"), pointed(store, "rolled")
    store.point("next", second)

    with Server(store.root, tmp_path / "state", channels="live,next:0") as server:

        def served() -> dict[str, str]:
            return {name: recommend(server, "u1", name)["bundle"] for name in ("live", "next")}

        def swaps(name: str, result: str) -> float:
            return server.metric("tandem_swaps_total", variant=name, result=result)

        assert served() == {"live": first, "next": second}

        third = derive(store, live(store))
        store.point("next", third)
        wait_until(lambda: served()["next"] == third, "the swap")
        assert served()["live"] == first

        bad = derive(store, live(store))
        (store.bundle(bad) / "user_tower.onnx").unlink()
        store.point("next", bad)
        wait_until(lambda: swaps("next", "refused") == 1, "the refusal")
        assert served() == {"live": first, "next": third}
        refused = {
            one["variant"]: one["refused"]
            for one in server.client.get("/v1/bundle").json()["variants"]
        }
        assert refused["live"] is None
        assert refused["next"]["version"] == bad
        reload = server.client.post("/v1/bundle/reload", headers=ADMIN)
        assert reload.json() == {"variant": "live", "version": first, "swapped": False}
        again = server.client.post("/v1/bundle/reload", params={"variant": "next"}, headers=ADMIN)
        assert "user_tower.onnx" in message(again, 409)

        back = [
            server.client.post("/v1/bundle/rollback", params={"variant": "next"}, headers=ADMIN)
            for _ in range(2)
        ]
        assert [answer.json()["version"] for answer in back] == [third, second]
        assert served() == {"live": first, "next": second}
        assert (swaps("live", "swapped"), swaps("live", "refused")) == (1, 0)


def test_the_main_variant_stands_in_for_one_that_has_no_bundle(
    store: LocalStore, tmp_path: Path
) -> None:
    main, other = pointed(store, "live"), pointed(store, "rolled")
    split = parse_split("live:1,next:1")
    missed = [user for user in USERS if split.variant(user) == "next"]
    with Server(store.root, tmp_path / "state", channels=str(split)) as server:
        answers = [recommend(server, user) for user in missed]

        assert {(a["variant"], a["bundle"]) for a in answers} == {("live", main)}
        assert server.metric("tandem_stand_ins_total", variant="next") == len(missed)
        assert server.metric("tandem_answers_total", variant="live") == len(missed)
        refused: list[dict[str, Any]] = [{"k": 1001}, {"filters": {"never": 1}}]
        for body in refused:
            bodies = [{"user_id": user, **body} for user in missed]
            single = server.client.post("/v1/recommendations", json=bodies[0])
            batch = server.client.post("/v1/recommendations:batch", json={"requests": bodies})
            assert single.is_client_error
            assert batch.is_client_error
        assert server.metric("tandem_stand_ins_total", variant="next") == len(missed)
        assert server.log.count("variant 'next' has no bundle: 'live' answers its users") == 1
        assert server.metric("tandem_bundle_created_timestamp_seconds", variant="next") == 0
        (_, told) = server.client.get("/v1/bundle").json()["variants"]
        assert told == {"variant": "next", "share": 0.5, "version": None, "refused": None}
        for path, headers in (
            ("/v1/recommendations/u1", {"X-Tandem-Variant": "next"}),
            ("/v1/bundle?variant=next", {}),
        ):
            answer = server.client.get(path, headers=headers)
            assert "publish one to channel 'next'" in message(answer, 503)

        store.point("next", other)

        wait_until(lambda: recommend(server, missed[0])["bundle"] == other, "the first bundle")
        assert {recommend(server, user)["variant"] for user in missed} == {"next"}


def test_the_service_is_ready_when_the_main_variant_is(store: LocalStore, tmp_path: Path) -> None:
    split = parse_split("next:1,live:1")
    served = next(user for user in USERS if split.variant(user) == "live")
    server = Server(store.root, tmp_path / "state", channels=str(split))
    server.start()
    try:
        wait_until(lambda: server.fresh("/healthz"), "the process to answer")
        assert "channel 'next'" in message(server.client.get("/readyz"), 503)
        assert recommend(server, served)["variant"] == "live"

        store.point("next", pointed(store, "rolled"))

        server.wait_ready()
    finally:
        server.stop()


def _with_cost_for_price(fields: Fields) -> Fields:
    renamed = (
        f.model_copy(update={"name": "cost"}) if f.name == "price" else f for f in fields.fields
    )
    return Fields(fields=tuple(renamed))


def test_an_item_must_suit_every_variant_and_is_deleted_from_all(
    store: LocalStore, tmp_path: Path
) -> None:
    manifest = open_bundle(live(store)).manifest
    schema, attributes = manifest.features, manifest.attributes
    other = schema.model_copy(update={"items": _with_cost_for_price(schema.items)})
    kinds = {"cost" if name == "price" else name: k for name, k in attributes.kinds.items()}
    filtered = attributes.model_copy(update={"kinds": kinds})
    ids = open_bundle(live(store)).item_ids
    names = ["only-here", *(ids[row] for row in range(1, len(ids)))]

    def rename(directory: Path) -> None:
        for name, array in ids_arrays("item_ids", Ids.of(names)).items():
            np.save(directory / f"{name}.npy", array)

    store.point("next", derive(store, live(store), rename, features=other, attributes=filtered))
    with Server(store.root, tmp_path / "state", channels="live,next") as server:

        def post(**features: object) -> httpx.Response:
            return server.client.post("/v1/items", json={"item_id": "x", "features": features})

        assert message(post(cost=1), 422).startswith("item 'x': feature 'cost'")
        refused = message(post(price=1), 422)
        assert refused.startswith("item 'x': feature 'price'")
        assert refused.endswith("(variant 'next')")
        assert server.journal() == []
        assert post(title="both know a title").status_code == 201

        assert "only-here" in ids_of(recommend(server, None, "next"))
        assert server.client.get("/v1/items/only-here").status_code == 404
        assert server.client.delete("/v1/items/only-here").status_code == 200
        assert "only-here" not in ids_of(recommend(server, None, "next"))
        assert server.client.delete("/v1/items/only-here").status_code == 404
