"""Selections of rows against plain loops, where they turn from a bitmap to rows, what is kept."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.arrays import F32, Bool
from contract.attributes import Attributes, Postings, index_attributes
from service import selection
from service.columns import Columns
from service.conditions import AnyOf, Condition, Within
from service.marks import Marks
from service.selection import GATHERED_SHARE, Selection, Selector, few

TAGS = ("a", "b", "c", "d")
KINDS: Any = {"one": "tags", "two": "tags", "year": "number"}

tags = st.lists(st.sampled_from(TAGS), max_size=3)
items = st.fixed_dictionaries(
    {}, optional={"one": tags, "two": tags, "year": st.none() | st.integers(0, 9)}
)
names = st.sampled_from(("one", "two", None))
values = st.lists(st.sampled_from((*TAGS, "never")), min_size=1, max_size=3).map(tuple)
years = st.integers(-1, 10).map(float)
intervals = st.lists(st.tuples(years, years), min_size=1, max_size=3).map(tuple)
conditions = st.one_of(
    st.builds(AnyOf, names, values), st.builds(Within, st.just("year"), intervals)
)


def postings(catalogue: list[dict[str, Any]]) -> Postings:
    columns = {name: [item.get(name) for item in catalogue] for name in KINDS}
    return Postings(*index_attributes(KINDS, columns, len(catalogue)))


def vectors_of(catalogue: list[dict[str, Any]]) -> F32:
    return np.arange(2 * len(catalogue), dtype=np.float32).reshape(-1, 2)


def meets(item: dict[str, Any], condition: Condition) -> bool:
    if isinstance(condition, Within):
        year = item.get("year")
        return year is not None and any(low <= year <= high for low, high in condition.intervals)
    names = ("one", "two") if condition.attribute is None else (condition.attribute,)
    return any(tag in item.get(name, ()) for name in names for tag in condition.values)


def plain(catalogue: list[dict[str, Any]], asked: list[Condition]) -> list[bool]:
    return [all(meets(item, condition) for condition in asked) for item in catalogue]


# Few items, so that one in 64 is none of them; many, so that it is some.
@settings(deadline=None)
@given(
    st.lists(items, min_size=1, max_size=40),
    st.sampled_from((1, 10, 60)),
    st.lists(conditions, min_size=1, max_size=3),
)
def test_any_conditions_select_what_a_loop_finds(
    some: list[dict[str, Any]], times: int, asked: list[Condition]
) -> None:
    catalogue = some * times
    wanted = plain(catalogue, asked)
    selector = Selector(postings(catalogue), vectors_of(catalogue))

    found = selector.select(asked)
    among = selector.among(np.arange(len(catalogue))[::3], asked)

    assert found.marked(len(catalogue)).tolist() == wanted
    assert (found.rows is not None) == (sum(wanted) <= len(catalogue) // GATHERED_SHARE)
    if found.rows is not None and found.vectors is not None:
        assert np.array_equal(found.vectors, vectors_of(catalogue)[found.rows])
    assert among.rows is not None
    assert among.rows.tolist() == [row for row in range(0, len(catalogue), 3) if wanted[row]]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 150), items), max_size=40),
    st.lists(conditions, max_size=3),
)
def test_the_overlay_selects_what_a_loop_finds_whatever_was_overwritten(
    put: list[tuple[int, dict[str, Any]]], asked: list[Condition]
) -> None:
    columns = Columns(Attributes(kinds=KINDS))
    for slot, item in put:
        columns.put(slot, item)
    now = dict(put)

    found = columns.meet(asked, max(now, default=-1) + 1)

    assert [bool(found[slot]) for slot in now] == plain(list(now.values()), asked)


def test_what_was_asked_for_last_is_kept_whatever_its_order_and_within_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    catalogue = [{"one": ["a", "b", "c"], "year": 1}] * 100
    a, b, c = (AnyOf("one", (tag,)) for tag in "abc")
    monkeypatch.setattr(selection, "KEPT_BYTES", 3000)
    selector = Selector(postings(catalogue), vectors_of(catalogue))

    first, second = selector.select([a]), selector.select([b, Within("year", ((1, 1),))])

    assert selector.select([Within("year", ((1, 1),)), b]) is second
    assert selector.select([a]) is first
    selector.select([c])
    assert selector.select([a]) is first
    assert selector.select([b, Within("year", ((1, 1),))]) is not second


@pytest.mark.parametrize(
    "never",
    [
        lambda n: AnyOf(None, (f"never-{n}",)),
        lambda n: AnyOf("one", (f"never-{n}", "never" * 2000)),
        lambda n: Within("year", tuple((low + n / 1e6, 1.0) for low in (2.0, 3.0, 4.0))),
    ],
    ids=["tag", "long", "number"],
)
def test_filters_that_nothing_meets_do_not_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch, never: Callable[[int], Condition]
) -> None:
    monkeypatch.setattr(selection, "KEPT_BYTES", 2**20)
    catalogue = [{"one": ["a"], "year": 1}] * 100
    selector = Selector(postings(catalogue), vectors_of(catalogue))

    tracemalloc.start()
    try:
        for n in range(3000):
            assert not selector.select([never(n)]).marked(100).any()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 2**19 < taken < 1.25 * 2**20


def test_vectors_are_kept_beside_the_rows_up_to_some_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """8 bytes each. Beyond, rows are few only where an index is asked later still."""
    catalogue = [{"year": n} for n in range(640)]
    monkeypatch.setattr(selection, "GATHERED_BYTES", 8 * 20)
    selector = Selector(postings(catalogue), vectors_of(catalogue))

    found = [selector.select([Within("year", ((0, most - 1),))]) for most in (10, 20, 21, 41)]

    assert few(len(catalogue)) == 10
    assert [one.rows is not None for one in found] == [True, True, False, False]
    assert [one.vectors is not None for one in found] == [True, True, False, False]
    monkeypatch.setattr(selection, "SCORED_BYTES", 8 * 9)
    scattered = Selector(postings(catalogue), vectors_of(catalogue)).select(
        [Within("year", ((0, 9),))]
    )
    assert scattered.rows is not None
    assert scattered.vectors is None


def test_a_selection_is_rows_and_a_bitmap_of_the_same() -> None:
    bitmap: Bool = np.array([False, True, False, True])

    assert Selection(np.array([1, 3])).marked(4).tolist() == bitmap.tolist()
    assert Selection(bitmap=bitmap).marked(4) is bitmap
    assert Selection().marked(2).tolist() == [False, False]


def test_marks_tell_which_rows_are_among_others_again_and_again() -> None:
    marks, rng = Marks(1000), np.random.default_rng(3)
    for most in (5, 1000, 20):
        rows, others = rng.integers(0, most, (2, 30)), rng.integers(0, most, 12)
        assert np.array_equal(marks.among(rows, others), np.isin(rows, others))
    assert marks.among(np.empty((1, 0), np.int64), np.array([7])).shape == (1, 0)
