"""Columns of the items table that the recipe does not name: the bundle shows them, and they stay
with an item whatever is written of it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.bundle import open_bundle
from contract.journal import open_journal
from contract.store import LocalStore
from offline.build import IndexChoice
from offline.data.dataset import prepare
from offline.data.online import export
from offline.data.synthetic import World
from offline.data.tables import read_tables, write_tables
from offline.publish import publish
from offline.recipe import Recipe
from tests.conftest import live, trained_run
from tests.offline.training import changed
from tests.service.reference import Reference
from tests.service.server import Server
from tests.service.shop import Shop, path
from tests.service.test_compact import compacted
from tests.service.test_patch import code

CHANGED = {"category": "elsewhere"}


@pytest.fixture(scope="module")
def catalogue(world: World, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    """A bundle whose recipe names one column of the items table. Not to be changed."""
    features = recipe.features.model_copy(update={"items": {"category": "category"}})
    small = changed(recipe, training={"epochs": 1}).model_copy(update={"features": features})
    dataset = prepare(world.tables, features.users, features.items, small.history_length)
    store = LocalStore(tmp_path_factory.mktemp("shown"))
    run = trained_run(dataset, small, tmp_path_factory.mktemp("run") / "run")
    publish(run, store, "live", IndexChoice("exact"))
    return store


@pytest.fixture
def store(catalogue: LocalStore, tmp_path: Path) -> LocalStore:
    shutil.copytree(catalogue.root, tmp_path / "store")
    return LocalStore(tmp_path / "store")


@pytest.fixture
def shop(store: LocalStore, tmp_path: Path) -> Iterator[Shop]:
    with Server(store.root, tmp_path / "state") as server:
        yield Shop(server, Reference(open_bundle(live(store))))


def test_an_item_goes_out_of_stock_on_every_path_and_keeps_its_columns(shop: Shop) -> None:
    before = shop.known("i5").features
    assert {"title", "tags", "year", "price"} < before.keys()

    shop.patch("i5", available=False)

    assert (shop.known("i5").available, shop.known("i5").features) == (False, before)
    shop.check_every_path()
    shop.patch("i5", CHANGED, available=True)
    assert shop.known("i5").features == before | CHANGED
    shop.check_every_path()


def test_what_was_shown_can_be_posted(shop: Shop) -> None:
    before = shop.known("i6").features

    shop.post("i6", before | {"title": "Another"}, available=False)

    assert shop.known("i6").features == before | {"title": "Another"}
    shop.check_every_path()
    shop.delete("i6")
    shop.post("i6", before)
    assert shop.known("i6").features == before
    shop.check_every_path()


def test_a_name_that_nothing_shows_is_refused_and_it_alone_is_named(shop: Shop) -> None:
    client = shop.server.client
    patched = client.patch(path("i7"), json={"features": {"colour": "red"}})
    posted = client.post("/v1/items", json={"item_id": "new", "features": {"title": "New"}})

    assert [(a.status_code, code(a)) for a in (patched, posted)] == [(422, "bad_items")] * 2
    names = ("i7", "colour"), ("new", "title")
    assert [answer.json()["error"]["message"] for answer in (patched, posted)] == [
        f"item '{item_id}': feature '{name}': not in the schema; known are category"
        for item_id, name in names
    ]


def test_columns_outlive_a_compaction(shop: Shop, store: LocalStore) -> None:
    before = shop.known("i8").features
    shop.patch("i8", available=False)

    done = compacted(shop.server, store, keep=3600.0)

    known = shop.known("i8")
    assert (done.items, done.refused) == (1, 0)
    assert (known.source, known.available, known.features) == ("bundle", False, before)


def test_columns_outlive_an_export(shop: Shop, world: World, tmp_path: Path) -> None:
    write_tables(world.tables, tmp_path / "tables")
    shop.patch("i8", available=False)

    journal = open_journal(str(shop.server.state / "journal.db"))
    export(journal, tmp_path / "exported", tmp_path / "tables")
    journal.close()

    found, given = read_tables(tmp_path / "exported").items, world.tables.items
    assert found is not None
    assert given is not None
    columns = found.select(given.columns).sort("item_id")
    assert columns.equals(given.sort("item_id"))
    (row,) = found.filter(item_id="i8").to_dicts()
    assert (row["available"], row["deleted"]) == (False, False)
