"""A bundle and its journal, made one: a service answers afterwards as it did before."""

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.bundle import ItemState, open_bundle
from contract.errors import GateError, JournalError, StoreError
from contract.journal import Entry, Journal, open_journal
from contract.kinds import Kinds
from contract.store import LocalStore
from offline import gate
from offline.compact import compact, removable
from service.engine import recall, similar
from service.live import load
from service.request import Recall
from service.snapshot import load_snapshot
from service.state import State
from tests.conftest import live
from tests.places import ROOT
from tests.service.bundles import derive, with_backend
from tests.service.reference import TOLERANCE

KINDS = Kinds({"listen": "history", "show": "seen", "hover": "nothing"})
ALL = 1000


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = open_journal(str(tmp_path / "journal.db"))
    yield opened
    opened.close()


@pytest.fixture
def store(published: LocalStore, tmp_path: Path) -> LocalStore:
    """The bundle of the tests, of an empty journal, behind the live channel."""
    store = LocalStore(tmp_path / "store")
    store.point("live", derive(store, live(published), seq=0, events=KINDS))
    return store


def item(item_id: str, available: bool = True, **features: Any) -> Entry:
    return Entry("item", {"item_id": item_id, "features": features, "available": available})


def delete(item_id: str) -> Entry:
    return Entry("delete", {"item_id": item_id})


def event(user_id: str, item_id: str, kind: str = "view") -> Entry:
    return Entry("event", {"user_id": user_id, "item_id": item_id, "kind": kind})


WRITTEN = [
    item("new-0", title="The Silent Nebula", category="space opera", tags=["space"]),
    item("new-1", title="The Brave Stew", year=1999, price=3.5),
    item("i3", title="Another title", category="space opera"),
    item("i4", available=False, title="Out of print"),
    item("new-2", available=False),
    delete("i5"),
    item("new-3", title="Gone at once"),
    delete("new-3"),
    delete("i6"),
    item("i6", title="Back again"),
    item("new-4", colour="no such feature"),
    item("i7", colour="no such feature"),
    *(event("u1", name) for name in ("new-0", "i3", "i9", "i5", "new-3")),
    event("u2", "i10", "listen"),
    event("u2", "i11", "show"),
    event("u2", "i12", "hover"),
    event("visitor", "new-1"),
    event("visitor", "i20", "show"),
    event("watcher", "i21", "show"),
    event("visitor", "never posted"),
    event("hoverer", "i1", "hover"),
]  # fmt: skip


def state_of(store: LocalStore, journal: Journal) -> State:
    """As a service has it that starts now."""
    return load(State.of(load_snapshot(live(store)), 1000, 1), journal).state


def ranked(state: State, **asked: Any) -> dict[str, float]:
    return {item.item_id: item.score for item in recall(state, Recall(k=ALL, **asked)).items}


def assert_alike(before: State, after: State) -> None:
    """Every user, sessions, and the neighbours of every item."""
    users = [f"u{n}" for n in range(0, 300, 7)] + ["u1", "u2", "visitor"]
    asked: list[dict[str, Any]] = [{"user_id": user} for user in users]
    asked += [{"history": ["i3", "new-0", "i5"]}, {"user_id": "u1", "history": ["new-1", "i4"]}]
    asked += [{"user_id": "u2", "category": "space opera"}, {"features": {"country": "Canada"}}]
    for one in asked:
        old, new = ranked(before, **one), ranked(after, **one)
        assert old.keys() == new.keys(), one
        assert new == pytest.approx(old, abs=TOLERANCE), one
    for item_id in ("i0", "i3", "i4", "i6", "new-0", "new-2"):
        old, new = (
            {i.item_id: i.score for i in similar(state, item_id, ALL).items}
            for state in (before, after)
        )
        assert new == pytest.approx(old, abs=TOLERANCE), item_id


def test_a_service_answers_as_before(store: LocalStore, journal: Journal) -> None:
    journal.append(WRITTEN)
    before = state_of(store, journal)
    parent = live(store).name

    done = compact(store, journal, "live", keep=0.0)

    after = state_of(store, journal)
    assert done is not None
    assert (done.version, done.parent) == (live(store).name, parent)
    assert (done.items, done.refused, done.deleted, done.events) == (7, 2, 2, 13)
    assert (done.seq, done.trimmed) == (len(WRITTEN), len(WRITTEN))
    assert (len(before.overlay), len(after.overlay), len(after.users)) == (6, 0, 0)
    assert_alike(before, after)
    assert recall(before, Recall(5, "watcher")).source == "fallback"
    assert recall(after, Recall(5, "watcher")).source == "fallback"
    assert "i21" not in ranked(after, user_id="watcher")


def test_everything_written_is_where_it_belongs(store: LocalStore, journal: Journal) -> None:
    journal.append(WRITTEN)
    old = open_bundle(live(store))
    compact(store, journal, "live")

    new = open_bundle(live(store))
    manifest = new.manifest
    names = ["new-0", "new-1", "new-2", "new-3", "never posted"]
    assert new.item_ids.of_rows(range(210, 215)) == names
    assert new.user_ids.of_rows(range(300, 302)) == ["visitor", "watcher"]
    assert (manifest.dims.items, manifest.dims.users) == (215, 302)
    assert (manifest.seq, manifest.parent) == (len(WRITTEN), old.version)
    assert manifest.metrics == old.manifest.metrics
    assert new.attributes[210] == (
        '{"title":"The Silent Nebula","category":"space opera","tags":["space"]}'
    )
    assert new.attributes[0] == old.attributes[0]
    assert (new.item_identity[3 + 1] == old.item_identity[3 + 1]).all()
    assert (new.item_identity[211:] == old.item_identity[0]).all()
    assert (new.user_identity[301:] == old.user_identity[0]).all()
    states = {
        new.item_ids[row]: ItemState(state)
        for row, state in enumerate(new.item_states.tolist())
        if state
    }
    assert states == {
        "i4": ItemState.UNAVAILABLE,
        "i5": ItemState.DELETED,
        "i7": ItemState.UNAVAILABLE,
        "new-2": ItemState.UNAVAILABLE,
        "new-3": ItemState.DELETED,
        "never posted": ItemState.DELETED,
    }
    had, _ = old.user_items(2)
    rows, bits = new.user_items(2)
    assert rows.tolist() == [*had.tolist(), 10, 11]
    assert bits[-2:].tolist() == [1, 2]
    more = new.popularity - [*old.popularity, *([0.0] * 5)]
    grown = {new.item_ids[row]: count for row, count in enumerate(more.tolist()) if count}
    assert grown == {"new-0": 1, "new-1": 1, "new-3": 1, "i3": 1, "i5": 1, "i9": 1, "i10": 1}


def test_compactions_follow_each_other_and_the_items_come_back(
    store: LocalStore, journal: Journal
) -> None:
    rng = random.Random(5)
    names = [f"i{n}" for n in range(8)] + [f"new-{n}" for n in range(4)]
    for _ in range(3):
        for _ in range(40):
            name, user = rng.choice(names), rng.choice(("u1", "u2", "visitor"))
            journal.append(
                [
                    rng.choice(
                        [
                            item(name, rng.random() < 0.7, title=f"Title {rng.random()}"),
                            delete(name),
                            event(user, name, rng.choice(("view", "listen", "show"))),
                        ]
                    )
                ]
            )
        # An event before its item counts as seen alone once it is taken in: none here.
        journal.append([item(name) for name in names if name.startswith("new")])
        before = state_of(store, journal)
        assert compact(store, journal, "live", keep=0.0)
        after = state_of(store, journal)
        for user in ("u1", "u2", "u7", "visitor"):
            old, new = ranked(before, user_id=user), ranked(after, user_id=user)
            assert new.keys() == old.keys()
            # The fallback orders by popularity, which the events have changed.
            if recall(after, Recall(1, user)).source == "model":
                assert new == pytest.approx(old, abs=TOLERANCE)


@pytest.mark.parametrize("backend", ["faiss_hnsw", "faiss_flat"])
def test_the_index_is_of_the_same_kind(store: LocalStore, journal: Journal, backend: str) -> None:
    store.point("live", with_backend(store, live(store), backend))
    journal.append(WRITTEN)
    old = open_bundle(live(store)).manifest.index

    compact(store, journal, "live")

    new = open_bundle(live(store)).manifest.index
    assert (new.backend, new.build, new.search) == (backend, old.build, old.search)


def test_a_tuned_index_is_tuned_again(store: LocalStore, journal: Journal) -> None:
    source = live(store)
    index = open_bundle(store.bundle(with_backend(store, source, "faiss_hnsw"))).manifest.index
    tuned = index.model_copy(update={"target_recall": 0.97, "target_k": 20})
    flat = store.bundle(with_backend(store, source, "faiss_hnsw"))
    store.point("live", derive(store, flat, index=tuned))
    journal.append(WRITTEN)

    compact(store, journal, "live")

    new = open_bundle(live(store)).manifest.index
    assert (new.target_recall, new.target_k) == (0.97, 20)
    assert max(point.recall for point in new.curve) >= 0.97


def test_nothing_new_is_nothing_to_do(store: LocalStore, journal: Journal) -> None:
    version = live(store).name
    assert compact(store, journal, "live") is None
    journal.append(WRITTEN[:2])
    assert compact(store, journal, "live", least=3) is None
    assert live(store).name == version


def test_the_journal_keeps_what_a_channel_lacks_and_what_is_young(
    store: LocalStore, journal: Journal
) -> None:
    store.point("other", derive(store, live(store), seq=0))
    journal.append(WRITTEN)
    done = compact(store, journal, "live", keep=0.0)
    assert done is not None
    assert done.trimmed == 0
    store.point("other", derive(store, live(store), seq=7))
    assert removable(store, journal, keep=3600.0) == 0
    assert removable(store, journal, keep=0.0) == 7
    assert journal.trim(7) == 7
    assert removable(store, journal, keep=0.0) == 7

    journal.append(WRITTEN[-1:])
    store.point("other", live(store).name)

    done = compact(store, journal, "live", keep=0.0)

    assert done is not None
    assert done.seq == len(WRITTEN) + 1
    assert [record.seq for record in journal.read(0)] == [done.seq]


def test_a_bundle_of_another_journal_and_an_empty_channel_are_refused(
    store: LocalStore, journal: Journal
) -> None:
    journal.append(WRITTEN)
    with pytest.raises(StoreError, match="channel 'next' points at nothing yet"):
        compact(store, journal, "next")
    store.point("live", derive(store, live(store), seq=1000))
    with pytest.raises(JournalError, match=f"ends at seq {len(WRITTEN)}, before seq 1000"):
        compact(store, journal, "live")
    store.point("live", derive(store, live(store), seq=3))
    journal.trim(5)
    with pytest.raises(JournalError, match="was trimmed behind seq 3"):
        compact(store, journal, "live")


def test_what_the_gate_refuses_changes_nothing(
    store: LocalStore, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append(WRITTEN)
    before = (store.versions(), store.channels())
    monkeypatch.setattr(gate, "MIN_RECALL", 1.01)

    with pytest.raises(GateError, match="index recall@50"):
        compact(store, journal, "live", keep=0.0)

    assert (store.versions(), store.channels()) == before
    assert len(journal.read(0)) == len(WRITTEN)


def test_a_channel_that_moved_meanwhile_is_left_where_it_is(
    store: LocalStore, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append(WRITTEN)
    trained = derive(store, live(store))
    fits = gate.fits

    def publish_meanwhile(size: int) -> Any:
        store.point("live", trained)
        return fits(size)

    monkeypatch.setattr(gate, "fits", publish_meanwhile)

    with pytest.raises(StoreError, match=f"was moved from .* to {trained} while"):
        compact(store, journal, "live", keep=0.0)

    assert live(store).name == trained
    assert len(store.versions()) == 2
    assert len(journal.read(0)) == len(WRITTEN)


KILLED = """
import os, sys
from contract.journal import open_journal
from contract.journal.sqlite import SqliteJournal
from pathlib import Path
from contract.store import LocalStore
from offline.compact import compact
step, store, journal = sys.argv[1:]
def die(*_): os.kill(os.getpid(), 9)
owner = {"add": LocalStore, "point": LocalStore, "trim": SqliteJournal}[step]
setattr(owner, step, die)
compact(LocalStore(Path(store)), open_journal(journal), "live", keep=0.0)
"""


def test_a_kill_at_any_step_loses_nothing(
    store: LocalStore, journal: Journal, tmp_path: Path
) -> None:
    journal.append(WRITTEN)
    before = state_of(store, journal)
    for step, moved in (("add", False), ("point", False), ("trim", True)):
        version = live(store).name
        arguments = (step, str(store.root), str(tmp_path / "journal.db"))
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, *arguments], cwd=ROOT, capture_output=True, check=False
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert (live(store).name != version) == moved
        assert len(journal.read(0)) == len(WRITTEN)
        assert_alike(before, state_of(store, journal))


def test_nothing_is_imported_that_trains() -> None:
    script = "import offline.compact, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
