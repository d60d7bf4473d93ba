"""The engine against the plain reference: any writes, cut anyhow, then any recall."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.bundle import Bundle
from contract.errors import UnknownItem
from contract.journal import Kind, Record
from contract.store import LocalStore
from service.answer import Answer
from service.conditions import from_json
from service.engine import recall, recall_each, similar
from service.listed import Listed, encoded_items
from service.overlay import Overlay
from service.request import Recall
from service.segment import Segment
from service.snapshot import Snapshot, load_snapshot
from service.state import State
from service.users import LiveUsers
from tests.service.conftest import BACKENDS, KINDS
from tests.service.reference import Reference, assert_best

LARGE = 2_000
ITEMS = ("i0", "i1", "i30", "i77", "i205", "new-0", "new-1", "new-2")
USERS = ("u0", "u1", "visitor")
CATEGORIES = ("space opera", "slow cooking", "classic", "space", "no such category")

features = st.fixed_dictionaries(
    {},
    optional={
        "title": st.sampled_from(("The Silent Nebula 1", "The Brave Stew", "")),
        "category": st.sampled_from(CATEGORIES),
        "tags": st.lists(st.sampled_from(CATEGORIES), max_size=3, unique=True),
        "year": st.integers(1900, 2100),
        "price": st.floats(0, 100),
    },
)
posts = st.fixed_dictionaries(
    {"item_id": st.sampled_from(ITEMS), "features": features, "available": st.booleans()}
)
deletes = st.fixed_dictionaries({"item_id": st.sampled_from(ITEMS)})
events = st.fixed_dictionaries(
    {"user_id": st.sampled_from(USERS), "item_id": st.sampled_from(ITEMS)},
    optional={"kind": st.sampled_from(("view", *KINDS.root))},
)
entries = st.one_of(
    st.tuples(st.just("item"), posts),
    st.tuples(st.just("delete"), deletes),
    st.tuples(st.just("event"), events),
)
requests = st.builds(
    Recall,
    k=st.integers(1, 230),
    user_id=st.sampled_from((None, "nobody", *USERS)),
    history=st.none() | st.lists(st.sampled_from(("x", "i50", *ITEMS)), max_size=25),
    exclude=st.lists(st.sampled_from((*ITEMS, *(f"i{n}" for n in range(200)))), max_size=150),
    exclude_seen=st.booleans(),
    include=st.none() | st.lists(st.sampled_from(("x", "i50", *ITEMS)), max_size=12),
    category=st.none() | st.sampled_from(CATEGORIES),
)
plain = st.builds(
    Recall,
    k=st.integers(1, 230),
    user_id=st.sampled_from((None, "nobody", *USERS)),
    exclude=st.lists(st.sampled_from((*ITEMS, *(f"i{n}" for n in range(200)))), max_size=150),
    exclude_seen=st.booleans(),
)
tags = st.one_of(
    st.sampled_from(CATEGORIES), st.lists(st.sampled_from(CATEGORIES), min_size=1, max_size=4)
)
years = st.integers(1975, 2030)
bounds = st.dictionaries(st.sampled_from(("gte", "gt", "lte", "lt")), years, min_size=1)
filters = st.fixed_dictionaries(
    {},
    optional={
        "category": tags,
        "tags": tags,
        "year": st.one_of(years, bounds, st.lists(years, min_size=1, max_size=30)),
        "price": st.fixed_dictionaries({"lt": st.floats(0, 40)}),
    },
)


Start = Callable[[], tuple[State, Reference]]


@pytest.fixture(scope="session", params=BACKENDS)
def start(request: pytest.FixtureRequest, shelf: LocalStore, bundle: Bundle) -> Start:
    """A state and the reference with nothing written yet, for each backend."""
    channel = shelf.channel(request.param)
    assert channel
    snapshot = load_snapshot(shelf.bundle(channel.version))
    return lambda: (State.of(snapshot, 1000, 1), Reference(bundle))


def records(entries: Sequence[tuple[Kind, dict[str, Any]]]) -> list[Record]:
    return [Record(seq, 0.0, kind, body) for seq, (kind, body) in enumerate(entries, start=1)]


def batches(journal: list[Record], size: int) -> Iterator[list[Record]]:
    return (journal[start : start + size] for start in range(0, len(journal), size))


def write(reference: Reference, kind: Kind, body: dict[str, Any]) -> None:
    if kind == "item":
        reference.post(**body)
    elif kind == "delete":
        reference.delete(**body)
    else:
        reference.event(**body)


def as_body(answer: Answer) -> dict[str, Any]:
    return {"items": [{"item_id": i.item_id, "score": i.score} for i in answer.items]}


def assert_right(
    state: State, reference: Reference, request: Recall, filters: Mapping[str, Any] | None = None
) -> Answer:
    """`filters`, as in the body of a POST, take the place of the request's conditions."""
    request = replace(request, conditions=from_json(filters or {}, state.attributes))
    answer = recall(state, request)
    assert_answer(answer, reference, request, filters)
    return answer


def assert_answer(
    answer: Answer,
    reference: Reference,
    request: Recall,
    filters: Mapping[str, Any] | None = None,
) -> None:
    user_id, history = request.user_id, request.history
    before = reference.history(user_id) if history is None else history
    known = [item_id for item_id in before if item_id in reference.features]
    source = "session" if known else "fallback"
    if user_id in ("u0", "u1"):
        source = "model"
    assert answer.source == source
    scores = reference.shares() if source == "fallback" else reference.scores(user_id, history)
    eligible = reference.eligible(
        user_id,
        history or (),
        request.exclude,
        request.category,
        include=request.include,
        exclude_seen=request.exclude_seen,
        filters=filters,
    )
    assert_best(as_body(answer), scores, eligible, request.k)


@settings(max_examples=40, deadline=None)
@given(
    written=st.lists(entries, max_size=30),
    size=st.integers(1, 30),
    asked=st.lists(st.tuples(requests, st.just({}) | filters), min_size=1, max_size=8),
)
def test_any_recall_after_any_writes_is_that_of_the_reference(
    start: Start,
    written: list[tuple[Kind, dict[str, Any]]],
    size: int,
    asked: list[tuple[Recall, dict[str, Any]]],
) -> None:
    state, reference = start()
    for batch in batches(records(written), size):
        state.apply(batch)
    for kind, body in written:
        write(reference, kind, body)

    for request, filters in asked:
        assert_right(state, reference, request, filters)
    for item_id in ITEMS:
        if item_id in reference.deleted or item_id not in reference.features:
            with pytest.raises(UnknownItem, match=f"'{item_id}'"):
                similar(state, item_id, 5)
        else:
            scores = reference.similarities(item_id)
            eligible = [other for other in reference.eligible() if other != item_id]
            assert_best(as_body(similar(state, item_id, 5)), scores, eligible, 5)


@settings(max_examples=20, deadline=None)
@given(
    written=st.lists(entries, max_size=30),
    asked=st.lists(plain, min_size=1, max_size=20),
    k=st.none() | st.integers(1, 40),
)
def test_recalls_together_answer_as_each_does_alone(
    start: Start, written: list[tuple[Kind, dict[str, Any]]], asked: list[Recall], k: int | None
) -> None:
    """Each with a k of its own, or all with the same, as most requests are."""
    state, reference = start()
    asked = [replace(request, k=k or request.k) for request in asked]
    state.apply(records(written))
    for kind, body in written:
        write(reference, kind, body)

    together = recall_each(state, asked)

    assert len(together) == len(asked)
    for answer, request in zip(together, asked, strict=True):
        assert_answer(answer, reference, request)
        alone = recall(state, request)
        assert (answer.source, answer.widened, answer.exact) == (
            alone.source,
            alone.widened,
            alone.exact,
        )
        found, wanted = ([item.score for item in a.items] for a in (answer, alone))
        assert found == pytest.approx(wanted, abs=1e-5)


def test_what_recalls_took_together_is_shared_among_them(snapshot: Snapshot) -> None:
    state = State.of(snapshot, 1000, 1)

    first, second = recall_each(state, [Recall(5, "u0"), Recall(5, "u1")])

    assert first.stages == second.stages
    assert min(first.stages.tower, first.stages.search, first.stages.encode) > 0


def test_a_list_is_sent_as_its_items_would_be(snapshot: Snapshot) -> None:
    state = State.of(snapshot, 1000, 1)
    entries: list[tuple[Kind, dict[str, Any]]] = [("item", {"item_id": 'a "quoted" one'})]

    for written in ([], entries):
        state.apply(records(written))
        for k in (1, 7, snapshot.items + 1):
            answer = recall(state, Recall(k, exclude_seen=False))
            items = answer.items
            assert isinstance(items, Listed)
            encoded = [orjson.dumps(one) for one in encoded_items([answer, answer])]
            assert encoded == [orjson.dumps(list(items))] * 2
            assert (items[0], len(items[:3])) == (next(iter(items)), min(k, 3))
            assert (items[-1], items[-len(items)]) == (list(items)[-1], items[0])
            with pytest.raises(IndexError):
                items[len(items)]


def test_a_large_overlay_is_searched_like_a_small_one(snapshot: Snapshot, bundle: Bundle) -> None:
    overlay = Overlay(snapshot, 1, Segment(scanned=200, tail=40))
    state, reference = State(snapshot, overlay, LiveUsers(overlay, 100)), Reference(bundle)
    names = [f"new-{n}" for n in range(LARGE)]
    posts = [item_of(name, n, available=n % 50 != 0) for n, name in enumerate(names)]
    changed = [item_of(name, n + 7) for n, name in enumerate(names[:600:3])]
    deleted: list[tuple[Kind, dict[str, Any]]] = [
        ("delete", {"item_id": name}) for name in names[1:900:5]
    ]
    revived = [item_of(name, n + 3) for n, name in enumerate(names[1:300:10])]
    steps = [posts, [item_of("i3", 1), *changed], deleted, revived]
    written: list[tuple[Kind, dict[str, Any]]] = [entry for step in steps for entry in step]

    asked = (
        Recall(30, "u0"),
        Recall(30, "u1", exclude=names[:100]),
        Recall(300, "u0", exclude=names),
        Recall(30, history=["i0", *names[2:20]]),
        Recall(30, "u0", category="space opera"),
        Recall(LARGE + 300, "u1"),
        Recall(LARGE + 300),
    )
    for batch in batches(records(written), 130):
        state.apply(batch)
        for record in batch:
            write(reference, record.kind, record.body)
        if batch[0].seq % 3 == 0:
            assert_right(state, reference, asked[batch[0].seq % len(asked)])
            assert_right_together(state, reference, asked[:2])
    overlay.settle()
    for request in asked:
        assert_right(state, reference, request)
    assert_right_together(state, reference, asked[:2])
    # Of one depth, but one has met more posted items than the others search for.
    some, many = names[:3], names[:100]
    assert_right_together(
        state,
        reference,
        [Recall(5, user, exclude=met) for user in ("u0", "u1", "u0") for met in (some, many)],
    )
    assert {item.source for item in recall(state, asked[1]).items} == {"bundle", "overlay"}
    for name in ("new-4", "new-11", "new-50", "i0"):
        scores = reference.similarities(name)
        eligible = [other for other in reference.eligible() if other != name]
        assert_best(as_body(similar(state, name, 5)), scores, eligible, 5)


def assert_right_together(state: State, reference: Reference, asked: Sequence[Recall]) -> None:
    for answer, request in zip(recall_each(state, asked), asked, strict=True):
        assert_answer(answer, reference, request)


def item_of(name: str, n: int, available: bool = True) -> tuple[Kind, dict[str, Any]]:
    features = {
        "title": f"The {n % 97} of the {n % 89} {n}",
        "category": CATEGORIES[n % 3],
        "year": 1950 + n % 70,
    }
    return "item", {"item_id": name, "features": features, "available": available}


def test_a_filter_that_leaves_too_few_goes_into_a_second_search(
    start: Start,
) -> None:
    state, reference = start()
    scores = reference.scores("u0")
    ranking = sorted(reference.eligible("u0"), key=lambda item_id: -scores[item_id])

    best_excluded = assert_right(state, reference, Recall(5, "u0", exclude=ranking[:50]))
    worst_excluded = assert_right(state, reference, Recall(5, "u0", exclude=ranking[-50:]))
    all_but_three = assert_right(state, reference, Recall(5, "u0", exclude=ranking[:-3]))
    all_excluded = assert_right(state, reference, Recall(5, "u0", exclude=ranking))

    # Where all items are scored, what is left out is left out of the only search.
    indexed = state.snapshot.bundle.manifest.index.backend != "exact"
    assert (best_excluded.widened, best_excluded.exact) == (indexed, False)
    assert (worst_excluded.widened, worst_excluded.exact) == (False, False)
    assert (all_but_three.widened, all_but_three.exact) == (indexed, indexed)
    assert list(all_excluded.items) == []


def test_the_stages_of_a_recall_add_up(snapshot: Snapshot) -> None:
    state = State.of(snapshot, 1000, 1)

    stages = recall(state, Recall(5, "u0")).stages

    parts = (stages.encode, stages.tower, stages.search, stages.merge)
    assert min(parts) > 0
    assert stages.total == sum(parts)
    assert recall(state, Recall(5, "nobody")).stages.tower == 0


def test_the_fallback_puts_new_items_last_and_the_newest_of_them_first(
    snapshot: Snapshot,
) -> None:
    state = State.of(snapshot, 1000, 1)
    state.apply(records([("item", {"item_id": name}) for name in ("older", "newer")]))

    answer = recall(state, Recall(snapshot.items + 2))

    assert [item.item_id for item in answer.items[-2:]] == ["newer", "older"]
    assert [item.source for item in answer.items[-3:]] == ["bundle", "overlay", "overlay"]


def test_only_so_many_events_of_a_user_are_kept(snapshot: Snapshot) -> None:
    state = State.of(snapshot, 3, 1)
    events = [{"user_id": "visitor", "item_id": f"i{n}"} for n in range(5)]

    state.apply(records([("event", event) for event in events]))

    assert [item_id for item_id, _ in state.users.events("visitor")] == ["i2", "i3", "i4"]
    returned = {item.item_id for item in recall(state, Recall(300, "visitor")).items}
    assert {"i0", "i1"} <= returned
    assert not {"i2", "i3", "i4"} & returned


def test_a_long_list_is_made_once(snapshot: Snapshot) -> None:
    """Made anew for each of its items, this one would take hours."""
    state, many = State.of(snapshot, 1000, 1), 200_000
    rows = np.arange(many) % snapshot.items
    listed = Listed(state.overlay, rows, np.zeros(many, np.float32))

    assert list(listed) == listed[:]
    assert len(list(listed)) == many
