"""What is popular, against counting by hand."""

import numpy as np
import pytest

from contract.errors import BundleError
from contract.features import Category, Encoded, Fields, Number
from contract.popularity import DAY, DEPTH, PRIOR, Popularity, popular_arrays

FIELDS = Fields(
    fields=(
        Category(name="planet", values=("Mars",)),
        Category(name="country", values=("Chad", "Fiji")),
        Number(name="age", mean=0.0, deviation=1.0),
    )
)
# Users of Chad, Fiji and nowhere.
USERS = Encoded(np.array([[1, 1], [0, 2], [1, 0]], np.int32), np.zeros((3, 2), np.float32))
ROWS = np.array([0, 0, 3, 3, 3, 1], np.int32)
OFFSETS = np.array([0, 2, 5, 6])
TIMES = np.array([0, 10, 20, 20, 20, 20]) * int(DAY)


def test_without_a_segment_there_is_one_list_of_all_items() -> None:
    found = popular_arrays(Popularity(), FIELDS, USERS, (OFFSETS, ROWS, TIMES), 5)

    assert found["popular_rows"].tolist() == [[3, 0, 1, 2, 4]]
    assert found["popular_scores"][0].tolist() == pytest.approx([3 / 6, 2 / 6, 1 / 6, 0, 0])
    assert [array.dtype.name for array in found.values()] == ["int32", "float32"]


def test_an_interaction_counts_half_after_each_half_life() -> None:
    found = popular_arrays(Popularity(half_life_days=10), FIELDS, USERS, (OFFSETS, ROWS, TIMES), 5)

    total = 0.25 + 0.5 + 4
    assert found["popular_rows"].tolist() == [[3, 1, 0, 2, 4]]
    wanted = [3 / total, 1 / total, 0.75 / total, 0, 0]
    assert found["popular_scores"][0].tolist() == pytest.approx(wanted)


def test_a_segment_has_a_list_of_its_own_smoothed_by_that_of_all() -> None:
    found = popular_arrays(Popularity(segment="country"), FIELDS, USERS, (OFFSETS, ROWS, TIMES), 5)

    everyone = [2 / 6, 1 / 6, 0, 3 / 6, 0]
    assert found["popular_rows"].tolist()[0] == [3, 0, 1, 2, 4]
    for code, own in ((1, [2, 0, 0, 0, 0]), (2, [0, 0, 0, 3, 0])):
        shares = [(n + PRIOR * e) / (sum(own) + PRIOR) for n, e in zip(own, everyone, strict=True)]
        by_row = dict(zip(*(found[a][code].tolist() for a in found), strict=True))
        assert by_row == pytest.approx(dict(enumerate(shares)))
        assert (np.diff(found["popular_scores"][code]) <= 0).all()


def test_a_large_segment_has_an_order_of_its_own() -> None:
    rows = np.repeat(np.array([0, 1], np.int32), [2000, 1000])
    users = Encoded(np.array([[0, 1], [0, 2]], np.int32), np.zeros((2, 2), np.float32))
    interactions = (np.array([0, 2000, 3000]), rows, np.zeros(3000, np.int64))

    found = popular_arrays(Popularity(segment="country"), FIELDS, users, interactions, 2)

    assert found["popular_rows"].tolist() == [[0, 1], [0, 1], [1, 0]]


def test_a_list_ends_at_its_depth() -> None:
    items = DEPTH + 500
    rows = np.arange(items, dtype=np.int32)[::-1].repeat(2)
    interactions = (np.array([0, len(rows)]), rows, np.zeros(len(rows), np.int64))
    users = Encoded(np.zeros((1, 2), np.int32), np.zeros((1, 2), np.float32))

    found = popular_arrays(Popularity(), FIELDS, users, interactions, items)

    assert found["popular_rows"].tolist() == [list(range(DEPTH))]


@pytest.mark.parametrize("name", ["age", "city"])
def test_a_segment_that_is_no_category_of_users_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match=f"popularity.segment is '{name}'"):
        Popularity(segment=name).segments(FIELDS)


def test_no_interactions_at_all_leave_every_share_zero() -> None:
    nothing = np.empty(0, np.int64)
    users = Encoded(np.zeros((1, 2), np.int32), np.zeros((1, 2), np.float32))

    found = popular_arrays(
        Popularity(segment="country", half_life_days=1),
        FIELDS,
        users,
        (np.array([0, 0]), nothing.astype(np.int32), nothing),
        3,
    )

    assert found["popular_rows"].tolist() == [[0, 1, 2]] * 3
    assert not found["popular_scores"].any()
