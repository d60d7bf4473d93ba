"""One training loop for all models: fit, validate after each epoch, keep the best state."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import nn

from contract.errors import RecipeError, TrainingError
from offline import checkpoint, distribute, memory
from offline.batches import Samples, Source
from offline.checkpoint import Epoch
from offline.data.dataset import Dataset
from offline.evaluate import embed, ranks, targets
from offline.metrics import ranking_metrics
from offline.models import check_parameters, create_model
from offline.models.base import Retriever, Sampled
from offline.negatives import NEGATIVES, Sampler
from offline.objectives import OBJECTIVES, Objective
from offline.optimizer import Optimizer
from offline.progress import Progress
from offline.recipe import Recipe
from offline.regressor import fit_regressor
from offline.step import Step


class Trained(NamedTuple):
    """A model in the state of its best epoch, and the story of all of them."""

    model: Retriever
    history: list[Epoch]
    samples_per_second: float


def create_objective(recipe: Recipe) -> Objective:
    if recipe.objective not in OBJECTIVES:
        known = ", ".join(OBJECTIVES)
        raise RecipeError(f"objective '{recipe.objective}': unknown; known are {known}")
    if recipe.objective == "gbce" and recipe.negatives != "uniform":
        raise RecipeError(
            f"objective 'gbce' is calibrated for uniform negatives, found '{recipe.negatives}'; "
            "set negatives = \"uniform\" or take 'bce'"
        )
    factory = OBJECTIVES[recipe.objective]
    check_parameters(f"objective '{recipe.objective}'", factory, recipe.objective_parameters)
    return factory(**recipe.objective_parameters)


def create_sampler(recipe: Recipe, dataset: Dataset) -> Sampler:
    if recipe.negatives not in NEGATIVES:
        known = ", ".join(NEGATIVES)
        raise RecipeError(f"negatives '{recipe.negatives}': unknown; known are {known}")
    factory, parameters = NEGATIVES[recipe.negatives], recipe.negatives_parameters
    check_parameters(f"negatives '{recipe.negatives}'", factory, parameters, frozenset({"counts"}))
    return factory(dataset.counts(dataset.split().train_end), **parameters)


def create_samples(recipe: Recipe, model: Retriever, dataset: Dataset) -> Source[Any]:
    until = dataset.split().train_end
    if isinstance(model, Sampled):
        begin, items = dataset.sequences.offsets[:-1], dataset.sequences.items
        return model.samples(items, begin, until)
    length = recipe.training.length or recipe.history_length
    return Samples(dataset, until, context=max(0, recipe.history_length - length))


@contextmanager
def _without_denormals() -> Iterator[None]:
    """Below 1e-38 a number is zero: with such numbers a step takes 7 % longer where few gradients
    come to be so small (Cadence), and several times as long where many do."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@_without_denormals()
def train(
    recipe: Recipe,
    dataset: Dataset,
    device: str,
    report: Callable[[Epoch], None],
    keep: Path | None = None,
) -> Trained:
    """Fit the recipe's model on the training part of the dataset, on the device of that torch name.

    The state with the best validation score is restored at the end, on the CPU. Where `keep` is
    given, the state after each epoch is written there, and training goes on from one that is there:
    the result is that of a training that was never stopped. Raises TrainingError when there is no
    such device, nothing to train on, or the loss or its gradient is no longer finite; RecipeError
    for a model, objective or parameter that there is not, or a kept state of another training.
    """
    memory.keep_freed()
    torch.manual_seed(recipe.seed)
    settings = recipe.training
    model = create_model(
        recipe.model,
        dataset.schema,
        len(dataset.user_ids),
        len(dataset.item_ids),
        dict(recipe.parameters),
    )
    module = _placed(model, distribute.place(device))
    samples = create_samples(recipe, model, dataset)
    _require_targets(dataset)
    tables = [model.item_identity, model.user_identity]
    state = checkpoint.State(
        checkpoint.origin(recipe, dataset),
        module,
        Optimizer(module, tables, settings.weight_decay),
        copy.deepcopy(module.state_dict()),
    )
    step = Step(
        model,
        create_objective(recipe),
        create_sampler(recipe, dataset),
        dataset,
        state.optimizer,
        settings.clip,
    )
    if keep:
        checkpoint.restore(keep, state)
    while not _finished(recipe, state.history):
        started = time.perf_counter()
        loss = _epoch(step, samples, recipe, len(state.history))
        trained = time.perf_counter() - started
        score = _validate(model, dataset, settings.watch)
        state.add(
            Epoch(len(state.history) + 1, loss, score, time.perf_counter() - started), trained
        )
        if keep and distribute.leads():
            checkpoint.save(keep, state)
        report(state.history[-1])
    module.load_state_dict(state.best)
    module.to("cpu").eval()
    seen = np.flatnonzero(dataset.counts(dataset.split().train_end))
    fit_regressor(model, dataset.items, seen, recipe.seed)
    speed = len(samples) * len(state.history) / state.trained_seconds
    return Trained(model, state.history, speed)


def _require_targets(dataset: Dataset) -> None:
    """Without a score the first epoch would be the best."""
    if not len(targets(dataset, "validation")[0]):
        raise TrainingError(
            "nobody has an item to validate with: it takes a user with three interactions or more, "
            "the last but one with an item that they had not seen before; give data that has some"
        )


def _finished(recipe: Recipe, history: list[Epoch]) -> bool:
    if not history:
        return False
    top = max(history, key=lambda e: e.score)
    settings = recipe.training
    return len(history) >= settings.epochs or len(history) - top.epoch >= settings.patience


def _placed(model: Retriever, device: str) -> nn.Module:
    try:
        return cast(nn.Module, model).to(device)
    except (RuntimeError, AssertionError) as error:  # as torch refuses, by the build
        reason = str(error).partition("\n")[0]
        raise TrainingError(f"device '{device}': {reason}; train on 'cpu'") from error


def _epoch(step: Step, samples: Source[Any], recipe: Recipe, done: int) -> float:
    step.module.train()
    settings, total, counted = recipe.training, 0.0, 0.0
    # Every epoch has random numbers of its own, so that one can begin with any.
    generator = np.random.default_rng((recipe.seed, done))
    torch.manual_seed(int(generator.integers(2**62)) + distribute.rank())
    plan = samples.plan(settings.batch, settings.length or recipe.history_length, generator)
    with Progress(f"epoch {done + 1}/{settings.epochs}", len(plan)) as progress:
        for number, part in enumerate(plan):
            reached = (done + number / len(plan)) / settings.epochs
            rate = settings.learning_rate * schedule(reached)
            loss, count = step(samples.batch(part), rate, generator)
            total, counted = total + loss * count, counted + count
            progress.advance(1, f"loss {loss:.3f}")
    total, counted = distribute.summed(total, counted)
    return total / counted


def schedule(reached: float) -> float:
    """The share of the learning rate at a share of the training: a short warm-up, then a cosine."""
    warm = min(1.0, (reached + 1e-4) / 0.02)
    return warm * 0.5 * (1.0 + math.cos(math.pi * min(1.0, reached)))


def _validate(model: Retriever, dataset: Dataset, watch: str) -> float:
    cast(nn.Module, model).eval()
    found = ranks(embed(model, dataset), dataset, "validation")
    k = int(watch.rpartition("@")[2])
    return ranking_metrics(found, (k,))[watch] if len(found) else 0.0
