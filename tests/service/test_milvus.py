"""A service of two workers whose index is on a real Milvus server: published, served, written to,
swapped, rolled back, and with the server gone for a while.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest
from milvus_lite.server_manager import server_manager_instance
from pymilvus import MilvusClient

from contract import channels
from contract.bundle import open_bundle
from contract.errors import BackendError, GateError
from contract.index.milvus import MilvusBackend
from contract.journal import opened_journal
from contract.manifest import Index
from contract.store import LocalStore
from offline import gate
from offline.build import IndexChoice
from offline.compact import compact
from offline.data.dataset import prepare
from offline.data.synthetic import generate
from offline.publish import publish
from offline.recipe import Recipe
from offline.run import Run
from tests.conftest import live, trained_run
from tests.milvus import MilvusServer, milvus_server
from tests.service.bundles import derive
from tests.service.reference import Reference, assert_best
from tests.service.server import ADMIN, Server, wait_until
from tests.service.shop import Shop, ids_of, path

# So many items, and so small a search, that it is searched and not scanned.
ITEMS, K = 2_000, 10
BUILD = MilvusBackend.Build(m=16, ef_construction=60)
SEARCH = MilvusBackend.Search(ef=64)
CHOICE = IndexChoice("milvus", build=asdict(BUILD), search=asdict(SEARCH))
FEATURES = {"title": "Nothing like it", "year": 2031}


@pytest.fixture(scope="module")
def large(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    tables = generate(users=300, items=ITEMS, interactions=12_000, interests=6, seed=3).tables
    features = recipe.features
    dataset = prepare(tables, features.users, features.items, recipe.history_length, seq=0)
    return trained_run(dataset, recipe, tmp_path_factory.mktemp("large") / "run")


@pytest.fixture(scope="module")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    with milvus_server(tmp_path_factory.mktemp("milvus")) as server:
        yield server


@pytest.fixture(scope="module")
def store(large: Run, milvus: MilvusServer, tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    store = LocalStore(tmp_path_factory.mktemp("store"))
    publish(large, store, "live", CHOICE)
    return store


@pytest.fixture(scope="module")
def server(
    store: LocalStore, milvus: MilvusServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with Server(store.root, tmp_path_factory.mktemp("state"), workers=2) as server:
        yield server


@pytest.fixture(scope="module")
def shop(server: Server, store: LocalStore) -> Shop:
    return Shop(server, Reference(open_bundle(live(store))))


@pytest.fixture(scope="module")
def workers(server: Server) -> Iterator[list[httpx.Client]]:
    with server.client_of_each_worker() as found:
        yield list(found.values())


def similar(client: httpx.Client, item_id: str) -> dict[str, Any]:
    answer = client.get(path(item_id, "/similar"), params={"k": K})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def recommend(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/recommendations", json={"k": K, **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def check(shop: Shop, client: httpx.Client) -> None:
    """A known user, a session and a neighbourhood are answered as the reference does."""
    reference, history = shop.reference, ["i0", "i1"]
    known, session = recommend(client, user_id="u1"), recommend(client, history=history)
    assert_best(known, reference.scores("u1"), reference.eligible("u1"), K)
    assert_best(session, reference.scores(None, history), reference.eligible(None, history), K)
    # As many as the first search finds, so that the filter has to go into a second one.
    best = sorted(reference.eligible("u1"), key=reference.scores("u1").__getitem__)[-60:]
    others = recommend(client, user_id="u1", exclude=best)
    assert_best(others, reference.scores("u1"), reference.eligible("u1", exclude=best), K)
    eligible = [item for item in reference.eligible() if item != "i0"]
    assert_best(similar(client, "i0"), reference.similarities("i0"), eligible, K)


def alias(milvus: MilvusServer) -> str:
    name: str = MilvusClient(milvus.uri).describe_alias("tandem_live")["collection_name"]
    return name


def collection_of(store: LocalStore, version: str) -> str:
    return str(json.loads((store.bundle(version) / "index.milvus").read_bytes())["collection"])


@contextmanager
def gone(milvus: MilvusServer) -> Iterator[None]:
    milvus.kill()
    try:
        yield
    finally:
        milvus.start()


def test_every_worker_answers_as_an_exact_search_does(
    shop: Shop, workers: list[httpx.Client]
) -> None:
    for client in workers:
        check(shop, client)


def test_what_one_worker_acknowledged_the_other_finds_in_its_next_request(
    shop: Shop, workers: list[httpx.Client]
) -> None:
    for n, (writer, reader) in enumerate((workers, workers[::-1])):
        one, two = f"one-{n}", f"two-{n}"
        features = FEATURES | {"title": f"Nothing like it {n}"}

        for item_id in (one, two):
            writer.post("/v1/items", json={"item_id": item_id, "features": features})
            shop.reference.post(item_id, features)
        for client in (reader, writer):
            nearest = similar(client, one)["items"][0]
            assert (nearest["item_id"], nearest["source"]) == (two, "overlay")
            check(shop, client)

        assert writer.delete(path(two)).status_code == 200
        shop.reference.delete(two)
        for client in (reader, writer):
            assert two not in ids_of(similar(client, one))
            check(shop, client)


def test_an_item_of_the_bundle_is_replaced_and_removed(
    shop: Shop, workers: list[httpx.Client]
) -> None:
    first, second = workers
    best, next_best = ids_of(recommend(first, user_id="u1"))[:2]

    first.post("/v1/items", json={"item_id": best, "features": FEATURES})
    shop.reference.post(best, FEATURES)
    check(shop, second)
    first.delete(path(next_best))
    shop.reference.delete(next_best)
    check(shop, second)
    assert next_best not in ids_of(recommend(second, user_id="u1"))
    assert best in ids_of(recommend(second, user_id="nobody", k=1000))


def test_another_version_of_an_item_counts_at_once(shop: Shop, workers: list[httpx.Client]) -> None:
    first, second = workers
    for features in (FEATURES, {"title": "Quite another thing", "year": 1931}, FEATURES):
        first.post("/v1/items", json={"item_id": "changing", "features": features})
        shop.reference.post("changing", features)
        check(shop, second)
    hidden = {"item_id": "changing", "features": FEATURES, "available": False}
    second.post("/v1/items", json=hidden)
    shop.reference.post("changing", FEATURES, available=False)
    check(shop, first)


def test_a_service_with_another_journal_does_not_see_what_was_written_to_this_one(
    shop: Shop, store: LocalStore, tmp_path: Path
) -> None:
    with Server(store.root, tmp_path) as other:
        fresh = Shop(other, Reference(open_bundle(live(store))))
        fresh.post("mine", FEATURES)
        check(fresh, other.client)

    check(shop, shop.server.client)


def test_a_lost_server_is_an_error_that_says_so_until_it_is_back(
    shop: Shop, workers: list[httpx.Client], milvus: MilvusServer
) -> None:
    with gone(milvus):
        answer = workers[0].get("/v1/recommendations/u1", params={"k": K})

        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        error = answer.json()["error"]
        assert error["code"] == "backend_failed"
        assert error["message"].startswith(f"Milvus at {milvus.uri}, collection tandem_")
        assert "\n" not in error["message"]
        assert workers[0].get("/healthz").status_code == 200

    for client in workers:
        wait_until(
            lambda client=client: (
                client.get(  # type: ignore[misc]
                    "/v1/recommendations/u1", params={"k": K}
                ).is_success
            ),
            "Milvus to be found again",
        )
        check(shop, client)


def test_what_is_written_while_the_server_is_lost_is_found_when_it_is_back(
    shop: Shop, workers: list[httpx.Client], milvus: MilvusServer
) -> None:
    with gone(milvus):
        shop.post("written-meanwhile", FEATURES)

    for client in workers:
        _wait_for_milvus(client)
        check(shop, client)


def test_a_swap_and_a_rollback_move_the_alias_and_keep_what_was_written(
    shop: Shop, server: Server, store: LocalStore, milvus: MilvusServer
) -> None:
    first = live(store)
    vectors = open_bundle(first).item_vectors
    second = derive(
        store,
        first,
        lambda directory: MilvusBackend.build(vectors, directory / "index.milvus", BUILD),
        index=Index(backend="milvus", build=asdict(BUILD), search=asdict(SEARCH)),
    )
    assert alias(milvus) == collection_of(store, first.name)

    channels.point(store, "live", second)
    assert alias(milvus) == collection_of(store, second)
    _wait_for(server, second)
    with server.client_of_each_worker() as workers:
        for client in workers.values():
            check(shop, client)

    answer = server.client.post("/v1/bundle/rollback", headers=ADMIN)
    assert answer.json() == {"variant": "live", "version": first.name, "swapped": True}
    assert alias(milvus) == collection_of(store, first.name)
    _wait_for(server, first.name)
    with server.client_of_each_worker() as workers:
        for client in workers.values():
            check(shop, client)


def test_a_restarted_service_has_what_was_written_before(shop: Shop, server: Server) -> None:
    server.stop()
    server.restart()

    with server.client_of_each_worker() as workers:
        for client in workers.values():
            check(shop, client)


def test_a_compaction_builds_a_collection_with_what_was_written(
    shop: Shop, server: Server, store: LocalStore, milvus: MilvusServer
) -> None:
    before = alias(milvus)
    with opened_journal(str(server.state / "journal.db")) as journal:
        done = compact(store, journal, "live")
    assert done

    _wait_for(server, done.version)

    assert alias(milvus) == collection_of(store, done.version) != before
    assert server.client.get("/v1/bundle").json()["overlay_items"] == 0
    with server.client_of_each_worker() as workers:
        for client in workers.values():
            check(shop, client)


def test_a_refused_publish_leaves_no_collection(
    run: Run, store: LocalStore, milvus: MilvusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = MilvusClient(milvus.uri).list_collections()
    monkeypatch.setattr(gate, "MIN_RECALL", 1.1)

    with pytest.raises(GateError, match=r"index recall@50 against exact: wanted at least 1\.1"):
        publish(run, store, "refusing", CHOICE)

    assert sorted(MilvusClient(milvus.uri).list_collections()) == sorted(before)


def test_a_file_is_for_one_worker(
    published: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TANDEM_MILVUS_URI", raising=False)
    store = LocalStore(tmp_path / "store")
    vectors = open_bundle(live(published)).item_vectors
    version = derive(
        store,
        live(published),
        lambda directory: MilvusBackend.build(vectors, directory / "index.milvus", BUILD),
        index=Index(backend="milvus", build=asdict(BUILD), search=asdict(SEARCH)),
        seq=0,
    )
    channels.point(store, "live", version)
    database = store.root / "milvus.db"
    server_manager_instance.release_server(str(database))

    two = Server(store.root, tmp_path / "two", workers=2)
    two.start()
    wait_until(lambda: "Error: " in two.log, "the refusal")
    assert (
        f"--workers 2: {database} is open to one process; run 'milvus-lite server --data-dir "
        f"{database} --host 127.0.0.1 --port 19530 --max-workers 1' and set "
        "TANDEM_MILVUS_URI=http://127.0.0.1:19530 for all that use it, or serve with one worker"
    ) in " ".join(two.log.split())
    two.kill()

    with Server(store.root, tmp_path / "one") as one:
        assert one.client.get("/v1/bundle").json()["backend"] == "milvus"
        with pytest.raises(BackendError, match="another process has it open; run 'milvus-lite"):
            channels.point(store, "beta", version)
        assert store.channel("beta") is None


def _wait_for_milvus(client: httpx.Client) -> None:
    wait_until(lambda: client.get(path("i0", "/similar")).is_success, "Milvus to be found again")


def _wait_for(server: Server, version: str) -> None:
    found: set[str] = set()

    def everywhere() -> bool:
        answer = server.fresh("/v1/bundle")
        if answer is not None and answer.json()["version"] == version:
            found.add(answer.headers["x-tandem-worker"])
        return len(found) == 2

    wait_until(everywhere, f"both workers to serve {version}")
