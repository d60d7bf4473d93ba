"""One training loop for all models: fit, validate after each epoch, keep the best state."""

import copy
import math
import time
from collections.abc import Callable
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from contract.errors import RecipeError, TrainingError
from offline.batches import Batch, Samples
from offline.data.dataset import Dataset
from offline.evaluate import embed, ranks
from offline.models import check_parameters, create_model
from offline.models.base import Retriever
from offline.objectives import OBJECTIVES, Objective
from offline.progress import Progress
from offline.recipe import Recipe, Training


class Epoch(NamedTuple):
    epoch: int
    loss: float
    recall: float
    seconds: float


class Trained(NamedTuple):
    """A model in the state of its best epoch, and the story of all of them."""

    model: Retriever
    history: list[Epoch]
    samples_per_second: float


def create_objective(recipe: Recipe) -> Objective:
    if recipe.objective not in OBJECTIVES:
        known = ", ".join(OBJECTIVES)
        raise RecipeError(f"objective '{recipe.objective}': unknown; known are {known}")
    factory = OBJECTIVES[recipe.objective]
    check_parameters(f"objective '{recipe.objective}'", factory, recipe.objective_parameters)
    return factory(**recipe.objective_parameters)


def train(
    recipe: Recipe, dataset: Dataset, device: str, report: Callable[[Epoch], None]
) -> Trained:
    """Fit the recipe's model on the training part of the dataset, on the device of that torch name.

    The state with the best validation recall is restored at the end, on the CPU. Raises
    TrainingError when there is no such device, nothing to train on, or the loss or its gradient is
    no longer finite; RecipeError for a model, objective or parameter that there is not.
    """
    torch.manual_seed(recipe.seed)
    generator = np.random.default_rng(recipe.seed)
    settings = recipe.training
    model = create_model(
        recipe.model,
        dataset.schema,
        len(dataset.user_ids),
        len(dataset.item_ids),
        dict(recipe.parameters),
    )
    module = _placed(model, device)
    samples = Samples(dataset, dataset.split().train_end)
    step = _Step(model, create_objective(recipe), dataset, samples, settings)
    history: list[Epoch] = []
    best = copy.deepcopy(module.state_dict())
    trained_seconds = 0.0
    for epoch in range(1, settings.epochs + 1):
        started = time.perf_counter()
        loss = _epoch(step, samples, settings.batch, generator, f"epoch {epoch}/{settings.epochs}")
        trained_seconds += time.perf_counter() - started
        recall = _validate(model, dataset, settings.recall_at)
        history.append(Epoch(epoch, loss, recall, time.perf_counter() - started))
        report(history[-1])
        top = max(history, key=lambda e: e.recall)
        if top.epoch == epoch:
            best = copy.deepcopy(module.state_dict())
        elif epoch - top.epoch >= settings.patience:
            break
    module.load_state_dict(best)
    module.to("cpu").eval()
    return Trained(model, history, len(samples) * len(history) / trained_seconds)


def _placed(model: Retriever, device: str) -> nn.Module:
    try:
        return cast(nn.Module, model).to(device)
    except (RuntimeError, AssertionError) as error:  # as torch refuses, by the build
        reason = str(error).partition("\n")[0]
        raise TrainingError(f"device '{device}': {reason}; train on 'cpu'") from error


class _Step:
    """One optimiser step on one batch."""

    def __init__(
        self,
        model: Retriever,
        objective: Objective,
        dataset: Dataset,
        samples: Samples,
        settings: Training,
    ) -> None:
        self.model, self.objective = model, objective
        self.module = cast(nn.Module, model)
        self.id_dropout = float(getattr(model, "id_dropout", 0.0))
        self.device = model.item_identity.weight.device
        self.item_codes, self.item_numbers, self.user_codes, self.user_numbers = (
            torch.from_numpy(array).to(self.device) for array in (*dataset.items, *dataset.users)
        )
        counts = dataset.counts(dataset.split().train_end)
        log_q = np.log(np.maximum(counts, 1) / len(samples)).astype(np.float32)
        self.log_q = torch.from_numpy(log_q).to(self.device)
        self.optimizer = torch.optim.Adam(
            self.module.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.steps = math.ceil(len(samples) / settings.batch) * settings.epochs
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.clip = settings.clip

    def __call__(self, batch: Batch) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss(Batch(*(part.to(self.device) for part in batch)))
        torch.autograd.backward(loss)
        value = float(loss.detach())
        norm = float(nn.utils.clip_grad_norm_(self.module.parameters(), self.clip))
        # A gradient that is not finite spoils the weights one step before the loss shows it.
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise TrainingError(
                f"loss is {value}, its gradient {norm}, expected finite numbers; "
                "lower training.learning_rate or raise the temperature"
            )
        self.optimizer.step()
        self.schedule.step()
        return value

    def _loss(self, batch: Batch) -> Tensor:
        known = self._dropped(batch.items + 1)
        history = self.model.history_vectors(*self._items(known, batch.items))
        users = self.model.user_vectors(
            self.model.user_identity(self._dropped(batch.users + 1)),
            self.user_codes[batch.users],
            self.user_numbers[batch.users],
            embedding(batch.history, history),
            batch.mask,
        )
        rows = batch.items[batch.target]
        items = self.model.item_vectors(*self._items(known[batch.target], rows))
        return self.objective(users, items, rows, self.log_q[rows])

    def _items(self, known: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.model.item_identity(known), self.item_codes[rows], self.item_numbers[rows]

    def _dropped(self, rows: Tensor) -> Tensor:
        return rows.masked_fill(torch.rand(rows.shape, device=rows.device) < self.id_dropout, 0)

    def _rate(self, step: int) -> float:
        warm = min(1.0, (step + 1) / (0.02 * self.steps + 1))
        return warm * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / self.steps)))


def _epoch(
    step: _Step, samples: Samples, size: int, generator: np.random.Generator, title: str
) -> float:
    step.module.train()
    losses = []
    with Progress(title, len(samples)) as progress:
        for batch in samples.batches(size, generator):
            losses.append(step(batch))
            progress.advance(len(batch.users), f"loss {losses[-1]:.3f}")
    return float(np.mean(losses))


def _validate(model: Retriever, dataset: Dataset, k: int) -> float:
    cast(nn.Module, model).eval()
    found = ranks(embed(model, dataset), dataset, "validation")
    return float((found < k).mean()) if len(found) else 0.0
