import inspect
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from contract.errors import RecipeError, TrainingError
from offline.checkpoint import Epoch
from offline.data.dataset import Dataset, prepare
from offline.data.tables import Tables
from offline.evaluate import embed, ranks
from offline.metrics import ranking_metrics
from offline.negatives import NEGATIVES
from offline.objectives import OBJECTIVES
from offline.recipe import Recipe
from offline.run import Run
from offline.train import train
from tests.offline.training import changed, other_value, trained, weights

Changes = Mapping[str, Any]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    tiny: Dataset, short: Recipe
) -> None:
    first, again, other = (
        weights(trained(changed(short, seed=seed), tiny).model) for seed in (1, 1, 2)
    )

    assert first.keys() == again.keys()
    assert [name for name in first if not np.array_equal(first[name], again[name])] == []
    assert not np.array_equal(first["item_identity.weight"], other["item_identity.weight"])


def test_the_loss_falls_and_every_epoch_is_reported(tiny: Dataset, short: Recipe) -> None:
    reported: list[Epoch] = []

    found = train(
        changed(short, training={"epochs": 4, "patience": 4}), tiny, "cpu", reported.append
    )

    assert found.history == reported
    assert [epoch.epoch for epoch in reported] == [1, 2, 3, 4]
    assert reported[-1].loss < reported[0].loss - 0.2
    assert found.samples_per_second > 0


@pytest.mark.parametrize("watch", ["HR@10", "NDCG@5", "MRR@5"])
def test_the_state_of_the_best_epoch_is_restored(tiny: Dataset, short: Recipe, watch: str) -> None:
    # The first epoch that is not better is the last; with this seed it is worse by each metric.
    settings = {"epochs": 50, "patience": 1, "watch": watch}

    found = trained(changed(short, seed=8, training=settings), tiny)

    best = max(epoch.score for epoch in found.history)
    assert found.history[-2].score == best > found.history[-1].score
    reached = ranks(embed(found.model, tiny), tiny, "validation")
    assert ranking_metrics(reached, (5, 10))[watch] == best
    assert not cast(nn.Module, found.model).training


@pytest.mark.parametrize("patience", [1, 3])
def test_training_stops_when_the_score_no_longer_rises(
    tiny: Dataset, short: Recipe, patience: int
) -> None:
    # Steps this small leave every rank as it was.
    still = {"learning_rate": 1e-12, "epochs": 10, "patience": patience}

    found = trained(changed(short, training=still), tiny)

    assert [epoch.epoch for epoch in found.history] == list(range(1, patience + 2))
    assert len({epoch.score for epoch in found.history}) == 1


@pytest.mark.parametrize(
    "sections",
    [
        {"objective_parameters": {"temperature": 1e-45}},
        {"training": {"learning_rate": 1e30}},
    ],
    ids=["from the first step", "after a step too far"],
)
def test_training_stops_where_numbers_are_no_longer_finite(
    tiny: Dataset, short: Recipe, sections: Changes
) -> None:
    with pytest.raises(TrainingError, match=r"^loss is .*, its gradient .*, expected finite numb"):
        trained(changed(short, **sections), tiny)


def test_small_numbers_are_numbers_again_after_a_training(tiny: Dataset, short: Recipe) -> None:
    trained(changed(short, training={"epochs": 1}), tiny)

    assert (torch.tensor([1e-40]) * torch.ones(1)).item() > 0


def test_without_anybody_to_validate_with_nothing_is_trained(short: Recipe) -> None:
    log = [(f"u{user}", f"i{item}", item) for user in range(9) for item in range(2)]
    log += [("again", "i0", 0), ("again", "i0", 1), ("again", "i1", 2)]
    interactions = pl.DataFrame(log, ["user_id", "item_id", "timestamp"], orient="row")
    dataset = prepare(Tables(interactions, None, None), {}, {}, 4)

    with pytest.raises(TrainingError, match="nobody has an item to validate with"):
        train(short, dataset, "cpu", lambda _: None)


def test_a_model_that_reads_less_than_it_is_to_be_trained_on_says_so(
    tiny: Dataset, short: Recipe
) -> None:
    training = short.training.model_copy(update={"length": short.history_length + 1})
    changes = {"model": "sasrec", "parameters": {"dim": 16}, "training": training}
    words = f"training.length is {short.history_length + 1}, and this model reads"

    with pytest.raises(RecipeError, match=words):
        train(short.model_copy(update=changes), tiny, "cpu", lambda _: None)


def test_a_device_that_is_not_there_is_refused(tiny: Dataset, short: Recipe) -> None:
    with pytest.raises(TrainingError, match=r"^device 'abacus': .*; train on 'cpu'$"):
        train(short, tiny, "abacus", lambda epoch: None)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"objective": "magic"}, "objective 'magic': unknown; known are softmax, bce"),
        ({"negatives": "none"}, "negatives 'none': unknown; known are full, in_batch"),
        (
            {"objective": "gbce", "negatives": "full"},
            "objective 'gbce' is calibrated for uniform negatives, found 'full'; set negatives =",
        ),
        (
            {"objective_parameters": {"logq": 1.0}},
            "objective 'softmax': unknown parameter 'logq'; known are temperature",
        ),
        (
            {"negatives_parameters": {"counts": 3}},
            "negatives 'in_batch': unknown parameter 'counts'; known are logq",
        ),
        (
            {"negatives": "uniform", "negatives_parameters": {"count": 2.5}},
            "negatives 'uniform': parameter 'count' expected int, found 2.5",
        ),
        (
            {"negatives": "uniform", "negatives_parameters": {"count": 0}},
            "negatives 'uniform': count is 0, expected at least 1; change it",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_does_not_go_together_is_refused(
    tiny: Dataset, short: Recipe, sections: Changes, words: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        trained(changed(short, **sections), tiny)

    assert str(caught.value).startswith(words)


def test_every_objective_works_with_every_kind_of_negatives(tiny: Dataset, short: Recipe) -> None:
    once = changed(short, training={"epochs": 1})
    for objective in OBJECTIVES:
        for negatives in NEGATIVES if objective != "gbce" else ("uniform",):
            recipe = changed(once, objective=objective, negatives=negatives)
            (epoch,) = trained(recipe, tiny).history
            assert 0 < epoch.loss < 1000, (objective, negatives)


def other_values(target: object) -> dict[str, Any]:
    """Each parameter of an objective or sampler, with another value than its default."""
    assert callable(target)
    known = inspect.signature(target).parameters
    return {n: other_value(p.default) for n, p in known.items() if n != "counts"}


CHANGES: list[tuple[Changes, Changes]] = [
    *(({}, {"training": change}) for change in (
        {"epochs": 1}, {"batch": 32}, {"length": 3}, {"learning_rate": 0.001},
        {"weight_decay": 0.1}, {"clip": 0.01}, {"watch": "NDCG@10"}, {"watch": "HR@3"},
    )),
    ({}, {"history_length": 4}),
    ({}, {"seed": 9}),
    *(
        (
            {"objective": name, "negatives": "uniform", "negatives_parameters": {"count": 9}},
            {"objective_parameters": {key: value}},
        )
        for name, factory in OBJECTIVES.items() for key, value in other_values(factory).items()
    ),
    *(
        ({"negatives": name, "objective": "softmax"}, {"negatives_parameters": {key: value}})
        for name, factory in NEGATIVES.items() for key, value in other_values(factory).items()
    ),
]  # fmt: skip


@pytest.mark.parametrize(("plain", "sections"), CHANGES, ids=str)
def test_every_key_of_a_recipe_changes_the_outcome(
    tiny: Dataset, short: Recipe, plain: Changes, sections: Changes
) -> None:
    plainly = changed(short, **plain, objective_parameters={})

    before, after = (trained(r, tiny) for r in (plainly, changed(plainly, **sections)))

    assert [e[1:3] for e in before.history] != [e[1:3] for e in after.history]


def test_models_learn_from_the_content_of_items_that_training_never_saw(run: Run) -> None:
    """The nearest to a cold item are items of its category."""
    dataset = run.dataset
    categories = np.array(dataset.attributes["category"].to_list())
    vectors = embed(run.model, dataset).items.items
    nearest = np.argsort(-vectors[-10:] @ vectors[:-10].T, axis=1)[:, :10]

    same = categories[nearest] == categories[-10:, None]
    assert same.mean() > 0.9
