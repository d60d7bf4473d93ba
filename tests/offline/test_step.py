import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from contract.arrays import F32
from contract.errors import TrainingError
from offline import step as module
from offline.batches import Batch, Chunks, Samples
from offline.data.dataset import Dataset, windows
from offline.models import create_model
from offline.models.base import Retriever
from offline.optimizer import Optimizer
from offline.recipe import Recipe
from offline.step import Step, best_scores
from offline.train import create_objective, create_sampler
from tests.offline.training import changed, of_model

WHOLE = 1000
"""Longer than any sequence: each is one piece."""


@pytest.fixture(scope="module")
def still(short: Recipe) -> Recipe:
    """Nothing is dropped at random."""
    return changed(short, parameters={"dropout": 0.0, "id_dropout": 0.0})


class Bench:
    """A model at its beginning, and what a training would do with it."""

    def __init__(self, recipe: Recipe, dataset: Dataset) -> None:
        torch.manual_seed(recipe.seed)
        users, items = len(dataset.user_ids), len(dataset.item_ids)
        self.recipe, self.dataset = recipe, dataset
        self.model = create_model(recipe.model, dataset.schema, users, items, recipe.parameters)
        tables = [self.model.item_identity, self.model.user_identity]
        self.optimizer = Optimizer(cast(nn.Module, self.model), tables, 0.0)
        self.objective = create_objective(recipe)
        self.sampler = create_sampler(recipe, dataset)
        self.step = Step(
            self.model, self.objective, self.sampler, dataset, self.optimizer, clip=1e9
        )

    def batch(self, size: int, length: int = WHOLE) -> Batch:
        samples = Samples(self.dataset, self.dataset.split().train_end)
        return samples.batch(samples.plan(size, length, np.random.default_rng(1))[0])

    def take(self, batch: Batch) -> tuple[float, dict[str, F32]]:
        """One step; its loss, and all gradients by name."""
        loss, _ = self.step(batch, 0.0, np.random.default_rng(2))
        first = {f"rows {n}": rows.first.numpy() for n, rows in enumerate(self.optimizer.rows)}
        state = self.optimizer.state_dict()["adam"]["state"]
        return loss, first | {f"dense {n}": s["exp_avg"].numpy() for n, s in state.items()}


def prefix_vectors(model: Retriever, dataset: Dataset, user: int, position: int) -> Tensor:
    """The user vectors (K, D) just before a position, as the service computes them."""
    everyone = torch.arange(len(dataset.item_ids))
    codes, numbers = (torch.from_numpy(array) for array in dataset.items)
    table = model.history_vectors(
        model.item_inputs(model.item_identity(everyone + 1), codes, numbers)
    )
    rows, mask, kinds = windows(
        dataset.sequences, np.array([user]), np.array([position]), dataset.schema.history_length
    )
    real = torch.from_numpy(mask.astype(np.float32))
    codes, numbers = (torch.from_numpy(array[user : user + 1]) for array in dataset.users)
    identity = model.user_identity(torch.tensor([user + 1]))
    history = table[torch.from_numpy(rows).long()] * real.unsqueeze(2)
    return model.user_vectors(identity, codes, numbers, history, real, torch.from_numpy(kinds))[0]


@torch.no_grad()
def slow_loss(bench: Bench, batch: Batch) -> float:
    """In-batch softmax over the samples of a batch, one at a time."""
    dataset, model, temperature = bench.dataset, bench.model, bench.objective.temperature
    until = dataset.split().train_end
    counts = dataset.counts(until)
    everyone = torch.arange(len(dataset.item_ids))
    codes, numbers = (torch.from_numpy(array) for array in dataset.items)
    items = model.item_vectors(model.item_inputs(model.item_identity(everyone + 1), codes, numbers))
    samples = [
        (prefix_vectors(model, dataset, user, position)[0], dataset.sequences.items[position])
        for user in batch.users.tolist()
        for position in range(int(dataset.sequences.offsets[user]), int(until[user]))
    ]

    def logit(vector: Tensor, item: int) -> float:
        share = counts[item] / counts.sum()
        return float(vector @ items[item]) / temperature - math.log(share)

    losses = []
    for vector, own in samples:
        others = [math.exp(logit(vector, item)) for _, item in samples if item != own]
        mine = math.exp(logit(vector, own))
        losses.append(-math.log(mine / (mine + sum(others))))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("model", ["dssm", "cadence"])
def test_the_loss_of_a_step_is_that_of_every_prefix_as_the_service_would_embed_it(
    tiny: Dataset, still: Recipe, model: str
) -> None:
    """Of sequences no longer than the history, so that a position sees what serving sees; and of
    models that see distances alone, so that it matters not where a position stands."""
    few = np.flatnonzero(np.diff(tiny.sequences.offsets) <= tiny.schema.history_length)
    assert len(few) > 3
    bench = Bench(of_model(still, model, dropout=0.0, id_dropout=0.0), tiny)
    begin, until = tiny.sequences.offsets[few], tiny.split().train_end[few]
    batch = Samples(tiny, tiny.split().train_end).batch(Chunks(few, begin, until))

    loss, _ = bench.take(batch)

    assert loss == pytest.approx(slow_loss(bench, batch), rel=1e-4)


@pytest.mark.parametrize(
    "sections",
    [
        {"negatives": "full"},
        {"negatives": "in_batch"},
        {"negatives": "hard", "negatives_parameters": {"count": 60, "keep": 5}, "objective": "bpr"},
        {"negatives": "mixed", "negatives_parameters": {"count": 30}, "objective": "bce"},
    ],
    ids=lambda sections: sections["negatives"],
)
def test_a_step_in_parts_is_the_step_at_once(
    tiny: Dataset, still: Recipe, sections: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = changed(still, **sections)
    whole = Bench(recipe, tiny)
    batch = whole.batch(128)
    loss, gradients = whole.take(batch)

    monkeypatch.setattr(module, "SCORES", 100)
    part_loss, part_gradients = Bench(recipe, tiny).take(batch)

    assert part_loss == pytest.approx(loss, rel=1e-5)
    assert gradients.keys() == part_gradients.keys()
    assert max(float(np.abs(gradient).max()) for gradient in gradients.values()) > 1e-4
    for name, gradient in gradients.items():
        np.testing.assert_allclose(part_gradients[name], gradient, atol=1e-6, err_msg=name)


def test_the_negatives_that_count_are_those_scored_highest(tiny: Dataset, still: Recipe) -> None:
    hard = {"negatives": "hard", "objective": "bpr"}
    few, one, none = (
        Bench(changed(still, **hard, negatives_parameters={"count": 200, "keep": keep}), tiny)
        for keep in (5, 1, 1000)
    )
    batch = few.batch(128)

    assert none.take(batch)[0] < few.take(batch)[0] < one.take(batch)[0]


def test_the_own_target_is_no_negative(tiny: Dataset, still: Recipe) -> None:
    bench = Bench(changed(still, negatives="full"), tiny)
    batch = bench.batch(64)
    seen: list[Tensor] = []

    def spy(scores: Any) -> Tensor:
        seen.append(scores.negative.detach())
        return cast(Tensor, scores.positive)

    bench.step.objective = bench.objective._replace(loss=spy)
    bench.take(batch)

    targets = batch.target[batch.wanted]
    rows = torch.from_numpy(np.flatnonzero(tiny.counts(tiny.split().train_end)))
    masked = torch.isinf(torch.cat(seen))
    assert torch.equal(masked, rows == targets.unsqueeze(1))


def test_a_rate_of_negatives_is_one_of_the_items_that_occur_in_training(
    dataset: Dataset, recipe: Recipe
) -> None:
    """Ten items of the catalogue do not: gbce with draws of all the others is plain bce, summed."""
    everything = {
        "parameters": {"dropout": 0.0, "id_dropout": 0.0},
        "negatives": "uniform",
        "negatives_parameters": {"count": 20_000},
        "objective": "gbce",
    }
    plain, calibrated = (
        Bench(changed(recipe, **everything, objective_parameters=sections), dataset)
        for sections in ({"calibration": 0.0}, {"calibration": 1.0})
    )
    batch = plain.batch(128)

    assert plain.take(batch)[0] == pytest.approx(calibrated.take(batch)[0], rel=1e-6)


def test_the_score_of_an_item_is_that_of_the_nearest_interest_and_trains_it_alone() -> None:
    users = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 2.0], [1.0, 0.0]]], requires_grad=True)
    items = torch.tensor([[0.0, 1.0], [3.0, 1.0], [-1.0, 0.5]])

    found = best_scores(users, items)
    torch.autograd.backward(found[:, 0].sum())

    assert found.tolist() == [[1.0, 3.0, 0.5], [2.0, 3.0, 1.0]]
    assert users.grad is not None
    assert users.grad.abs().sum(dim=2).bool().tolist() == [[False, True], [True, False]]


def test_a_dropped_identity_is_the_unknown_one_and_learns_for_it(
    tiny: Dataset, still: Recipe
) -> None:
    bench = Bench(changed(still, parameters={"id_dropout": 1.0}), tiny)

    _, gradients = bench.take(bench.batch(128))

    for name in ("rows 0", "rows 1"):
        assert np.abs(gradients[name][0]).max() > 0
        assert np.abs(gradients[name][1:]).max() == 0


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_weights_that_are_not_numbers_stop_the_step(
    tiny: Dataset, still: Recipe, broken: float
) -> None:
    bench = Bench(still, tiny)
    with torch.no_grad():
        bench.model.item_identity.weight[:, 0] = broken

    with pytest.raises(TrainingError, match=r"^loss is nan, its gradient .*, expected finite"):
        bench.take(bench.batch(128))
