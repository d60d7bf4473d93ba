"""Conditions as JSON and as text: what they mean, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest

from contract.attributes import Attributes
from contract.errors import MalformedRequest
from service.conditions import AnyOf, Condition, Within, count_values, from_json, from_text

ATTRIBUTES = Attributes(kinds={"genres": "tags", "year": "number", "shelf": "tags"})


@pytest.mark.parametrize(
    ("text", "filters", "condition"),
    [
        ("genres=Drama", {"genres": "Drama"}, AnyOf("genres", ("Drama",))),
        ("genres=Drama|War", {"genres": ["Drama", "War"]}, AnyOf("genres", ("Drama", "War"))),
        ("genres=a=b>c", {"genres": "a=b>c"}, AnyOf("genres", ("a=b>c",))),
        ("shelf=7", {"shelf": 7}, AnyOf("shelf", ("7",))),
        ("year=1999", {"year": 1999}, Within("year", ((1999, 1999),))),
        ("year=1|2.5", {"year": [1, 2.5]}, Within("year", ((1, 1), (2.5, 2.5)))),
        ("year>=1990", {"year": {"gte": 1990}}, Within("year", ((1990, math.inf),))),
        ("year<=1e3", {"year": {"lte": 1000}}, Within("year", ((-math.inf, 1000),))),
    ],
)
def test_a_text_and_an_object_say_the_same(
    text: str, filters: dict[str, Any], condition: Condition
) -> None:
    assert from_text([text], ATTRIBUTES) == from_json(filters, ATTRIBUTES) == (condition,)


def test_an_open_bound_leaves_its_number_out_and_nothing_else() -> None:
    (condition,) = from_json({"year": {"gt": 1990, "lt": 2000, "gte": 0, "lte": 3000}}, ATTRIBUTES)
    assert from_text(["year>1990", "year<2000"], ATTRIBUTES) != (condition,)
    numbers = np.array([1990, math.nextafter(1990, 2000), 1995, math.nextafter(2000, 0), 2000])

    assert isinstance(condition, Within)
    assert condition.holds(numbers).tolist() == [False, True, True, True, False]
    assert condition.holds(np.array([math.nan, -math.inf, math.inf])).sum() == 0


def test_values_are_counted_over_all_conditions() -> None:
    filters = {"genres": ["a", "b"], "year": [1, 2, 3], "shelf": "x"}

    assert count_values(from_json(filters, ATTRIBUTES)) == 6


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (
            {"yaer": 1999},
            "filters.yaer: no such attribute; known are genres, year, shelf; did you mean 'year'?",
        ),
        ({"genres": 1.5}, "filters.genres: expected a string or an integer, found float 1.5"),
        ({"genres": ["a", None]}, "filters.genres: expected a string or an integer, found NoneT"),
        ({"genres": True}, "filters.genres: expected a string or an integer, found bool True"),
        ({"genres": []}, "filters.genres: expected at least one value, found an empty list"),
        ({"genres": {"gte": 1}}, "filters.genres: bounds are for numbers, these are tags"),
        ({"year": "1999"}, "filters.year: expected a finite number, found str '1999'"),
        ({"year": [1999, "x" * 99]}, "filters.year: expected a finite number, found str 'xxx"),
        ({"year": 10**400}, "filters.year: expected a finite number, found int 1000"),
        ({"year": math.nan}, "filters.year: expected a finite number, found float nan"),
        ({"year": None}, "filters.year: expected a finite number, found NoneType None"),
        ({"year": {}}, "filters.year: expected bounds out of gte, gt, lte, lt, found none"),
        ({"year": {"ge": 1}}, "filters.year: expected bounds out of gte, gt, lte, lt, found ge"),
        ({"year": {"gte": "x"}}, "filters.year: expected a finite number, found str 'x'"),
    ],
)
def test_a_wrong_filter_is_refused_and_named(filters: dict[str, Any], message: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        from_json(filters, ATTRIBUTES)

    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("genres", "filter 'genres': expected name=value, name=value|value, or a number's bound"),
        ("=Drama", "filter '=Drama': expected name=value"),
        ("genres=", "filter 'genres=': expected name=value"),
        ("yaer=1999", "filters.yaer: no such attribute"),
        ("genres>=1", "filters.genres: bounds are for numbers"),
        ("year=soon", "filters.year: expected a finite number, found str 'soon'"),
        ("year=1999|", "filters.year: expected a finite number, found str ''"),
        ("year>=nan", "filters.year: expected a finite number, found float nan"),
        ("year<inf", "filters.year: expected a finite number, found float inf"),
    ],
)
def test_a_text_that_says_nothing_is_refused_and_shown(text: str, message: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        from_text([text], ATTRIBUTES)

    assert str(caught.value).startswith(message)
