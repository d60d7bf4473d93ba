"""The loop: what came in online, as tables; trained on; and out of the overlay."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from contract.bundle import open_bundle
from contract.changes import Changes, Posted
from contract.errors import DataError, JournalError
from contract.journal import Entry, Journal, open_journal
from contract.kinds import Kinds
from contract.store import LocalStore
from offline.build import IndexChoice
from offline.data import online
from offline.data.dataset import prepare, read_seq
from offline.data.online import export
from offline.data.synthetic import generate
from offline.data.tables import Tables, read_tables, write_tables
from offline.fit import fit
from offline.publish import publish
from offline.recipe import Recipe
from service.live import load
from service.snapshot import load_snapshot
from service.state import State
from tests.conftest import live
from tests.offline.training import changed


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = open_journal(str(tmp_path / "journal.db"))
    yield opened
    opened.close()


def item(item_id: str, available: bool = True, **features: Any) -> Entry:
    return Entry("item", {"item_id": item_id, "features": features, "available": available})


def delete(item_id: str) -> Entry:
    return Entry("delete", {"item_id": item_id})


def event(user_id: str, item_id: str, timestamp: int, kind: str) -> Entry:
    body = {"user_id": user_id, "item_id": item_id, "timestamp": timestamp, "kind": kind}
    return Entry("event", body)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base"
    tables = Tables(
        pl.DataFrame({"user_id": ["a", "b"], "item_id": ["x", "y"], "timestamp": [5, 6]}),
        pl.DataFrame(
            {
                "item_id": ["x", "y", "z"],
                "title": ["X", "Y", "Z"],
                "tags": [["p", "q"], None, ["r"]],
                "genres": ["one|two", "two", None],
                "year": [1999, 2001, None],
                "code": [1, 2, 3],
                "poster": ["x.png", "y.png", "z.png"],
            }
        ),
        pl.DataFrame({"user_id": ["a"], "country": ["Chad"]}),
    )
    write_tables(tables, path)
    return path


FUTURE = 4_000_000_000
WRITTEN = [
    item("new", title="New", tags="s|t", year=2020.5, code="four"),
    item("y", False, genres=["one", "three"]),
    item("gone", title="Gone"),
    delete("gone"),
    delete("z"),
    delete("x"),
    event("a", "new", 10, "buy"),
    event("c", "stranger", 9, "view"),
    event("c", "y", 8, "show"),
]


def by_id(frame: pl.DataFrame | None) -> dict[str, dict[str, Any]]:
    assert frame is not None
    rows = frame.to_dicts()
    return {row.pop("item_id"): {n: v for n, v in row.items() if v is not None} for row in rows}


def test_alone_the_tables_hold_what_came_in_online(journal: Journal, tmp_path: Path) -> None:
    journal.append(WRITTEN)

    changes = export(journal, tmp_path / "out")

    tables = read_tables(tmp_path / "out")
    assert changes.seq == read_seq(tmp_path / "out") == len(WRITTEN)
    assert tables.users is None
    assert tables.interactions.rows() == [
        ("a", "new", 10, "buy"),
        ("c", "stranger", 9, "view"),
        ("c", "y", 8, "show"),
    ]
    assert by_id(tables.items) == {
        "new": {
            "title": "New", "tags": "s|t", "year": 2020.5, "code": "four",
            "available": True, "deleted": False,
        },
        "y": {"genres": ["one", "three"], "available": False, "deleted": False},
    }  # fmt: skip


def test_merged_a_posted_item_replaces_its_row_and_events_are_appended(
    journal: Journal, base: Path, tmp_path: Path
) -> None:
    journal.append(WRITTEN)

    export(journal, tmp_path / "out", base)

    tables = read_tables(tmp_path / "out")
    assert tables.interactions.rows() == [
        ("a", "x", 5, None),
        ("b", "y", 6, None),
        ("a", "new", 10, "buy"),
        ("c", "stranger", 9, "view"),
        ("c", "y", 8, "show"),
    ]
    assert by_id(tables.items) == {
        "x": {
            "title": "X", "tags": ["p", "q"], "genres": ["one", "two"], "year": 1999.0,
            "code": "1", "poster": "x.png", "deleted": True,
        },
        "y": {"genres": ["one", "three"], "available": False, "deleted": False},
        "new": {
            "title": "New", "tags": ["s", "t"], "year": 2020.5, "code": "four",
            "available": True, "deleted": False,
        },
        "stranger": {"deleted": True},
    }  # fmt: skip
    assert tables.users is not None
    assert tables.users.rows() == [("a", "Chad")]


@pytest.mark.parametrize(
    ("there", "posted", "merged"),
    [
        ({"a": 1}, {"a": 2}, ['{"a":1}', '{"a":2}']),
        ([{"a": 1}], "text", ['[{"a":1}]', "text"]),
        ([1.5], 2, [[1.5], [2.0]]),
        ([1.5], [[2], {"a": 3}], [["1.5"], ["[2]", '{"a":3}']]),
        (7, True, [7, 1]),
        (7, [8], [[7], [8]]),
        (7, {"a": 1}, ["7", '{"a":1}']),
        (False, [True], [[False], [True]]),
        (False, "maybe", ["false", "maybe"]),
        (date(2020, 1, 2), "2020-03-04", ["2020-01-02", "2020-03-04"]),
        (date(2020, 1, 2), True, ["2020-01-02", "true"]),
    ],
)
def test_a_column_that_nothing_reads_may_be_posted_as_anything(
    there: Any, posted: Any, merged: list[Any]
) -> None:
    events = pl.DataFrame({"user_id": ["a"], "item_id": ["x"], "timestamp": [5]})
    base = Tables(events, pl.DataFrame({"item_id": ["x", "y"], "column": [there, there]}), None)

    found = online.merged(base, Changes(1, {"y": Posted({"column": posted}, True)}))

    assert found.items is not None
    assert found.items["column"].to_list() == merged


def test_exports_follow_each_other(journal: Journal, base: Path, tmp_path: Path) -> None:
    journal.append(WRITTEN[:5])
    export(journal, tmp_path / "first", base)
    journal.append(WRITTEN[5:])
    export(journal, tmp_path / "second", tmp_path / "first")
    export(journal, tmp_path / "at once", base)

    second, at_once = (read_tables(tmp_path / name) for name in ("second", "at once"))
    assert second.interactions.equals(at_once.interactions)
    assert by_id(second.items) == by_id(at_once.items)
    assert journal.trim(5) == 5
    export(journal, tmp_path / "third", tmp_path / "first")
    with pytest.raises(JournalError, match="trimmed behind seq 0"):
        export(journal, tmp_path / "fourth", base)
    assert not (tmp_path / "fourth").exists()


def test_a_directory_is_complete_or_not_there(journal: Journal, base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no events yet"):
        export(journal, tmp_path / "out")
    journal.append(WRITTEN)
    before = sorted(path.name for path in tmp_path.iterdir())
    (base / "items.parquet").write_bytes(b"damaged")
    with pytest.raises(DataError, match="cannot be read"):
        export(journal, tmp_path / "out", base)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    with pytest.raises(DataError, match="is there already"):
        export(journal, base)


def test_integer_ids_stay_integers_while_they_can(journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    log = pl.DataFrame({"user_id": [1, 2], "item_id": [7, 8], "timestamp": [1, 2], "weight": 0.5})
    log.write_parquet(tmp_path / "base" / "interactions.parquet")
    journal.append([item("9"), event("1", "9", 3, "view"), event("x1", "7", 4, "view")])

    export(journal, tmp_path / "out", tmp_path / "base")

    written = pl.read_parquet(tmp_path / "out" / "interactions.parquet")
    assert written["item_id"].to_list() == [7, 8, 9, 7]
    assert written["user_id"].to_list() == ["1", "2", "1", "x1"]
    assert written["weight"].to_list() == [0.5, 0.5, 1.0, 1.0]


def test_kinds_decide_what_is_trained_on_and_what_is_only_seen() -> None:
    log = {
        "user_id": ["a"] * 5,
        "item_id": ["p", "q", "r", "s", "t"],
        "timestamp": [1, 2, 3, 4, 5],
        "kind": ["show", "listen", None, "hover", "view"],
    }
    kinds = Kinds({"listen": "history", "show": "seen", "hover": "nothing"})

    dataset = prepare(Tables(pl.DataFrame(log), None, None), {}, {}, 5, kinds=kinds)

    assert [dataset.item_ids[row] for row in dataset.sequences.items] == ["q", "r", "t"]
    assert dataset.sequences.offsets.tolist() == [0, 3]
    assert [dataset.item_ids[row] for row in dataset.touched.items] == ["p", "q", "r", "t"]
    assert dataset.touched.flags.tolist() == [2, 1, 3, 3]
    assert dataset.counts().tolist() == [0, 1, 1, 0, 1]


def test_the_states_of_items_are_read(tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp,kind\nu,a,1,view\n")
    (tmp_path / "items.csv").write_text(
        "item_id,available,deleted\na,true,\nb,FALSE,false\nc,,true\nd,false,true\n"
    )

    dataset = prepare(read_tables(tmp_path), {}, {}, 5)

    assert dataset.states.tolist() == [0, 1, 2, 2]
    assert dataset.attributes.columns == []
    (tmp_path / "items.csv").write_text("item_id,available\na,maybe\n")
    with pytest.raises(DataError, match=r"available has 'maybe', expected true or false"):
        read_tables(tmp_path)
    (tmp_path / "items.csv").write_text("item_id,available\na,3\n")
    with pytest.raises(DataError, match="column 'available' is Int64; it says whether an item is"):
        read_tables(tmp_path)


def test_an_item_that_lived_only_online_is_trained_and_leaves_the_overlay(
    published: LocalStore, recipe: Recipe, journal: Journal, tmp_path: Path
) -> None:
    world = generate(users=60, items=40, interactions=900, interests=4, seed=1)
    write_tables(world.tables, tmp_path / "base")
    journal.append([item(f"pad-{n}") for n in range(7)])  # what the bundle of the tests includes
    journal.append([item("hit", title="The Hit", category="space opera", tags=["space"])])
    # The last two of each user are held out to validate and to test on.
    for name in ("hit", "i1", "i2"):
        journal.append([event(f"u{n}", name, FUTURE, "view") for n in range(30)])
    journal.append([item("unseen", title="The Hit"), delete("i5"), item("i6", False)])
    store = LocalStore(tmp_path / "store")
    before = State.of(load_snapshot(live(published)), 1000, 1)
    online = load(before, journal).state.overlay

    export(journal, tmp_path / "data", tmp_path / "base")
    short = changed(recipe, training={"epochs": 1})
    run = fit(short, tmp_path / "data", tmp_path / "run", "cpu", lambda line: None)
    publish(run, store, "live", IndexChoice("exact"))

    bundle = open_bundle(live(store))
    after = load(State.of(load_snapshot(bundle.path), 1000, 1), journal).state
    assert bundle.manifest.seq == journal.last_seq()
    assert (len(online), len(after.overlay), len(after.users)) == (3, 0, 0)
    hit, unseen = (bundle.item_ids.row(item_id) for item_id in ("hit", "unseen"))
    assert bundle.popularity[hit] == 30
    assert np.abs(bundle.item_identity[hit + 1] - bundle.item_identity[0]).max() > 0
    assert (bundle.item_identity[unseen + 1] == bundle.item_identity[0]).all()
    assert json.loads(bundle.attributes[hit])["title"] == "The Hit"
    states = {i: int(bundle.item_states[bundle.item_ids.row(i)]) for i in ("hit", "i5", "i6")}
    assert states == {"hit": 0, "i5": 2, "i6": 1}
    assert after.overlay.dead_count == 2
