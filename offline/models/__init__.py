"""The table of models. A new one is one file here and one line in MODELS."""

import inspect
import math
from collections.abc import Callable
from typing import Any, cast

from contract.errors import RecipeError
from contract.features import Schema
from offline.models.base import Retriever
from offline.models.cadence import Cadence
from offline.models.cdssm import Cdssm
from offline.models.comirec_dr import ComirecDr
from offline.models.comirec_sa import ComirecSa
from offline.models.dssm import Dssm
from offline.models.facebook_dssm import FacebookDssm
from offline.models.gru4rec import Gru4Rec
from offline.models.item2vec import Item2vec
from offline.models.mind import Mind
from offline.models.narm import Narm
from offline.models.node2vec import Node2vec
from offline.models.sasrec import Sasrec
from offline.models.sine import Sine
from offline.models.stamp import Stamp
from offline.models.youtube_dnn import YoutubeDnn
from offline.models.youtube_sbc import YoutubeSbc

MODELS: dict[str, type] = {
    "dssm": Dssm,
    "facebook_dssm": FacebookDssm,
    "cdssm": Cdssm,
    "youtube_dnn": YoutubeDnn,
    "youtube_sbc": YoutubeSbc,
    "item2vec": Item2vec,
    "node2vec": Node2vec,
    "sasrec": Sasrec,
    "cadence": Cadence,
    "gru4rec": Gru4Rec,
    "narm": Narm,
    "stamp": Stamp,
    "sine": Sine,
    "mind": Mind,
    "comirec_dr": ComirecDr,
    "comirec_sa": ComirecSa,
}

DATA_PARAMETERS = frozenset(
    {"users", "items", "user_blocks", "item_blocks", "user_numbers", "item_numbers"}
    | {"history_length", "histories"}
)
"""Constructor arguments that come from the data, never from a recipe."""


RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "dropout": (lambda value: 0 <= value < 1, "0 or more and below 1"),
    "id_dropout": (lambda value: 0 <= value <= 1, "0 to 1"),
    "temperature": (lambda value: 0 < value < math.inf, "above 0"),
}
"""Parameters of every model or objective that has them -> what they must be, and in words."""


def create_model(
    name: str, schema: Schema, users: int, items: int, parameters: dict[str, Any]
) -> Retriever:
    """The model of that name for U users and N items.

    Raises RecipeError for an unknown model or parameter, and for a value that it cannot have.
    """
    if name not in MODELS:
        raise RecipeError(f"model '{name}': unknown; known are {', '.join(MODELS)}")
    check_parameters(f"model '{name}'", MODELS[name], parameters, DATA_PARAMETERS)
    histories = {"histories": len(schema.histories)} if reads_several(name) else {}
    if schema.histories and not histories:
        able = ", ".join(filter(reads_several, MODELS))
        raise RecipeError(
            f"model '{name}': reads one history, the recipe has more "
            f"({', '.join(schema.histories)}); leave histories out or take {able}"
        )
    try:
        model = MODELS[name](
            users=users,
            items=items,
            user_blocks=schema.users.blocks,
            item_blocks=schema.items.blocks,
            user_numbers=schema.users.number_width,
            item_numbers=schema.items.number_width,
            history_length=schema.history_length,
            **histories,
            **parameters,
        )
    except (ValueError, RuntimeError) as error:  # torch's words for an impossible size or rate
        raise RecipeError(f"model '{name}': {error}; change [parameters]") from error
    return cast(Retriever, model)


def reads_several(name: str) -> bool:
    """Whether the model tells several histories of a user apart."""
    return "histories" in inspect.signature(MODELS[name]).parameters


def check_parameters(
    owner: str, target: Any, parameters: dict[str, Any], hidden: frozenset[str] = frozenset()
) -> None:
    """Raises RecipeError when `target` does not take one of the parameters, or not of that type, or
    one is out of range: a whole number counts something, so it is 1 at least."""
    known = {n: p for n, p in inspect.signature(target).parameters.items() if n not in hidden}
    for name, value in parameters.items():
        if name not in known:
            raise RecipeError(f"{owner}: unknown parameter '{name}'; known are {', '.join(known)}")
        wanted = type(known[name].default)
        # Not isinstance: True is no dimension.
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise RecipeError(
                f"{owner}: parameter '{name}' expected {wanted.__name__}, found {value!r}"
            )
        least = 0 if name.endswith("identity_dim") else 1  # without ids there is still content
        if wanted is int and value < least:
            raise RecipeError(f"{owner}: {name} is {value}, expected at least {least}; change it")
        holds, words = RANGES.get(name, (math.isfinite, "a finite number"))
        if wanted is float and not holds(value):
            raise RecipeError(f"{owner}: {name} is {value}, expected {words}; change it")
