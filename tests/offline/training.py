"""Small trainings, and ways to look at what came out."""

import inspect
from typing import Any, cast

import numpy as np
from torch import nn

from contract.arrays import F32
from offline.data.dataset import Dataset
from offline.models import MODELS
from offline.models.base import Retriever
from offline.recipe import Recipe, parse_recipe
from offline.train import Trained, train


def changed(recipe: Recipe, **sections: Any) -> Recipe:
    """The recipe with other values in its sections."""
    document = recipe.model_dump()
    for name, value in sections.items():
        document[name] = document[name] | value if isinstance(value, dict) else value
    return parse_recipe(document, "changed")


SMALL = {
    "dim": 16,
    "history_dim": 12,
    "user_identity_dim": 8,
    "item_identity_dim": 16,
    "field_dim": 8,
    "hidden": 32,
}


def of_model(recipe: Recipe, model: str, **parameters: Any) -> Recipe:
    """The recipe for another model: a small one, with these parameters."""
    known = inspect.signature(MODELS[model]).parameters
    small = {name: value for name, value in SMALL.items() if name in known}
    return recipe.model_copy(update={"model": model, "parameters": small | parameters})


def trained(recipe: Recipe, dataset: Dataset) -> Trained:
    return train(recipe, dataset, "cpu", lambda epoch: None)


def weights(model: Retriever) -> dict[str, F32]:
    state = cast(nn.Module, model).state_dict()
    return {name: tensor.numpy() for name, tensor in state.items()}


def assert_same(found: Trained, wanted: Trained) -> None:
    """Bit for bit, and by way of the same epochs."""
    assert [e[:3] for e in found.history] == [e[:3] for e in wanted.history]
    ours, theirs = weights(found.model), weights(wanted.model)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not np.array_equal(ours[name], theirs[name])] == []


def other_value(default: object) -> object:
    """Of a parameter, and not its default."""
    if isinstance(default, bool):
        return not default
    return 0.37 if isinstance(default, float) else 7
