"""Live events: which rows they are, whatever was written since, and what it costs to ask again."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.ids import UNKNOWN
from contract.journal import Kind, Record
from service import users
from service.overlay import Overlay
from service.snapshot import Snapshot
from service.state import State
from service.users import LiveUsers

VIEW = 3
ITEMS = ("i0", "i1", "i199", "new-0", "new-1")
NAMES = ("ann", "bob")

item = st.sampled_from(ITEMS)
writes = st.one_of(
    st.tuples(st.just("item"), st.fixed_dictionaries({"item_id": item})),
    st.tuples(st.just("delete"), st.fixed_dictionaries({"item_id": item})),
    st.tuples(
        st.just("event"),
        st.fixed_dictionaries({"user_id": st.sampled_from(NAMES), "item_id": item}),
    ),
)


class Counting(Overlay):
    """Counts the ids that are looked up."""

    looks = 0

    def row(self, item_id: str) -> int:
        self.looks += 1
        return super().row(item_id)


def written(seq: int, kind: Kind, **body: Any) -> list[Record]:
    return [Record(seq, 0.0, kind, body)]


def touched(live: LiveUsers, user_id: str) -> list[tuple[int, int]]:
    rows, flags = live.touched(user_id)
    return list(zip(rows.tolist(), flags.tolist(), strict=True))


def looked_up(state: State, user_id: str) -> list[tuple[int, int]]:
    """The same, each id by itself."""
    found = [(state.overlay.row(i), flags) for i, flags in state.users.events(user_id)]
    return [(row, flags) for row, flags in found if row != UNKNOWN]


@settings(deadline=None)
@given(st.lists(st.tuples(writes, st.sets(st.sampled_from(NAMES))), max_size=30))
def test_the_rows_are_those_of_now_whenever_they_were_asked_for(
    snapshot: Snapshot, journal: list[tuple[tuple[Kind, dict[str, Any]], set[str]]]
) -> None:
    state = State.of(snapshot, 3, 1)
    for seq, ((kind, body), asking) in enumerate(journal, start=1):
        state.apply([Record(seq, 0.0, kind, body)])
        for user_id in asking:
            assert touched(state.users, user_id) == looked_up(state, user_id)
    for user_id in NAMES:
        assert touched(state.users, user_id) == looked_up(state, user_id)


def test_only_what_has_changed_is_looked_up_again(snapshot: Snapshot) -> None:
    overlay = Counting(snapshot, 1)
    live = LiveUsers(overlay, 100)

    def looks() -> int:
        """Of the next question."""
        before = overlay.looks
        live.touched("ann")
        return overlay.looks - before

    for seq in range(1, 101):
        live.add("ann", f"i{seq}", VIEW, seq)
    assert [looks(), looks()] == [100, 0]
    live.add("ann", "i150", VIEW, 101)
    assert [looks(), looks()] == [1, 0]
    overlay.apply(written(102, "item", item_id="i150"))
    assert looks() == 0
    assert touched(live, "ann")[-1] == (overlay.base, VIEW)
    overlay.apply(written(103, "delete", item_id="i7"))
    overlay.apply(written(104, "item", item_id="i150"))
    assert looks() == 0


def test_an_item_that_is_posted_after_its_event_is_found_then(snapshot: Snapshot) -> None:
    state = State.of(snapshot, 100, 1)
    state.apply(written(1, "event", user_id="ann", item_id="later"))
    state.apply(written(2, "event", user_id="ann", item_id="i3"))
    assert touched(state.users, "ann") == [(3, VIEW)]

    state.apply(written(3, "item", item_id="other"))
    assert touched(state.users, "ann") == [(3, VIEW)]
    state.apply(written(4, "item", item_id="later"))

    assert touched(state.users, "ann") == [(state.overlay.row("later"), VIEW), (3, VIEW)]


def test_what_was_found_is_kept_within_a_bound(
    snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for two users of one event."""
    monkeypatch.setattr(users, "FOUND_BYTES", 2 * (users.FOUND_COST + 9))
    overlay = Counting(snapshot, 1)
    live = LiveUsers(overlay, 100)
    for seq, user_id in enumerate(("ann", "bob", "eve"), start=1):
        live.add(user_id, f"i{seq}", VIEW, seq)

    for user_id in ("ann", "bob", "ann", "eve", "ann", "bob"):
        live.touched(user_id)

    assert overlay.looks == 4
    assert touched(live, "eve") == [(3, VIEW)]
