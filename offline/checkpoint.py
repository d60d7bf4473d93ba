"""The state of a training between two epochs: enough to go on as if it had never stopped."""

import copy
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from contract.errors import RecipeError
from offline.data.dataset import Dataset
from offline.optimizer import Optimizer
from offline.recipe import Recipe


class Epoch(NamedTuple):
    epoch: int
    loss: float
    score: float
    """The validation metric that training watches."""
    seconds: float


@dataclass
class State:
    origin: str
    module: nn.Module
    optimizer: Optimizer
    best: dict[str, Any]
    """The weights after the best epoch so far."""
    history: list[Epoch] = field(default_factory=list)
    trained_seconds: float = 0.0

    def add(self, epoch: Epoch, trained: float) -> None:
        if all(epoch.score > earlier.score for earlier in self.history):
            self.best = copy.deepcopy(self.module.state_dict())
        self.history.append(epoch)
        self.trained_seconds += trained


def origin(recipe: Recipe, dataset: Dataset) -> str:
    """The same for the same recipe on the same data, and for no others."""
    digest = hashlib.sha256(recipe.model_dump_json().encode())
    for array in (*dataset.sequences, *dataset.items, *dataset.users):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def save(path: Path, state: State) -> None:
    """Replaced atomically: whenever it is stopped, the file is that of a whole epoch."""
    staged = path.with_name(f".{path.name}.staging")
    with staged.open("wb") as file:
        torch.save(
            {
                "origin": state.origin,
                "weights": state.module.state_dict(),
                "best": state.best,
                "optimizer": state.optimizer.state_dict(),
                "history": [tuple(epoch) for epoch in state.history],
                "trained_seconds": state.trained_seconds,
            },
            file,
        )
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)


def restore(path: Path, state: State) -> None:
    """Bring `state` to where the file is; a file that is not there leaves it as it is.

    Raises RecipeError when the file is of another recipe or other data, or damaged.
    """
    if not path.exists():
        return
    saved = _read(path)
    if saved["origin"] != state.origin:
        raise RecipeError(
            f"{path}: of another recipe or other data; resume with the same recipe, --set and "
            "--data, or delete it"
        )
    state.module.load_state_dict(saved["weights"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.best = saved["best"]
    state.history = [Epoch(*epoch) for epoch in saved["history"]]
    state.trained_seconds = saved["trained_seconds"]


def _read(path: Path) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (EOFError, RuntimeError, UnpicklingError) as error:
        first = str(error).partition("\n")[0]
        raise RecipeError(f"{path}: damaged ({first}); delete it and train anew") from error
    return saved
