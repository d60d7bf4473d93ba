from dataclasses import replace

import numpy as np
import polars as pl

from offline.data.dataset import Dataset
from offline.labels import Labels, label


def labelled(dataset: Dataset, columns: dict[str, list[object]]) -> Labels:
    frame = pl.DataFrame(columns, strict=False)
    ids = [f"i{n}" for n in range(len(frame))]
    return label(replace(dataset, item_ids=ids, attributes=frame), np.arange(len(frame)))


def test_titles_fall_back_to_the_item_id(dataset: Dataset) -> None:
    found = labelled(dataset, {"year": [1999, 2000], "title": ["Heat", None]})

    assert found.titles == ["Heat", "i1"]
    assert labelled(dataset, {"year": [1, 2]}).titles == ["i0", "i1"]


def test_the_category_is_the_first_value_of_a_column_with_few(dataset: Dataset) -> None:
    titles: list[object] = [f"title {n}" for n in range(60)]
    genres: list[object] = [["Drama", "War"], ["Comedy"], [], None, ["Drama"]] * 12

    found = labelled(dataset, {"title": titles, "genres": genres})

    assert found.column == "genres"
    assert found.groups == ["Drama", "Comedy", "other"]
    assert found.group[:5] == [0, 1, 2, 2, 0]


def test_values_in_one_string_are_split(dataset: Dataset) -> None:
    found = labelled(dataset, {"tags": ["a|b", "b|a", "b", "b"]})

    assert (found.column, found.groups, found.group) == ("tags", ["b", "a", "other"], [1, 0, 0, 0])


def test_only_the_largest_categories_have_a_group_of_their_own(dataset: Dataset) -> None:
    found = labelled(dataset, {"kind": [f"k{n}" for n in range(10) for _ in range(10 - n)]})

    assert found.groups == [*(f"k{n}" for n in range(7)), "other"]
    assert found.group[-6:] == [7] * 6


def test_items_without_a_category_are_all_in_one_group(dataset: Dataset) -> None:
    found = labelled(dataset, {"year": [1, 2, 3], "same": ["x", "x", None]})

    assert (found.column, found.groups, found.group) == ("", ["other"], [0, 0, 0])
