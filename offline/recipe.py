"""A recipe: everything that decides what a training run produces, read from one TOML file."""

import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.attributes import AttributeKind
from contract.errors import RecipeError
from contract.features import Kind
from contract.kinds import HISTORY, Histories, Kinds
from contract.popularity import Popularity


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Features(_Part):
    """Column of the users or items table -> kind. The ids need no line: every user and item has
    one, and the model's parameters say how wide its embedding is."""

    users: dict[str, Kind] = {}
    items: dict[str, Kind] = {}


class Training(_Part):
    """How the model is fitted: AdamW with a short warm-up and a cosine decay, stopped early on a
    validation metric."""

    epochs: int = Field(default=20, ge=1)
    batch: int = Field(default=4096, ge=2)
    """Samples of a step, at most: the positions of all its sequences."""
    length: int = Field(default=0, ge=0, le=1000)
    """Samples of a sequence that are trained in one piece; 0: as many as the history is long."""
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=5.0, gt=0)
    """Largest L2 norm of a step's gradient."""
    patience: int = Field(default=3, ge=1)
    """Epochs without a better validation metric before training stops."""
    watch: str = Field(default="HR@10", pattern=r"^(HR|NDCG|MRR)@[1-9][0-9]*$")
    """The validation metric."""


class Recipe(_Part):
    model: str
    features: Features = Features()
    events: Kinds = Kinds()
    """Kind of event -> what it counts as; both, where it is not named."""
    histories: Histories = ()
    """Kinds of events that the model also reads by themselves, beside all together."""
    attributes: dict[str, AttributeKind] | None = None
    """Column of the items table -> kind: what requests may filter by. None: every category, multi
    and number feature of the items."""
    history_length: int = Field(default=50, ge=1, le=1000)
    parameters: dict[str, Any] = {}
    """Arguments of the model's constructor."""
    objective: str = "softmax"
    objective_parameters: dict[str, Any] = {}
    negatives: str = "in_batch"
    negatives_parameters: dict[str, Any] = {}
    training: Training = Training()
    popularity: Popularity = Popularity()
    seed: int = Field(default=1, ge=0)
    expect: dict[str, float] = {}
    """Metric -> the figure that a run of this recipe must reach on its data set."""


def read_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `key=value` changes; `a.b=1` reaches into a section.

    Raises RecipeError for a file that is not TOML, an unknown key or a value out of range.
    """
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe; see the recipes folder") from None
    except OSError as error:
        raise RecipeError(
            f"{path}: cannot be read ({error.strerror}); give a .toml file"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not a TOML file: {error}") from error
    for change in changes:
        _apply(document, change)
    return parse_recipe(document, str(path))


def parse_recipe(document: Mapping[str, Any], name: str) -> Recipe:
    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise RecipeError(f"{name}: {_explain(first['loc'], first)}") from error
    for kind in recipe.histories:
        if not recipe.events.flags(kind) & HISTORY:
            raise RecipeError(
                f"{name}: histories has '{kind}', whose events do not count as history; change "
                f"events.{kind} or take it out of histories"
            )
    segment, users = recipe.popularity.segment, recipe.features.users
    if segment is not None and users.get(segment) != "category":
        known = ", ".join(n for n, kind in users.items() if kind == "category") or "none"
        raise RecipeError(
            f"{name}: popularity.segment is '{segment}', expected a category feature of users "
            f"(known: {known})"
        )
    return recipe


def _apply(document: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {change}: expected key=value, as in training.epochs=5")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *sections, last = key.strip().split(".")
    for section in sections:
        document = document.setdefault(section, {})
        if not isinstance(document, dict):
            raise RecipeError(f"--set {change}: '{section}' is not a section of the recipe")
    document[last] = value


def _explain(location: tuple[int | str, ...], first: Mapping[str, Any]) -> str:
    key = ".".join(map(str, location))
    if first["type"] == "missing":
        return f"key '{key}' is missing; add it"
    if first["type"] != "extra_forbidden":
        return f"{key}: {first['msg'].lower()}, found {first.get('input')!r}"
    parts: dict[str, type[BaseModel]] = {
        "features": Features,
        "training": Training,
        "popularity": Popularity,
    }
    part = parts.get(str(location[0]), Recipe) if len(location) > 1 else Recipe
    near = get_close_matches(str(location[-1]), part.model_fields, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"unknown key '{key}'{hint} (known: {', '.join(part.model_fields)})"
