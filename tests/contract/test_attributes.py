"""The attributes of a catalogue, inverted, against plain loops."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.attributes import (
    Attributes,
    Postings,
    default_kinds,
    index_attributes,
    number_of,
    tags_of,
)
from contract.bundle import ARRAYS
from contract.errors import FeatureError
from contract.features import Category, Fields, Multi, Number, Text

ITEMS: list[dict[str, Any]] = [
    {"genres": "Drama|War", "year": 1999, "shelf": 7},
    {"genres": ["War", "War", ""], "year": None, "shelf": "seven"},
    {"genres": None, "year": 1950.5, "shelf": "War"},
    {"genres": "Drama", "year": 1999, "shelf": None},
]


def postings(kinds: dict[str, Any], items: list[dict[str, Any]]) -> Postings:
    columns = {name: [item.get(name) for item in items] for name in kinds}
    return Postings(*index_attributes(kinds, columns, len(items)))


@pytest.fixture(scope="module")
def shelf() -> Postings:
    return postings({"genres": "tags", "year": "number", "shelf": "tags"}, ITEMS)


def test_the_rows_of_a_tag_ascend_and_each_attribute_has_its_own(shelf: Postings) -> None:
    assert shelf.tagged("genres", "Drama").tolist() == [0, 3]
    assert shelf.tagged("genres", "War").tolist() == [0, 1]
    assert shelf.tagged("shelf", "War").tolist() == [2]
    assert shelf.tagged("shelf", "7").tolist() == [0]
    assert shelf.tagged("genres", "seven").tolist() == []
    assert shelf.attributes.tag_values == 5


def test_the_rows_of_a_range_come_by_number_and_a_missing_one_is_in_none(shelf: Postings) -> None:
    assert shelf.between("year", -math.inf, math.inf).tolist() == [2, 0, 3]
    assert shelf.between("year", 1999, 1999).tolist() == [0, 3]
    assert shelf.between("year", 1951, 1998).tolist() == []
    assert shelf.between("year", 2000, 1900).tolist() == []
    np.testing.assert_array_equal(shelf.numbers("year"), [1999, math.nan, 1950.5, 1999])


@given(
    st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), max_size=30),
    st.floats(allow_nan=False),
    st.floats(allow_nan=False),
)
def test_any_range_holds_what_a_loop_finds(
    values: list[float | None], low: float, high: float
) -> None:
    found = postings({"n": "number"}, [{"n": value} for value in values])

    rows = found.between("n", low, high).tolist()

    wanted = [(v, row) for row, v in enumerate(values) if v is not None and low <= v <= high]
    assert rows == [row for _, row in sorted(wanted)]


def test_a_catalogue_without_attributes_or_items_has_arrays_all_the_same() -> None:
    for kinds, items in (({}, 3), ({"a": "tags", "b": "number"}, 0), ({"a": "tags"}, 2)):
        attributes, arrays = index_attributes(kinds, {}, items)  # type: ignore[arg-type]
        sizes = {
            "items": items,
            "tag_values": 0,
            "tag_values+1": 1,
            "numbers": len(attributes.numbers),
            None: 0,
        }
        for name, array in arrays.items():
            dtype, shape = ARRAYS[name]
            assert (array.dtype, array.shape) == (dtype, tuple(sizes[s] for s in shape)), name  # type: ignore[index]
        assert Postings(attributes, arrays).attributes.tag_values == 0


def test_features_are_attributes_unless_a_recipe_says_otherwise() -> None:
    fields = Fields(
        fields=(
            Category(name="genre", values=()),
            Text(name="title", buckets=1, width=1),
            Number(name="year", mean=0, deviation=1),
            Multi(name="tags", values=(), width=1),
        )
    )

    assert default_kinds(fields) == {"genre": "tags", "year": "number", "tags": "tags"}


@pytest.mark.parametrize("value", [1.5, True, {"a": 1}, ["a", None], ["a", 2.0], [["a"]]])
def test_what_is_no_tag_is_refused_and_the_attribute_named(value: object) -> None:
    with pytest.raises(FeatureError, match="attribute 'genres': expected a string, an integer"):
        tags_of("genres", value)
    with pytest.raises(FeatureError, match="attribute 'genres'"):
        Attributes(kinds={"genres": "tags"}).check({"genres": value})


@pytest.mark.parametrize("value", ["1999", True, math.nan, math.inf, 10**400, [1]])
def test_what_is_no_number_is_refused_and_the_attribute_named(value: object) -> None:
    with pytest.raises(FeatureError, match="attribute 'year': expected a finite number, found"):
        number_of("year", value)
    with pytest.raises(FeatureError, match="attribute 'year'"):
        Attributes(kinds={"year": "number"}).check({"year": value})
