import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from contract.arrays import F32
from contract.bundle import Bundle, open_bundle
from contract.errors import BundleError, GateError, RecipeError
from contract.index import BACKENDS, load_backend, params_from
from contract.index.base import Index
from contract.index.exact import ExactBackend, ExactIndex
from contract.manifest import FORMAT, read_manifest
from contract.manifest import Index as IndexEntry
from contract.store import Channel, LocalStore
from offline.build import GOLDEN_K, GOLDEN_USERS, IndexChoice
from offline.data.dataset import prepare
from offline.data.synthetic import World
from offline.data.tables import Tables
from offline.models import create_model
from offline.publish import publish
from offline.recipe import parse_recipe
from offline.run import Description, Run, load_run, save_run
from offline.towers import ITEM_INPUTS, USER_INPUTS, Towers, run_tower
from tests.conftest import live


class BackwardsBackend(ExactBackend):
    """Searches the vectors in reverse order, so that its rows are those of other items."""

    @staticmethod
    def open(
        path: Path, vectors: F32, build: ExactBackend.Build, search: ExactBackend.Search
    ) -> Index:
        return ExactIndex(vectors[::-1])


@pytest.fixture
def backwards(monkeypatch: pytest.MonkeyPatch) -> IndexChoice:
    backends: dict[str, str] = BACKENDS  # type: ignore[assignment]
    monkeypatch.setitem(backends, "backwards", f"{__name__}:BackwardsBackend")
    return IndexChoice("backwards")


@pytest.fixture
def of_nan(run: Run) -> Run:
    model = copy.deepcopy(run.model)
    with torch.no_grad():
        model.item_identity.weight[5] = math.nan
    return Run(run.path, run.description, run.dataset, model)


def user_vectors(bundle: Bundle, user: int) -> F32:
    """The vectors (K, D) of a known user, out of nothing but the bundle."""
    length = bundle.manifest.features.history_length
    recent, numbers = (one[-length:] for one in bundle.history(user))
    history = np.zeros((1, length, bundle.manifest.dims.history), np.float32)
    mask, kinds = np.zeros((1, length), np.float32), np.zeros((1, length), np.int32)
    history[0, length - len(recent) :] = bundle.history_vectors[recent]
    mask[0, length - len(recent) :] = 1.0
    kinds[0, length - len(recent) :] = numbers
    profile = (array[user : user + 1] for array in bundle.users)
    identity = bundle.user_identity[user + 1 : user + 2]
    values = (identity, *profile, history, mask, kinds)
    inputs: dict[str, npt.NDArray[Any]] = dict(zip(USER_INPUTS, values, strict=True))
    vectors: F32 = run_tower(Towers.open(bundle.path).user, inputs)[0][0]
    return vectors


def open_index(bundle: Bundle) -> Index:
    entry = bundle.manifest.index
    backend = load_backend(entry.backend)
    build, search = (
        params_from(backend.Build, entry.build),
        params_from(backend.Search, entry.search),
    )
    return backend.open(bundle.path / (backend.filename or ""), bundle.item_vectors, build, search)


def test_the_bundle_holds_what_the_dataset_held(bundle: Bundle, run: Run, world: World) -> None:
    dataset = run.dataset
    offsets, items, *_ = dataset.sequences

    assert bundle.item_ids.of_rows(range(210)) == dataset.item_ids
    assert bundle.user_ids.of_rows(range(300)) == dataset.user_ids
    assert bundle.item_ids.row("i207") == 207
    for name in ("items", "users"):
        for found, wanted in zip(getattr(bundle, name), getattr(dataset, name), strict=True):
            np.testing.assert_array_equal(found, wanted)
    for user in (0, 17, 299):
        wanted = items[offsets[user] : offsets[user + 1]]
        np.testing.assert_array_equal(bundle.history(user)[0], wanted)
    counts = world.tables.interactions["item_id"].value_counts()
    assert {
        bundle.item_ids[row]: int(count) for row, count in enumerate(bundle.popularity) if count
    } == dict(counts.iter_rows())
    assert world.tables.items is not None
    wanted_attributes = world.tables.items.row(3, named=True)
    assert {"item_id": "i3", **json.loads(bundle.attributes[3])} == wanted_attributes


def test_the_manifest_says_what_the_bundle_is(bundle: Bundle, run: Run) -> None:
    manifest = bundle.manifest

    assert (manifest.format, manifest.model) == (FORMAT, "dssm")
    assert manifest.recipe == run.description.recipe.model_dump(mode="json")
    assert manifest.features == run.dataset.schema
    assert manifest.metrics == run.description.metrics
    assert manifest.index == IndexEntry(backend="exact")
    assert (manifest.seq, manifest.parent, manifest.forced) == (7, None, False)
    assert manifest.dims.model_dump() == {
        "items": 210,
        "users": 300,
        "dim": 16,
        "interests": 1,
        "history": 12,
        "item_identity": 16,
        "user_identity": 8,
    }
    assert len(manifest.gate) == 13
    assert all(check.passed for check in manifest.gate)


def test_the_item_tower_of_the_bundle_gives_the_vectors_of_the_bundle(bundle: Bundle) -> None:
    values = (bundle.item_identity[1:], bundle.items.codes, bundle.items.numbers)

    vectors, history = run_tower(
        Towers.open(bundle.path).item, dict(zip(ITEM_INPUTS, values, strict=True))
    )

    np.testing.assert_allclose(vectors, bundle.item_vectors, atol=1e-5)
    np.testing.assert_allclose(history, bundle.history_vectors, atol=1e-5)


def test_an_item_without_interactions_has_the_unknown_identity(bundle: Bundle) -> None:
    unknown = bundle.item_identity[0]

    np.testing.assert_array_equal(bundle.item_identity[-10:], np.tile(unknown, (10, 1)))
    assert not (bundle.item_identity[1] == unknown).any()


def test_golden_requests_are_answered_again_from_the_bundle_alone(bundle: Bundle) -> None:
    index = open_index(bundle)

    assert len({request.user_id for request in bundle.golden}) == GOLDEN_USERS
    for request in bundle.golden:
        user = bundle.user_ids.row(request.user_id)
        rows, scores = index.search(user_vectors(bundle, user), GOLDEN_K)
        assert rows.tolist() == [list(found) for found in request.rows]
        np.testing.assert_allclose(scores, np.array(request.scores, np.float32), atol=1e-5)


def test_weights_that_are_not_numbers_are_refused_and_the_store_stays(
    of_nan: Run, store: LocalStore
) -> None:
    before = (store.versions(), store.channels())

    with pytest.raises(
        GateError, match="item vectors finite: wanted 0 rows with NaN, found 1 rows"
    ):
        publish(of_nan, store, "live", IndexChoice("exact"))

    assert (store.versions(), store.channels()) == before
    assert [p.name for p in (store.root / "bundles").iterdir()] == before[0]


def test_an_index_that_finds_the_wrong_items_is_refused(
    run: Run, store: LocalStore, backwards: IndexChoice
) -> None:
    before = (store.versions(), store.channels())

    with pytest.raises(
        GateError, match=r"index recall@50 against exact: wanted at least 0\.95, fo"
    ):
        publish(run, store, "live", backwards)

    assert (store.versions(), store.channels()) == before


def test_force_publishes_what_the_gate_refuses_and_says_so(
    run: Run, store: LocalStore, backwards: IndexChoice
) -> None:
    parent = live(store).name

    manifest = publish(run, store, "live", backwards, force=True)

    failed = {check.check for check in manifest.gate if not check.passed}
    assert "index recall@50 against exact" in failed
    assert manifest.forced
    assert manifest.parent == parent
    assert store.channel("live") == Channel(version=manifest.version, previous=(parent,))
    assert read_manifest(live(store)) == manifest
    open_bundle(live(store))


def test_what_no_service_would_open_is_not_published_by_force(
    of_nan: Run, store: LocalStore
) -> None:
    before = (store.versions(), store.channels())

    with pytest.raises(GateError, match=r"forced or not: .*vectors\.npy: holds NaN") as caught:
        publish(of_nan, store, "live", IndexChoice("exact"), force=True)

    failed = {check.check for check in caught.value.checks if not check.passed}
    assert failed >= {"item vectors finite", "history vectors finite"}
    assert (store.versions(), store.channels()) == before


def test_a_choice_of_index_that_makes_no_sense_is_refused(run: Run, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)

    with pytest.raises(BundleError, match="backend 'fast' is unknown; known: exact, "):
        publish(run, store, "live", IndexChoice("fast"))
    with pytest.raises(RecipeError, match="backend exact has no search parameter 'effort'"):
        publish(run, store, "live", IndexChoice("exact", search={"effort": 3}))
    assert store.versions() == []


def test_interactions_are_enough_for_a_bundle(world: World, tmp_path: Path) -> None:
    """No table of items or users, no features, no identity of users: every such array is empty."""
    recipe = parse_recipe(
        {"model": "dssm", "history_length": 4, "parameters": {"user_identity_dim": 0, "dim": 8}},
        "bare",
    )
    dataset = prepare(Tables(world.tables.interactions, None, None), {}, {}, 4)
    model = create_model("dssm", dataset.schema, 300, 200, recipe.parameters)
    description = Description(
        recipe=recipe,
        features=dataset.schema,
        seq=0,
        epochs=(),
        samples_per_second=1.0,
        metrics={},
    )
    save_run(tmp_path / "run", description, dataset, model)
    store = LocalStore(tmp_path / "store")

    choice = IndexChoice("faiss_hnsw", build={"m": 8}, search={"ef_search": 64})
    manifest = publish(load_run(tmp_path / "run"), store, "live", choice)

    bundle = open_bundle(live(store))
    assert manifest.index.build == {"m": 8, "ef_construction": 200, "storage": "float"}
    assert manifest.index.search == {"ef_search": 64, "refine": 2}
    assert "index.faiss" in manifest.files
    assert bundle.items.codes.shape == (200, 0)
    assert bundle.user_identity.shape == (301, 0)
    assert [bundle.attributes[row] for row in (0, 199)] == ["{}", "{}"]
    request = bundle.golden[3]
    rows, _ = open_index(bundle).search(
        user_vectors(bundle, bundle.user_ids.row(request.user_id)), GOLDEN_K
    )
    assert rows.tolist() == [list(found) for found in request.rows]
