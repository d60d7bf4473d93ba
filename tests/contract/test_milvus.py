"""Milvus in a file: what its index has that no other has, a server beside the bundle."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from pymilvus import MilvusClient

from contract import channels
from contract.arrays import F32, I64
from contract.bundle import open_bundle
from contract.errors import BackendError, BundleError, RecipeError, SettingsError
from contract.index import discard_index, hosted, open_index
from contract.index.base import Appendable
from contract.index.exact import ExactIndex
from contract.index.milvus import MilvusBackend
from contract.manifest import Index as IndexEntry
from contract.manifest import Manifest
from contract.store import LocalStore
from tests.conftest import live
from tests.service.bundles import derive

COUNT, DIM, K = 1_200, 8, 10
BUILD = MilvusBackend.Build(m=8, ef_construction=40)
# Small enough for the collection to be searched, and not its vectors to be scanned.
SEARCH = MilvusBackend.Search(ef=40)
VECTORS = np.random.default_rng(1).normal(size=(COUNT, DIM)).astype(np.float32)
USERS = np.random.default_rng(2).normal(size=(5, DIM)).astype(np.float32)
USERS /= np.linalg.norm(USERS, axis=1, keepdims=True)
NOTHING = np.empty(0, np.int64)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("milvus") / "index.milvus"
    MilvusBackend.build(VECTORS, path, BUILD)
    return path


@pytest.fixture(scope="module")
def index(path: Path) -> Appendable:
    index = MilvusBackend.open(path, VECTORS, BUILD, SEARCH)
    assert isinstance(index, Appendable)
    return index


@pytest.fixture
def store(published: LocalStore, tmp_path: Path) -> LocalStore:
    """Its live channel points at a bundle that Milvus searches, in a file of the store."""
    store = LocalStore(tmp_path / "store")
    channels.point(store, "live", add(store, live(published)))
    return store


def add(store: LocalStore, source: Path) -> str:
    vectors = open_bundle(source).item_vectors
    entry = IndexEntry(backend="milvus", build=asdict(BUILD), search=asdict(SEARCH))
    return derive(
        store,
        source,
        lambda directory: MilvusBackend.build(vectors, directory / "index.milvus", BUILD),
        index=entry,
    )


def client(store: LocalStore) -> MilvusClient:
    return MilvusClient(str(store.root / "milvus.db"))


def collection(path: Path) -> str:
    name: str = json.loads(path.read_bytes())["collection"]
    return name


def collection_of(store: LocalStore, version: str) -> str:
    return collection(store.bundle(version) / "index.milvus")


def alias(store: LocalStore, channel: str) -> str:
    name: str = client(store).describe_alias(f"tandem_{channel}")["collection_name"]
    return name


def numbers(*values: int) -> I64:
    return np.array(values, np.int64)


def nearest(count: int, scale: float) -> F32:
    """Vectors of this length that come first for the first `count` users."""
    found: F32 = scale * USERS[:count]
    return found


def test_the_file_says_where_the_collection_is_and_what_is_in_it(path: Path) -> None:
    place = json.loads(path.read_bytes())

    assert place.keys() == {"uri", "collection", "rows", "dim"}
    assert (place["uri"], place["rows"], place["dim"]) == ("", COUNT, DIM)
    assert MilvusClient(str(path.parent / "milvus.db")).has_collection(place["collection"])


@pytest.mark.parametrize("place", ["[]", "{}", '{"uri": "", "collection": 3, "rows": 1, "dim": 2}'])
def test_a_file_of_something_else_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "index.milvus").write_text(place)

    with pytest.raises(BundleError, match="not a readable reference to a Milvus collection"):
        MilvusBackend.open(tmp_path / "index.milvus", VECTORS, BUILD, SEARCH)


def test_what_was_appended_is_found_by_the_next_search_with_the_rows_of_the_bundle(
    index: Appendable,
) -> None:
    appended = index.append(journal=1)
    vectors = nearest(2, 10)

    appended.upsert(numbers(COUNT, COUNT + 1), numbers(4, 5), vectors)
    rows, scores = appended.search(USERS, K, None, vectors)

    wanted, products = ExactIndex(np.concatenate([VECTORS, vectors])).search(USERS, K)
    np.testing.assert_array_equal(rows, wanted)
    np.testing.assert_allclose(scores, products, rtol=1e-5)
    assert rows[:2, 0].tolist() == [COUNT, COUNT + 1]
    assert index.search(USERS, K)[0].max() < COUNT


def test_an_older_version_that_comes_late_does_not_come_back(index: Appendable) -> None:
    ahead, behind = index.append(journal=2), index.append(journal=2)
    old, new = nearest(1, 10), nearest(1, 20)

    ahead.upsert(numbers(COUNT), numbers(1), old)
    ahead.upsert(numbers(COUNT), numbers(9), new)
    behind.upsert(numbers(COUNT), numbers(1), old)

    rows, scores = ahead.search(USERS[:1], K, None, new)
    assert (rows == COUNT).sum() == 1
    assert rows[0, 0] == COUNT
    assert scores[0, 0] == pytest.approx(20, rel=1e-5)
    assert (rows >= 0).all()


def test_what_another_process_has_already_written_is_not_returned_before_its_time(
    index: Appendable,
) -> None:
    ahead, behind = index.append(journal=3), index.append(journal=3)
    ahead.upsert(numbers(COUNT, COUNT + 1), numbers(1, 2), nearest(2, 10))

    behind.upsert(numbers(COUNT), numbers(1), nearest(1, 10))
    rows, _ = behind.search(USERS[:2], K, None, nearest(1, 10))

    assert rows[0, 0] == COUNT
    assert rows.max() == COUNT


def test_journals_do_not_see_each_others_rows(index: Appendable) -> None:
    mine, other = index.append(journal=4), index.append(journal=2**31 - 1)
    mine.upsert(numbers(COUNT), numbers(1), nearest(1, 10))
    other.upsert(numbers(COUNT), numbers(1), nearest(2, 30)[1:])

    rows, scores = mine.search(USERS[:2], K, None, nearest(1, 10))

    assert rows[0, 0] == COUNT
    assert scores[1, 0] < 30


def test_what_was_deleted_is_gone_for_all(index: Appendable) -> None:
    mine, late = index.append(journal=5), index.append(journal=5)
    mine.upsert(numbers(COUNT, COUNT + 1), numbers(1, 2), nearest(2, 10))

    mine.delete(numbers(COUNT), NOTHING)
    late.delete(NOTHING, numbers(2))

    rows, _ = mine.search(USERS[:2], K, None, nearest(2, 10))
    assert (rows >= 0).all()
    assert rows.max() < COUNT


@pytest.mark.parametrize("share", [0.95, 0.7, 0.01])
def test_a_filter_over_appended_rows_costs_no_answers(index: Appendable, share: float) -> None:
    appended = index.append(journal=6)
    vectors = np.concatenate([nearest(5, 10), nearest(5, 20)])
    appended.upsert(np.arange(COUNT, COUNT + 10), np.arange(1, 11), vectors)
    allowed = np.random.default_rng(3).random(COUNT + 10) < share
    allowed[-10:-5], allowed[-5:] = True, False

    rows, _ = appended.search(USERS, K, allowed, vectors)

    wanted, _ = ExactIndex(np.concatenate([VECTORS, vectors])).search(USERS, K, allowed)
    np.testing.assert_array_equal(rows[:, 0], np.arange(COUNT, COUNT + 5))
    assert np.mean([np.isin(w, r).mean() for w, r in zip(wanted, rows, strict=True)]) >= 0.95


def test_a_collection_that_is_gone_is_named_and_can_be_built_again(
    index: Appendable, tmp_path: Path
) -> None:
    path = tmp_path / "index.milvus"
    MilvusBackend.build(VECTORS, path, BUILD)
    opened = MilvusBackend.open(path, VECTORS, BUILD, SEARCH)
    before, _ = opened.search(USERS, K)
    MilvusBackend.drop(path)

    with pytest.raises(BundleError, match=f"has no collection {collection(path)}, expected 1200"):
        MilvusBackend.open(path, VECTORS, BUILD, SEARCH)
    with pytest.raises(BackendError, match=f"collection {collection(path)}: .*not exist"):
        opened.search(USERS, K)
    assert not MilvusBackend.exists(path)

    MilvusBackend.restore(path, VECTORS, BUILD)
    np.testing.assert_array_equal(opened.search(USERS, K)[0], before)
    assert MilvusBackend.exists(path)


def test_a_collection_of_other_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.milvus"
    MilvusBackend.build(VECTORS[:20], path, BUILD)
    MilvusClient(str(tmp_path / "milvus.db")).delete(collection(path), ids=[3])

    with pytest.raises(BundleError, match=r"has 19 rows of 8 dimensions .*, expected 20 of 8;"):
        MilvusBackend.open(path, VECTORS[:20], BUILD, SEARCH)


def test_a_build_that_fails_leaves_no_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MilvusClient, "create_index", full)
    with pytest.raises(KeyboardInterrupt):
        MilvusBackend.build(VECTORS[:20], tmp_path / "index.milvus", BUILD)

    assert MilvusClient(str(tmp_path / "milvus.db")).list_collections() == []
    assert not (tmp_path / "index.milvus").exists()


def test_a_bundle_that_is_not_published_leaves_no_collection(
    published: LocalStore, tmp_path: Path
) -> None:
    store = LocalStore(tmp_path / "store")

    def fill(directory: Path, version: str) -> Manifest:
        MilvusBackend.build(VECTORS[:20], directory / "index.milvus", BUILD)
        assert len(client(store).list_collections()) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.add(fill)

    assert client(store).list_collections() == []


def test_a_channel_leads_to_the_collection_of_its_bundle_also_after_a_rollback(
    store: LocalStore,
) -> None:
    first = live(store)
    second = add(store, first)
    assert alias(store, "live") == collection_of(store, first.name)

    channels.point(store, "live", second)
    assert alias(store, "live") == collection_of(store, second)

    channels.rollback(store, "live")
    assert alias(store, "live") == collection_of(store, first.name)


def test_a_collection_is_removed_when_it_was_left_for_the_grace_period(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = live(store)
    second, third, fourth = (add(store, first) for _ in range(3))
    channels.point(store, "beta", fourth)
    channels.point(store, "live", second)
    names = {v: collection_of(store, v) for v in (first.name, second, third, fourth)}

    monkeypatch.setenv("TANDEM_MILVUS_GRACE", "0")
    channels.point(store, "live", third)

    left = set(client(store).list_collections())
    assert left == {names[third], names[fourth]}


def test_a_rollback_builds_a_collection_again_that_was_removed(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = live(store)
    bundle = open_bundle(first)
    monkeypatch.setenv("TANDEM_MILVUS_GRACE", "0")
    channels.point(store, "live", add(store, first))
    assert not MilvusBackend.exists(first / "index.milvus")

    channels.rollback(store, "live")

    index = open_index(bundle.manifest.index, first, bundle.item_vectors)
    users = bundle.item_vectors[:3]
    np.testing.assert_array_equal(
        index.search(users, K)[0], ExactIndex(bundle.item_vectors).search(users, K)[0]
    )
    assert alias(store, "live") == collection_of(store, first.name)


def test_a_collection_that_is_pointed_at_again_has_its_grace_period_before_it(
    store: LocalStore,
) -> None:
    first = live(store)
    second = add(store, first)
    name = collection_of(store, first.name)

    def since() -> str | None:
        properties: dict[str, str] = client(store).describe_collection(name)["properties"]
        return properties.get("tandem.left")

    channels.point(store, "live", second)
    assert float(since() or 0) > 0
    channels.rollback(store, "live")
    assert not since()


def test_a_channel_does_not_move_to_an_index_that_cannot_be_reached(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = live(store)
    second = add(store, first)

    monkeypatch.setenv("TANDEM_MILVUS_URI", "http://127.0.0.1:9")
    with pytest.raises(BackendError, match=r"Milvus at http://127\.0\.0\.1:9: "):
        channels.point(store, "live", second)

    assert live(store) == first


def test_bundles_that_hold_their_index_need_no_server(published: LocalStore) -> None:
    assert hosted(live(published)) is None
    discard_index(live(published))


@pytest.mark.parametrize("uri", ["http://root:secret@host:19530", "https://key@host"])
def test_a_password_stays_out_of_bundles_and_messages(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match="holds a password; give it as TANDEM_MILVUS_TOKEN"):
        MilvusBackend.Build(uri=uri)
    monkeypatch.setenv("TANDEM_MILVUS_URI", uri)
    with pytest.raises(RecipeError) as caught:
        MilvusBackend.build(VECTORS[:20], tmp_path / "index.milvus", BUILD)
    assert "secret" not in str(caught.value)


def test_a_grace_period_that_is_no_number_is_named(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_MILVUS_GRACE", "an hour")

    with pytest.raises(SettingsError, match="TANDEM_MILVUS_GRACE is 'an hour', expected seconds"):
        MilvusBackend.retire([], [])


def test_a_file_is_open_to_one_process_and_the_other_is_told_what_to_do(path: Path) -> None:
    database = path.parent / "milvus.db"
    code = (
        "from pathlib import Path\n"
        "from contract.index.milvus import MilvusBackend\n"
        f"MilvusBackend.exists(Path({str(path)!r}))\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    last = done.stderr.strip().splitlines()[-1]
    assert last == (
        f"contract.errors.BackendError: Milvus at {database}: another process has it open; run "
        f"'milvus-lite server --data-dir {database} --host 127.0.0.1 --port 19530 --max-workers 1' "
        "and set TANDEM_MILVUS_URI=http://127.0.0.1:19530 for all that use it"
    )
    assert MilvusBackend.exclusive(path) is not None
