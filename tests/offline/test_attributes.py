"""What a recipe declares to be filtered by, against the items table."""

import pytest

from contract.attributes import Postings
from contract.errors import DataError, RecipeError
from offline import attributes
from offline.data.dataset import Dataset
from offline.recipe import Recipe, parse_recipe


def declared(recipe: Recipe, kinds: dict[str, str] | None) -> Recipe:
    document = recipe.model_dump() | {"attributes": kinds}
    return parse_recipe(document, "the recipe of this test")


def test_without_a_section_the_features_are_what_can_be_filtered_by(
    recipe: Recipe, dataset: Dataset
) -> None:
    described, arrays = attributes.index(recipe, dataset)

    wanted = {"category": "tags", "tags": "tags", "year": "number", "price": "number"}
    assert described.kinds == wanted
    table = dataset.attributes
    found = Postings(described, arrays)
    for tag in ("classic", "space"):
        rows = [row for row, tags in enumerate(table["tags"].to_list()) if tag in tags]
        assert rows
        assert found.tagged("tags", tag).tolist() == rows
    years = table["year"].to_list()
    since = found.between("year", 2000, 2100).tolist()
    assert sorted(since) == [row for row, year in enumerate(years) if year >= 2000]


def test_a_section_declares_any_column_and_an_empty_one_declares_none(
    recipe: Recipe, dataset: Dataset
) -> None:
    described, arrays = attributes.index(declared(recipe, {"title": "tags"}), dataset)
    nothing, _ = attributes.index(declared(recipe, {}), dataset)

    title = dataset.attributes["title"][7]
    assert Postings(described, arrays).tagged("title", title).tolist() == [7]
    assert nothing.kinds == {}


def test_a_column_that_is_not_there_or_of_another_kind_is_named(
    recipe: Recipe, dataset: Dataset
) -> None:
    with pytest.raises(DataError, match="names attribute 'colour', the table has title, category"):
        attributes.index(declared(recipe, {"colour": "tags"}), dataset)
    with pytest.raises(DataError, match="items: attribute 'title': expected a finite number"):
        attributes.index(declared(recipe, {"title": "number"}), dataset)
    with pytest.raises(RecipeError, match=r"attributes\.year"):
        declared(recipe, {"year": "numbers"})
