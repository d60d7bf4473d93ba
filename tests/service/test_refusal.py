"""A bad bundle is refused, the reason is told everywhere, and the old one keeps serving."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from contract.bundle import GOLDEN, ITEM_TOWER, USER_TOWER
from contract.manifest import NAME
from contract.store import LocalStore
from service import schemas
from tests.conftest import live
from tests.service.bundles import derive, unchanged
from tests.service.server import Server, wait_until

Spoil = Callable[[Path], None]
VECTORS = "item_vectors.npy"


@pytest.fixture(scope="module")
def own_store(shelf: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    store = LocalStore(tmp_path_factory.mktemp("refusal"))
    store.point("live", derive(store, live(shelf)))
    return store


@pytest.fixture(scope="module")
def server(own_store: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(own_store.root, tmp_path_factory.mktemp("state")) as server:
        yield server


def truncated(path: Path) -> None:
    with _writable(path / VECTORS).open("r+b") as file:
        file.truncate(1000)


def flipped(path: Path) -> None:
    data = bytearray((path / VECTORS).read_bytes())
    data[-100] ^= 1
    _writable(path / VECTORS).write_bytes(data)


def missing(path: Path) -> None:
    (path / VECTORS).unlink()


def newer(path: Path) -> None:
    manifest = json.loads((path / NAME).read_text())
    (path / NAME).write_text(json.dumps(manifest | {"format": 2, "shards": 3}))


def _writable(path: Path) -> Path:
    path.chmod(0o644)
    return path


def of_another_dim(path: Path) -> None:
    np.save(path / VECTORS, np.load(path / VECTORS)[:, ::2].copy())


def with_wrong_golden_items(path: Path) -> None:
    golden = json.loads((path / GOLDEN).read_text())
    golden[0]["rows"] = [rows[::-1][:10] + [0] * 10 for rows in golden[0]["rows"]]
    (path / GOLDEN).write_text(json.dumps(golden))


def with_wrong_golden_scores(path: Path) -> None:
    golden = json.loads((path / GOLDEN).read_text())
    golden[-1]["scores"][0][0] += 0.01
    (path / GOLDEN).write_text(json.dumps(golden))


def with_golden_that_is_not_json(path: Path) -> None:
    (path / GOLDEN).write_text("[")


def with_a_tower_that_is_not_onnx(path: Path) -> None:
    (path / USER_TOWER).write_bytes(b"not a tower")


def with_a_tower_of_other_inputs(path: Path) -> None:
    (path / ITEM_TOWER).write_bytes((path / USER_TOWER).read_bytes())


def with_wrong_item_vectors(path: Path) -> None:
    """Wrong where no golden request looks."""
    vectors = np.load(path / VECTORS)
    vectors[0] *= 0.9
    np.save(path / VECTORS, vectors)


def with_wrong_history_vectors(path: Path) -> None:
    vectors = np.load(path / "history_vectors.npy")
    vectors[0] += 0.01
    np.save(path / "history_vectors.npy", vectors)


DAMAGED: list[tuple[Spoil, str]] = [
    (truncated, "item_vectors.npy: 1,000 bytes, the manifest says"),
    (flipped, "item_vectors.npy: sha256"),
    (missing, "item_vectors.npy: missing"),
    (newer, "bundle format 2, this release reads format 1; upgrade the service"),
]
SEALED: list[tuple[Spoil, str]] = [
    (of_another_dim, "float32 (210, 8), the manifest says float32 (210, 16)"),
    (with_wrong_golden_items, "golden request of user 'u0': 0.5"),
    (with_wrong_golden_scores, "best score off by 1.0e-02"),
    (with_golden_that_is_not_json, "golden.json: document: Invalid JSON"),
    (with_a_tower_that_is_not_onnx, "user_tower.onnx: not an ONNX model"),
    (with_a_tower_of_other_inputs, "item_tower.onnx: has the input 'history', known are identity"),
    (with_wrong_item_vectors, "the item tower is off by"),
    (with_wrong_history_vectors, "the item tower is off by"),
]


@pytest.mark.parametrize(("spoil", "reason"), DAMAGED)
def test_a_damaged_bundle_is_refused(
    server: Server, own_store: LocalStore, spoil: Spoil, reason: str
) -> None:
    version = derive(own_store, live(own_store))
    spoil(own_store.bundle(version))

    assert_refused(server, own_store, version, reason)


@pytest.mark.parametrize(("spoil", "reason"), SEALED)
def test_a_bundle_that_was_published_wrong_is_refused(
    server: Server, own_store: LocalStore, spoil: Spoil, reason: str
) -> None:
    assert_refused(server, own_store, derive(own_store, live(own_store), spoil), reason)


def test_a_good_bundle_is_taken_after_all_the_bad_ones(
    server: Server, own_store: LocalStore
) -> None:
    version = derive(own_store, live(own_store), unchanged)

    own_store.point("live", version)

    wait_until(lambda: known(server).version == version, "the good bundle")


def known(server: Server) -> schemas.BundleKnown:
    answer = server.client.get("/v1/bundle")
    return schemas.BundleKnown.model_validate(answer.json(), strict=True)


def assert_refused(server: Server, store: LocalStore, version: str, reason: str) -> None:
    good = live(store).name
    refusals = server.metric("tandem_swaps_total", result="refused")

    store.point("live", version)
    try:
        wait_until(lambda: known(server).refused, "a refusal")
        found = known(server)
    finally:
        store.point("live", good)
        wait_until(lambda: known(server).refused is None, "the refusal to be forgotten")

    assert found.refused
    assert found.refused.version == version
    assert reason in found.refused.reason
    assert "\n" not in found.refused.reason
    assert found.version == good
    assert server.client.get("/v1/recommendations/u1").json()["bundle"] == good
    assert server.metric("tandem_swaps_total", result="refused") == refusals + 1
    assert server.metric("tandem_bundle_info", version=version) == 0
    line = next(line for line in server.log.splitlines() if f"bundle {version} refused" in line)
    assert f"{good} keeps serving" in line
    assert reason in line
