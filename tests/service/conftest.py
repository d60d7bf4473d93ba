"""Bundles for a service whose journal is empty, and services that run for the whole session."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, values

from contract.bundle import Bundle, open_bundle
from contract.journal import Record
from contract.kinds import Kinds
from contract.store import LocalStore
from service.metrics import DIRECTORY, Metrics, prepare_directory
from service.snapshot import Snapshot, load_snapshot
from service.state import State
from tests.conftest import live
from tests.service.bundles import derive, rolled, with_backend
from tests.service.reference import Reference
from tests.service.server import Server

BACKENDS = ("exact", "faiss_hnsw", "annoy")
KINDS = Kinds({"listen": "history", "show": "seen", "hover": "nothing", "buy": "both"})


@pytest.fixture(scope="session")
def shelf(published: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    """A channel for each backend, all of the same vectors, and channel `rolled` with others. Not to
    be changed."""
    store = LocalStore(tmp_path_factory.mktemp("shelf"))
    exact = store.bundle(derive(store, live(published), seq=0, events=KINDS))
    store.point("exact", exact.name)
    store.point("live", exact.name)
    for name in BACKENDS[1:]:
        store.point(name, with_backend(store, exact, name))
    store.point("rolled", rolled(store, exact))
    return store


@pytest.fixture
def store(shelf: LocalStore, tmp_path: Path) -> LocalStore:
    """A copy of the shelf, for a test to change."""
    shutil.copytree(shelf.root, tmp_path / "store")
    return LocalStore(tmp_path / "store")


@pytest.fixture(scope="session")
def bundle(shelf: LocalStore) -> Bundle:
    """The bundle behind channel `exact`."""
    return open_bundle(live(shelf))


@pytest.fixture
def reference(bundle: Bundle) -> Reference:
    return Reference(bundle)


@pytest.fixture(scope="session")
def snapshot(bundle: Bundle) -> Snapshot:
    return load_snapshot(bundle.path)


@pytest.fixture
def state(snapshot: Snapshot, reference: Reference) -> State:
    """The bundle's state with items posted, replaced and deleted since."""
    state = State.of(snapshot, 100, 1)
    posts = {f"new-{n}": reference.features[f"i{n}"] for n in range(31)}
    posts |= {f"i{n}": reference.features[f"i{n + 1}"] for n in range(40, 60)}
    records = [
        Record(seq, 0.0, "item", {"item_id": item_id, "features": features})
        for seq, (item_id, features) in enumerate(posts.items(), 1)
    ]
    gone = (*(f"i{n}" for n in range(70, 80)), "new-30")
    records += [Record(100 + n, 0.0, "delete", {"item_id": i}) for n, i in enumerate(gone)]
    state.apply(records)
    return state


@pytest.fixture
def metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Metrics:
    # Both are process-wide, and only a service of its own may keep them.
    monkeypatch.setenv(DIRECTORY, "")
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    prepare_directory(tmp_path)
    return Metrics(CollectorRegistry(), 0, tmp_path)


@pytest.fixture(scope="session", params=BACKENDS)
def reading(
    request: pytest.FixtureRequest, shelf: LocalStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A service of each backend, of which the tests only read."""
    state = tmp_path_factory.mktemp("reading")
    with Server(shelf.root, state, channels=request.param) as server:
        yield server


@pytest.fixture(scope="module")
def server(shelf: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that the tests of one file share: each writes ids of its own."""
    with Server(shelf.root, tmp_path_factory.mktemp("server"), channels="exact") as server:
        yield server
