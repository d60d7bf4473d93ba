"""What a journal comes to, against plain dicts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract import changes
from contract.changes import Event, fold
from contract.errors import JournalError
from contract.journal import Entry, Journal, open_journal
from contract.kinds import BITS, COUNTS, HISTORY, SEEN, Kinds, flags_below, history_of

names = st.sampled_from(("a", "b", "c", "d"))
entries = st.one_of(
    st.builds(
        lambda item_id, year, available: Entry(
            "item", {"item_id": item_id, "features": {"year": year}, "available": available}
        ),
        names,
        st.integers(0, 99),
        st.booleans(),
    ),
    st.builds(lambda item_id: Entry("delete", {"item_id": item_id}), names),
    st.builds(
        lambda user, item_id, at: Entry(
            "event", {"user_id": user, "item_id": item_id, "timestamp": at, "kind": "view"}
        ),
        names,
        names,
        st.integers(0, 99),
    ),
)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = open_journal(str(tmp_path / "journal.db"))
    yield opened
    opened.close()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(written=st.lists(entries, min_size=1, max_size=30))
def test_a_fold_is_what_plain_dicts_come_to(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, written: list[Entry]
) -> None:
    monkeypatch.setattr(changes, "CHUNK", 4)
    after = journal.last_seq()
    journal.append(written)
    posted: dict[str, Any] = {}
    gone: set[str] = set()
    events = []
    for entry in written:
        body = entry.body
        if entry.kind == "item":
            posted[body["item_id"]] = (body["features"], body["available"])
            gone -= {body["item_id"]}
        elif entry.kind == "delete":
            gone |= {body["item_id"]}
        else:
            events.append(Event(*body.values()))

    found = fold(journal, after)

    assert list(found.items.items()) == list(posted.items())
    assert (found.deleted, found.events) == (gone, events)
    assert found.seq == after + len(written)


def test_what_a_body_leaves_out_has_its_usual_value(journal: Journal) -> None:
    journal.append(
        [Entry("item", {"item_id": "a"}), Entry("event", {"user_id": "u", "item_id": "a"})]
    )

    found = fold(journal, 0)

    assert found.items == {"a": ({}, True)}
    assert found.events == [Event("u", "a", int(journal.read(1)[0].at), None)]


def test_a_reader_that_comes_too_late_is_told_so(journal: Journal) -> None:
    journal.append([Entry("delete", {"item_id": name}) for name in "abcde"])
    assert fold(journal, 5).seq == 5
    with pytest.raises(JournalError, match="ends at seq 5, before seq 6"):
        fold(journal, 6)

    journal.trim(2)

    assert fold(journal, 2).deleted == {"c", "d", "e"}
    with pytest.raises(JournalError, match="trimmed behind seq 1"):
        fold(journal, 1)
    journal.trim(5)
    with pytest.raises(JournalError, match="trimmed behind seq 4"):
        fold(journal, 4)
    assert fold(journal, 5).deleted == set()


def test_a_kind_that_is_not_named_counts_as_both() -> None:
    kinds = Kinds({"a": "history", "b": "seen", "c": "nothing", "d": "both"})

    found = {kind: kinds.flags(kind) for kind in ("a", "b", "c", "d", "e", None)}

    both = HISTORY | SEEN
    assert found == {"a": HISTORY, "b": SEEN, "c": 0, "d": both, "e": both, None: both}
    assert BITS["both"] == both


def test_the_flags_of_an_event_say_which_history_it_belongs_to() -> None:
    kinds, histories = Kinds({"like": "history", "show": "seen"}), ("view", "like", "show", "buy")

    found = [kinds.flags(k, histories) for k in ("view", "like", "show", "buy", "share", None)]
    flags = np.array(found, np.uint8)

    assert history_of(flags).tolist() == [1, 2, 0, 4, 0, 0]
    assert (flags & COUNTS).tolist() == [3, HISTORY, SEEN, 3, 3, 3]
    assert max(found) < flags_below(histories) == 20
    assert flags_below(()) == 4 == max(BITS.values()) + 1


def test_kinds_survive_json() -> None:
    kinds = Kinds({"a": "history"})

    assert Kinds.model_validate_json(kinds.model_dump_json()) == kinds
