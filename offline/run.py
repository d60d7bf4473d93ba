"""A run: the directory of one trained model, complete in itself. What evaluates or publishes it
later needs neither the tables nor the recipe file."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from contract.errors import RecipeError
from contract.features import Encoded, Schema
from offline.checkpoint import Epoch
from offline.data.dataset import Dataset, Touched
from offline.models import create_model
from offline.models.base import Retriever
from offline.recipe import Recipe

DESCRIPTION, WEIGHTS = "run.json", "model.pt"
# What numpy, polars and torch raise for a file that is missing, cut short or of another shape.
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    UnpicklingError,
    pl.exceptions.PolarsError,
)


class Description(BaseModel):
    """`run.json`: how the model came about and what it measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Recipe
    features: Schema
    seq: int
    integer_ids: frozenset[str] = frozenset()
    epochs: tuple[Epoch, ...]
    samples_per_second: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Run:
    path: Path
    description: Description
    dataset: Dataset
    model: Retriever


def save_run(path: Path, description: Description, dataset: Dataset, model: Retriever) -> Run:
    """Write a run to `path`, all at once; a run that was there is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        _write_dataset(staged, dataset)
        torch.save(cast(nn.Module, model).state_dict(), staged / WEIGHTS)
        (staged / DESCRIPTION).write_text(description.model_dump_json(indent=2))
        staged.chmod(0o755)
        require_replaceable(path)
        if path.exists():
            shutil.rmtree(path)
        staged.rename(path)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    return Run(path, description, dataset, model)


def require_replaceable(path: Path) -> None:
    """Raises RecipeError where something is at `path` that is neither a run nor empty."""
    if not path.exists() or (path / DESCRIPTION).is_file():
        return
    if not path.is_dir() or any(path.iterdir()):
        raise RecipeError(
            f"{path}: is there and not a run (no {DESCRIPTION}), so it is not replaced; give "
            "another --out or move it away"
        )


def load_run(path: Path) -> Run:
    """Raises RecipeError when the directory holds no complete run."""
    _require_run(path)
    try:
        return _read_run(path)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise RecipeError(f"{path / DESCRIPTION}: {message}; train again") from error
    except UNREADABLE as error:
        first = str(error).partition("\n")[0]
        raise RecipeError(f"{path}: incomplete or damaged ({first}); train again") from error


def _read_run(path: Path) -> Run:
    description = Description.model_validate_json((path / DESCRIPTION).read_bytes())
    dataset = _read_dataset(path, description)
    recipe = description.recipe
    model = create_model(
        recipe.model,
        dataset.schema,
        len(dataset.user_ids),
        len(dataset.item_ids),
        recipe.parameters,
    )
    module = cast(nn.Module, model)
    module.load_state_dict(torch.load(path / WEIGHTS, weights_only=True, map_location="cpu"))
    module.eval()
    return Run(path, description, dataset, model)


def _require_run(path: Path) -> None:
    if not (path / DESCRIPTION).is_file():
        raise RecipeError(f"{path}: not a run (no {DESCRIPTION}); train one with 'tandem train'")


ARRAYS = (
    "offsets",
    "items",
    "flags",
    "times",
    "item_codes",
    "item_numbers",
    "user_codes",
    "user_numbers",
    "states",
)


def _write_dataset(directory: Path, dataset: Dataset) -> None:
    arrays: tuple[npt.NDArray[Any], ...] = (
        *dataset.touched,
        *dataset.items,
        *dataset.users,
        dataset.states,
    )
    for name, array in zip(ARRAYS, arrays, strict=True):
        np.save(directory / f"{name}.npy", array, allow_pickle=False)
    items = pl.Series("item_id", dataset.item_ids, dtype=pl.String)
    pl.concat([items.to_frame(), dataset.attributes], how="horizontal").write_parquet(
        directory / "items.parquet"
    )
    users = pl.Series("user_id", dataset.user_ids, dtype=pl.String)
    users.to_frame().write_parquet(directory / "users.parquet")


def _read_dataset(directory: Path, description: Description) -> Dataset:
    arrays: dict[str, Any] = {
        name: np.load(directory / f"{name}.npy", allow_pickle=False) for name in ARRAYS
    }
    items = pl.read_parquet(directory / "items.parquet")
    touched = Touched(*(arrays[name] for name in ("offsets", "items", "flags", "times")))
    return Dataset(
        item_ids=items["item_id"].to_list(),
        user_ids=pl.read_parquet(directory / "users.parquet")["user_id"].to_list(),
        items=Encoded(arrays["item_codes"], arrays["item_numbers"]),
        users=Encoded(arrays["user_codes"], arrays["user_numbers"]),
        touched=touched,
        sequences=touched.history(),
        schema=description.features,
        attributes=items.drop("item_id"),
        states=arrays["states"],
        seq=description.seq,
        integer_ids=description.integer_ids,
    )
