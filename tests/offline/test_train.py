import inspect
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pytest
from torch import nn

from contract.arrays import F32
from contract.errors import RecipeError, TrainingError
from offline.data.dataset import Dataset, prepare
from offline.data.synthetic import generate
from offline.evaluate import embed, ranks, targets
from offline.metrics import ranking_metrics
from offline.models import DATA_PARAMETERS, MODELS
from offline.models.base import Retriever
from offline.recipe import Recipe, parse_recipe
from offline.run import Run
from offline.train import Epoch, Trained, train

Changes = Mapping[str, Any]


def changed(recipe: Recipe, **sections: Any) -> Recipe:
    """The recipe with other values in its sections."""
    document = recipe.model_dump()
    for name, value in sections.items():
        document[name] = document[name] | value if isinstance(value, dict) else value
    return parse_recipe(document, "changed")


def fit(recipe: Recipe, dataset: Dataset) -> Trained:
    return train(recipe, dataset, "cpu", lambda epoch: None)


def weights(model: Retriever) -> dict[str, F32]:
    state = cast(nn.Module, model).state_dict()
    return {name: tensor.numpy() for name, tensor in state.items()}


@pytest.fixture(scope="module")
def tiny() -> Dataset:
    """Enough to see a difference, and trained on in a few hundredths of a second."""
    world = generate(users=60, items=40, interactions=900, interests=4, seed=1)
    return prepare(
        world.tables, {"country": "category"}, {"category": "category", "tags": "multi"}, 10
    )


@pytest.fixture(scope="module")
def short(recipe: Recipe) -> Recipe:
    return changed(recipe, history_length=10, training={"epochs": 2, "batch": 64})


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    tiny: Dataset, short: Recipe
) -> None:
    first, again, other = (
        weights(fit(changed(short, seed=seed), tiny).model) for seed in (1, 1, 2)
    )

    assert first.keys() == again.keys()
    assert [name for name in first if not np.array_equal(first[name], again[name])] == []
    assert not np.array_equal(first["item_identity.weight"], other["item_identity.weight"])


def test_the_loss_falls_and_every_epoch_is_reported(tiny: Dataset, short: Recipe) -> None:
    reported: list[Epoch] = []

    trained = train(
        changed(short, training={"epochs": 4, "patience": 4}), tiny, "cpu", reported.append
    )

    assert trained.history == reported
    assert [epoch.epoch for epoch in reported] == [1, 2, 3, 4]
    assert reported[-1].loss < 0.9 * reported[0].loss
    assert trained.samples_per_second > 0


def popularity_ranks(dataset: Dataset) -> np.ndarray[Any, np.dtype[np.int64]]:
    counts = dataset.counts(dataset.split().train_end)
    offsets, items = dataset.sequences
    found = []
    for user, position in zip(*targets(dataset, "test"), strict=True):
        unseen = counts.copy()
        unseen[items[offsets[user] : position]] = -1
        found.append(int((unseen > unseen[items[position]]).sum()))
    return np.array(found)


def test_the_planted_structure_is_found(run: Run) -> None:
    found = ranking_metrics(ranks(embed(run.model, run.dataset), run.dataset, "test"), (10,))
    popular = ranking_metrics(popularity_ranks(run.dataset), (10,))

    assert found["HR@10"] > 0.45
    assert found["HR@10"] > 2.5 * popular["HR@10"]


def test_the_state_of_the_best_epoch_is_restored(dataset: Dataset, recipe: Recipe) -> None:
    # Long enough to overfit, so that the last epoch is not the best one.
    trained = fit(changed(recipe, training={"epochs": 8, "patience": 8}), dataset)
    best = max(epoch.recall for epoch in trained.history)

    assert trained.history[-1].recall < best
    found = ranks(embed(trained.model, dataset), dataset, "validation")
    assert float((found < recipe.training.recall_at).mean()) == best
    assert not cast(nn.Module, trained.model).training


def test_training_stops_when_recall_no_longer_rises(tiny: Dataset, short: Recipe) -> None:
    # Steps this small leave every rank as it was.
    still = {"learning_rate": 1e-12, "epochs": 10, "patience": 3}

    trained = fit(changed(short, training=still), tiny)

    assert [epoch.epoch for epoch in trained.history] == [1, 2, 3, 4]
    assert len({epoch.recall for epoch in trained.history}) == 1


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
        fit(changed(short, **sections), tiny)


def test_a_device_that_is_not_there_is_refused(tiny: Dataset, short: Recipe) -> None:
    with pytest.raises(TrainingError, match=r"^device 'abacus': .*; train on 'cpu'$"):
        train(short, tiny, "abacus", lambda epoch: None)


def test_an_unknown_objective_is_refused(tiny: Dataset, short: Recipe) -> None:
    with pytest.raises(RecipeError, match="objective 'magic': unknown; known are in_batch_softmax"):
        fit(changed(short, objective="magic"), tiny)


def other_value(default: object) -> object:
    return 0.37 if isinstance(default, float) else 7


def model_changes() -> list[tuple[str, Changes]]:
    """Each parameter of each model, with another value than its default."""
    return [
        (model, {"parameters": {name: other_value(parameter.default)}})
        for model, cls in MODELS.items()
        for name, parameter in inspect.signature(cls).parameters.items()
        if name not in DATA_PARAMETERS
    ]


OTHER_CHANGES: list[tuple[str, Changes]] = [
    ("dssm", {"objective_parameters": {"temperature": 0.5}}),
    ("dssm", {"objective_parameters": {"logq": 0.5}}),
    ("dssm", {"training": {"epochs": 1}}),
    ("dssm", {"training": {"batch": 32}}),
    ("dssm", {"training": {"learning_rate": 0.001}}),
    ("dssm", {"training": {"weight_decay": 0.1}}),
    ("dssm", {"training": {"clip": 0.01}}),
    ("dssm", {"training": {"recall_at": 3}}),
    ("dssm", {"seed": 9}),
]


@pytest.mark.parametrize(
    ("model", "sections"),
    [*model_changes(), *OTHER_CHANGES],
    ids=lambda value: value if isinstance(value, str) else str(value),
)
def test_every_key_of_a_recipe_changes_the_outcome(
    tiny: Dataset, short: Recipe, model: str, sections: Changes
) -> None:
    plain = changed(short, model=model)

    before, after = fit(plain, tiny), fit(changed(plain, **sections), tiny)

    assert [(e.loss, e.recall) for e in before.history] != [
        (e.loss, e.recall) for e in after.history
    ]


def test_models_learn_from_the_content_of_items_that_training_never_saw(run: Run) -> None:
    """Cold items lie nearer to the items of their category than to the others."""
    dataset = run.dataset
    categories = np.array(dataset.attributes["category"].to_list())
    vectors = embed(run.model, dataset).items.items
    scores = vectors[-10:] @ vectors[:-10].T
    same = categories[-10:, None] == categories[None, :-10]

    assert scores[same].mean() > scores[~same].mean() + 0.3
