"""What people call the items: a title and a category of each, out of the raw feature columns."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from contract.arrays import I64
from offline.data.dataset import Dataset

TITLES = ("title", "name")
MOST_CATEGORIES = 50
GROUPS = 7
"""More colours than these are not told apart."""
REST = "other"


@dataclass(frozen=True)
class Labels:
    titles: Sequence[str]
    groups: Sequence[str]
    """The largest categories of the candidates, then the rest of them."""
    group: Sequence[int]
    """Of each item, a position in `groups`."""
    column: str
    """Where the categories come from; empty where no column has any."""


def label(dataset: Dataset, candidates: I64) -> Labels:
    """The category is the first value of the first column of strings or lists that has few."""
    column, values = _categories(dataset.attributes)
    counts = Counter(values[row] for row in candidates.tolist() if values[row])
    groups = [name for name, _ in counts.most_common(GROUPS)]
    place = {name: n for n, name in enumerate(groups)}
    return Labels(
        titles=_titles(dataset),
        groups=[*groups, REST],
        group=[place.get(value or "", len(groups)) for value in values],
        column=column,
    )


def _titles(dataset: Dataset) -> list[str]:
    """The item id where there is no title."""
    named = next((name for name in TITLES if name in dataset.attributes.columns), None)
    if named is None:
        return dataset.item_ids
    values = dataset.attributes[named].cast(pl.String).to_list()
    return [value or key for value, key in zip(values, dataset.item_ids, strict=True)]


def _categories(attributes: pl.DataFrame) -> tuple[str, list[str | None]]:
    for name, kind in attributes.schema.items():
        if kind == pl.String:
            first = attributes[name].str.split("|").list.first()
        elif kind == pl.List(pl.String):
            first = attributes[name].list.first()
        else:
            continue
        if 2 <= first.drop_nulls().n_unique() <= MOST_CATEGORIES:
            return name, first.to_list()
    return "", [None] * len(attributes)
