from typing import get_args

import numpy as np
import pytest

from contract.errors import FeatureError
from contract.features import (
    KINDS,
    MAX_MULTI,
    Category,
    Fields,
    Kind,
    Multi,
    Number,
    Schema,
    Text,
    Vector,
)

TITLES = ["The Silent Nebula 7", "Golden Broth", None]


def fields() -> Fields:
    """One field of every kind, fitted on two items."""
    return Fields(
        fields=(
            Category.fit("colour", ["red", "blue", "red"]),
            Number.fit("price", [1.0, 3.0]),
            Multi.fit("tags", [["a", "b"], ["b"]]),
            Vector.fit("image", [[0.5, 0.25]]),
            Text.fit("title", TITLES),
        )
    )


def test_every_kind_of_the_literal_has_a_class_of_that_kind() -> None:
    assert tuple(KINDS) == get_args(Kind)
    for kind, cls in KINDS.items():
        assert cls.model_fields["kind"].default == kind


def test_category_codes_go_by_frequency_and_an_unknown_or_missing_value_is_zero() -> None:
    field = Category.fit("colour", ["red", "blue", None, "blue", "", "green"])

    assert field.values == ("blue", "green", "red")
    assert field.size == 4
    codes = field.encode(["red", "blue", "purple", None, "", "green"])
    assert codes.tolist() == [[3], [1], [0], [0], [0], [2]]
    assert codes.dtype == np.int32


def test_an_integer_category_is_the_string_of_it() -> None:
    field = Category.fit("year", [1999, 2001, 1999])

    assert field.encode([2001, "1999"]).tolist() == [[2], [1]]


def test_multi_takes_lists_and_strings_with_bars_and_pads_with_zeros() -> None:
    field = Multi.fit("tags", [["b", "a", "c"], "a|b", None, ["a"], []])

    assert field.values == ("a", "b", "c")
    assert field.width == 3
    values = ["c|a", ["b"], ("a", ""), ["new", "c"], None, "", ["a", "b", "c", "a"]]
    assert field.encode(values).tolist() == [
        [3, 1, 0],
        [2, 0, 0],
        [1, 0, 0],
        [3, 0, 0],
        [0, 0, 0],
        [0, 0, 0],
        [1, 2, 3],
    ]


def test_multi_is_never_wider_than_its_limit() -> None:
    field = Multi.fit("tags", [[str(n) for n in range(100)]])

    assert field.width == MAX_MULTI
    assert field.encode([[str(n) for n in range(100)]]).shape == (1, MAX_MULTI)


def test_number_is_standardised_clipped_and_marked_as_present() -> None:
    field = Number.fit("price", [1, 3.0, None])

    assert (field.mean, field.deviation) == (2.0, 1.0)
    numbers = field.encode([2.5, None, 1000, -1000, 2])
    assert numbers.tolist() == [[0.5, 1.0], [0.0, 0.0], [10.0, 1.0], [-10.0, 1.0], [0.0, 1.0]]
    assert numbers.dtype == np.float32


@pytest.mark.parametrize("values", [[], [None], [5.0], [5, 5, 5]])
def test_number_that_does_not_vary_has_a_deviation_of_one(values: list[object]) -> None:
    assert Number.fit("price", values).deviation == 1.0


def test_text_is_hashed_into_the_codes_that_bundles_were_trained_with() -> None:
    # Literal codes: a change of the hash, the n-grams or their order would silently break every
    # published text feature.
    field = Text(name="title", buckets=1024, width=12)

    golden = [267, 48, 735, 238, 52, 487, 283, 611, 647, 194, 236, 982]

    codes = field.encode(["The Silent Nebula 7", "the  SILENT nebula, 7!", None])

    assert codes.tolist() == [golden, golden, [0] * 12]


def test_text_is_words_and_then_the_trigrams_of_each() -> None:
    field = Text.fit("title", TITLES)

    assert field.grams("Ab, abc ab") == ["#ab#", "#abc#", "#ab", "ab#", "abc", "bc#"]
    assert field.grams(None) == []
    assert field.width == len(field.grams("The Silent Nebula 7")) == 19
    assert field.size == field.buckets + 1 == 1025


def test_text_of_unknown_words_is_encoded_by_its_trigrams() -> None:
    field = Text.fit("title", TITLES)
    known, near, other = (set(field.encode([t])[0]) - {0} for t in ("nebula", "nebulas", "xyzzy"))

    assert len(known & near) == 5
    assert not known & other


def test_vector_is_given_through_and_zeros_where_missing() -> None:
    field = Vector.fit("image", [None, [0.5, 2]])

    numbers = field.encode([[1.5, -2], None, (0, 0.25)])
    assert numbers.tolist() == [[1.5, -2.0], [0.0, 0.0], [0.0, 0.25]]
    assert numbers.dtype == np.float32


def test_vector_needs_one_example() -> None:
    with pytest.raises(FeatureError, match="feature 'image': expected lists of numbers, found No"):
        Vector.fit("image", [None])


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("colour", 1.5, "expected a string or an integer, found float 1.5"),
        ("colour", True, "expected a string or an integer, found bool True"),
        ("colour", ["red"], r"expected a string or an integer, found list \['red'\]"),
        ("price", "3", "expected a number, found str '3'"),
        ("price", True, "expected a number, found bool True"),
        ("price", float("nan"), "expected a finite number, found float nan"),
        ("price", float("-inf"), "expected a finite number, found float -inf"),
        ("price", 1e39, r"expected a finite number, found float 1e\+39"),
        ("price", 10**400, "expected a finite number, found int 1000"),
        ("tags", 3, "expected a list of strings, found int 3"),
        ("tags", ["a", None], "expected a list of strings, found list"),
        ("tags", {"a": 1}, "expected a list of strings, found dict"),
        ("title", 7, "expected a string, found int 7"),
        ("title", ["x"], "expected a string, found list"),
        ("image", [1.0], r"expected a list of 2 finite numbers, found list \[1.0\]"),
        ("image", [1.0, "2"], "expected a list of 2 finite numbers"),
        ("image", [1.0, float("inf")], "expected a list of 2 finite numbers"),
        ("image", [1.0, 10**400], "expected a list of 2 finite numbers"),
        ("image", [1.0, True], "expected a list of 2 finite numbers"),
        ("image", "12", "expected a list of 2 finite numbers, found str '12'"),
    ],
)
def test_a_value_of_the_wrong_type_names_the_field(name: str, value: object, words: str) -> None:
    with pytest.raises(FeatureError, match=f"^feature '{name}': {words}"):
        fields().encode([{name: value}])


def test_a_long_wrong_value_is_cut_in_the_message() -> None:
    with pytest.raises(FeatureError) as caught:
        fields().encode([{"price": "9" * 1000}])

    assert str(caught.value).endswith("99...")
    assert len(str(caught.value)) < 150


def test_an_unknown_name_is_refused_with_a_hint() -> None:
    with pytest.raises(FeatureError) as caught:
        fields().encode([{"colour": "red"}, {"color": "red"}])

    assert str(caught.value) == (
        "feature 'color': not in the schema; known are colour, image, price, tags, title; "
        "did you mean 'colour'?"
    )


def test_a_schema_without_features_says_so() -> None:
    with pytest.raises(FeatureError, match=r"feature 'x': not in the schema; known are none$"):
        Fields().encode([{"x": 1}])
    codes, numbers = Fields().encode([{}, {}])
    assert (codes.shape, numbers.shape) == ((2, 0), (2, 0))


def test_fields_lie_side_by_side_codes_and_numbers_apart() -> None:
    found = fields()
    row = {"colour": "blue", "price": 3.0, "tags": ["b"], "image": [0.5, 0.25]}

    codes, numbers = found.encode([row, {}])

    assert [tuple(b) for b in found.blocks] == [(0, 1, 3), (1, 2, 3), (3, 19, 1025)]
    assert (found.code_width, found.number_width) == (22, 4)
    assert codes[0].tolist() == [2, 1] + [0] * 20
    assert numbers[0].tolist() == [1.0, 1.0, 0.5, 0.25]
    assert not codes[1].any()
    assert not numbers[1].any()
    assert found.block("tags") == found.blocks[1]
    assert found.block("price") is None
    assert found.field("price") == found.fields[1]
    assert found.field("prize") is None


def test_columns_are_encoded_as_rows_are() -> None:
    by_rows = fields().encode([{"colour": "red", "title": "Golden Nebula"}, {"price": 2.0}])
    by_columns = fields().encode_columns(
        {"colour": ["red", None], "title": ["Golden Nebula", None], "price": [None, 2.0]}, 2
    )

    np.testing.assert_array_equal(by_rows.codes, by_columns.codes)
    np.testing.assert_array_equal(by_rows.numbers, by_columns.numbers)


def test_a_schema_survives_json_and_encodes_the_same() -> None:
    schema = Schema(users=Fields(), items=fields(), history_length=5)
    rows = [{"colour": "red", "price": 0.1, "tags": "a", "image": [1, 2], "title": "Golden 7"}]
    before = schema.items.encode(rows)

    again = Schema.model_validate_json(schema.model_dump_json())

    assert again == schema
    assert again.items.blocks == schema.items.blocks
    np.testing.assert_array_equal(again.items.encode(rows).codes, before.codes)
    np.testing.assert_array_equal(again.items.encode(rows).numbers, before.numbers)
