"""The overlay where HTTP is too coarse to see it."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from contract.errors import BadItems, UnknownItem
from contract.journal import Record
from service.overlay import Overlay, OverlayItem
from service.posted import encode_items
from service.snapshot import Snapshot

MANY = 200


@pytest.fixture
def overlay(snapshot: Snapshot) -> Overlay:
    return Overlay(snapshot, 1)


def item(seq: int, item_id: str, **features: Any) -> Record:
    return Record(seq, 0.0, "item", {"item_id": item_id, "features": features})


def delete(seq: int, item_id: str) -> Record:
    return Record(seq, 0.0, "delete", {"item_id": item_id})


def test_a_slot_is_an_items_for_good(overlay: Overlay) -> None:
    overlay.apply([item(1, "a"), item(2, "b")])
    rows = overlay.rows(["a", "b"]).tolist()
    overlay.apply([delete(3, "a")])
    overlay.apply([item(4, "c")])
    overlay.apply([item(5, "a", title="again")])

    assert rows == [overlay.base, overlay.base + 1]
    assert overlay.rows(["a", "b", "c", "d"]).tolist() == [*rows, overlay.base + 2]
    assert [overlay.id_of(row) for row in rows] == ["a", "b"]
    assert overlay.alive.tolist() == [True, True, True]
    assert overlay.slots == len(overlay) == 3


def test_rows_survive_the_growth_of_the_arrays(overlay: Overlay, snapshot: Snapshot) -> None:
    titles = [f"Title {n}" for n in range(MANY)]
    for n, title in enumerate(titles):
        overlay.apply([item(n + 1, f"a{n}", title=title)])
    at_once = Overlay(snapshot, 1)
    at_once.apply([item(n + 1, f"a{n}", title=title) for n, title in enumerate(titles)])

    assert overlay.slots == at_once.slots == MANY
    assert np.allclose(overlay.vectors, at_once.vectors, atol=1e-6)
    rows = overlay.rows([f"a{n}" for n in range(MANY)])
    assert np.allclose(overlay.history_vectors(rows), at_once.history_vectors(rows), atol=1e-6)
    assert len(np.unique(overlay.vectors.round(5), axis=0)) > MANY / 2


def test_histories_mix_rows_of_bundle_and_overlay(overlay: Overlay, snapshot: Snapshot) -> None:
    overlay.apply([item(1, "a", title="Nebula")])
    table = snapshot.bundle.history_vectors

    found = overlay.history_vectors(np.array([5, overlay.base, 2]))

    assert np.array_equal(found[[0, 2]], table[[5, 2]])
    alone = overlay.history_vectors(np.array([overlay.base]))
    assert np.array_equal(found[1:2], alone)
    assert overlay.history_vectors(np.empty(0, np.int64)).shape == (0, table.shape[1])


def test_a_replaced_row_of_the_bundle_leads_to_its_slot(
    overlay: Overlay, snapshot: Snapshot
) -> None:
    replaced, deleted, kept = (snapshot.bundle.item_ids.row(i) for i in ("i3", "i4", "i5"))
    overlay.apply([item(1, "i3"), delete(2, "i4")])

    rows = overlay.current(np.array([kept, replaced, deleted]))

    assert rows.tolist() == [kept, overlay.base, deleted]
    assert overlay.dead_count == 2
    assert np.flatnonzero(overlay.dead).tolist() == sorted([replaced, deleted])


def test_an_item_posted_and_deleted_in_one_batch_has_its_slot(overlay: Overlay) -> None:
    overlay.apply([item(1, "a"), delete(2, "a"), item(3, "b"), delete(4, "c"), item(5, "c")])

    assert len(overlay) == 2
    assert [overlay.item(name) is None for name in ("a", "b", "c")] == [True, False, False]
    assert overlay.rows(["a", "b", "c"]).tolist() == [overlay.base + n for n in range(3)]
    assert overlay.alive.tolist() == [False, True, True]
    with pytest.raises(UnknownItem, match="'a'"):
        overlay.require("a")


def test_an_item_that_the_schema_cannot_encode_is_counted_and_the_others_are_taken(
    overlay: Overlay,
) -> None:
    overlay.apply([item(1, "a"), item(2, "b", colour="red"), item(3, "c", year="old")])

    assert len(overlay) == overlay.slots == 1
    assert overlay.item("a") == OverlayItem(1, {}, True)
    assert overlay.refused == 2


BAD = {"colour": "red"}


def seen(overlay: Overlay, item_id: str) -> tuple[bool, bool, int]:
    """Whether it is returned, whether it can be deleted, how many are refused."""
    row = np.array([overlay.row(item_id)])
    return row[0] >= 0 and bool(overlay.lives(row)[0]), overlay.knows(item_id), overlay.refused


@pytest.mark.parametrize("item_id", ["i3", "a"])
def test_an_item_whose_last_post_was_refused_is_not_returned_until_it_is_posted_again(
    overlay: Overlay, item_id: str
) -> None:
    overlay.apply([item(1, item_id, **BAD)])

    assert seen(overlay, item_id) == (False, True, 1)
    with pytest.raises(UnknownItem, match=f"'{item_id}': bundle .* cannot encode"):
        overlay.require(item_id)
    overlay.apply([item(2, item_id, title="Again")])
    assert seen(overlay, item_id) == (True, True, 0)
    overlay.apply([item(3, item_id, **BAD), item(4, "other", **BAD)])
    assert seen(overlay, item_id) == (False, True, 2)
    assert overlay.item(item_id) is None
    assert len(overlay) == 0
    overlay.apply([delete(5, item_id)])
    assert seen(overlay, item_id) == (False, False, 1)


@pytest.mark.parametrize("item_id", ["i3", "a"])
def test_workers_answer_alike_however_they_cut_the_journal(
    snapshot: Snapshot, item_id: str
) -> None:
    makes: list[Callable[[int], Record]] = [
        lambda n: item(n, item_id),
        lambda n: item(n, item_id, **BAD),
        lambda n: delete(n, item_id),
    ]
    for chosen in itertools.product(makes, repeat=4):
        records = [make(n) for n, make in enumerate(chosen, 1)]
        whole, halves, single = (Overlay(snapshot, 1) for _ in range(3))
        whole.apply(records)
        for begin in (0, 2):
            halves.apply(records[begin : begin + 2])
        for record in records:
            single.apply([record])

        answers = {
            (*seen(overlay, item_id), overlay.row(item_id), len(overlay), overlay.dead_count)
            for overlay in (whole, halves, single)
        }
        assert len(answers) == 1, [(r.kind, r.body) for r in records]


def test_an_item_of_the_bundle_keeps_its_trained_identity(
    overlay: Overlay, snapshot: Snapshot
) -> None:
    features = {"title": "Same", "year": 2000}
    overlay.apply([item(1, "i3", **features), item(2, "i4", **features), item(3, "a", **features)])

    changed, other, new = overlay.vectors

    assert np.abs(changed - other).max() > 1e-3
    assert np.abs(changed - new).max() > 1e-3


def test_a_wrong_feature_is_named_with_its_item(snapshot: Snapshot) -> None:
    with pytest.raises(BadItems, match=r"item 'a': feature 'yaer'.* did you mean 'year'"):
        encode_items(snapshot, [{"item_id": "a", "features": {"yaer": 2000}}])
