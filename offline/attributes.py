"""What requests may filter by: columns of the items table, by the recipe or by default."""

from typing import Any

import numpy.typing as npt

from contract.attributes import Attributes, default_kinds, index_attributes
from contract.errors import DataError, FeatureError
from offline.data.dataset import Dataset
from offline.recipe import Recipe


def index(recipe: Recipe, dataset: Dataset) -> tuple[Attributes, dict[str, npt.NDArray[Any]]]:
    """The attributes of all items as a bundle stores them, and their description. Raises DataError
    where the items table has no such column, or values of another kind."""
    kinds, table = recipe.attributes, dataset.attributes
    if kinds is None:
        kinds = default_kinds(dataset.schema.items)
    for name in kinds:
        if name not in table.columns:
            raise DataError(
                f"items: the recipe names attribute '{name}', the table has "
                f"{', '.join(table.columns) or 'no features'}; change [attributes] in the recipe "
                "or the table"
            )
    columns = {name: table[name].to_list() for name in kinds}
    try:
        return index_attributes(kinds, columns, len(table))
    except FeatureError as error:
        raise DataError(f"items: {error}; give it another kind in [attributes]") from error
