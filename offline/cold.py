"""How well a recipe finds items that training never saw.

A fifth of the items is held out: neither their interactions nor their features are known to
training. They are then embedded by content alone, as the service embeds an item that is posted to
it, and ranked where they are the last item of a user, as in `offline.evaluate`; where it is another
item, they are in its way.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from contract.arrays import I64, Bool
from contract.errors import RecipeError
from contract.features import KINDS, Fields
from offline import peers
from offline.checkpoint import Epoch
from offline.data.dataset import Dataset, Sequences
from offline.embed import embed_items, known_rows, user_embedder
from offline.evaluate import Evaluation, ranks_in, scores, targets
from offline.fit import prepare_recipe
from offline.metrics import ranking_metrics
from offline.models.base import Retriever
from offline.recipe import Recipe
from offline.train import train

SHARE, SEED = 0.2, 42
KS = (10, 50)


class Row(NamedTuple):
    method: str
    """The model, or a peer that needs no training."""

    question: str
    """Which users' items are looked for, and among which."""

    users: int
    metrics: dict[str, float]


class Split(NamedTuple):
    held: Bool
    """(N,) the items that are held out."""

    whole: Dataset
    training: Dataset
    """The same rows and features, without the interactions with items held out."""

    @property
    def counts(self) -> I64:
        """(N,) interactions that training sees."""
        return self.training.counts(self.training.split().train_end)


def cold_report(
    recipe: Recipe, tables: Path, device: str, report: Callable[[Epoch], None]
) -> list[Row]:
    """Train the recipe without the held-out items and measure it beside `offline.peers`.

    Raises RecipeError where the recipe names no features of items, and what `train` raises.
    """
    if not recipe.features.items:
        raise RecipeError("features.items is empty: nothing is known of a new item; name a feature")
    split = hold_out(prepare_recipe(recipe, tables), recipe)
    model = train(recipe, split.training, device, report).model
    methods = {
        recipe.model: embed_cold(model, split),
        "chance": peers.chance(split.whole),
        "popular categories": peers.popular_categories(split.whole, split.counts),
        "tf-idf": peers.nearest(split.whole),
    }
    return [row for name, method in methods.items() for row in rows(name, method, split)]


def hold_out(dataset: Dataset, recipe: Recipe) -> Split:
    """The features are fitted to the other items."""
    rated = np.flatnonzero(dataset.counts())
    held = np.zeros(len(dataset.item_ids), np.bool_)
    drawn = np.random.default_rng(SEED).permutation(rated)[: round(SHARE * len(rated))]
    held[drawn] = True
    features = recipe.features.items
    known = dataset.attributes.filter(~held)
    fitted = Fields(fields=tuple(KINDS[k].fit(n, known[n].to_list()) for n, k in features.items()))
    columns = {name: dataset.attributes[name].to_list() for name in features}
    whole = replace(
        dataset,
        schema=dataset.schema.model_copy(update={"items": fitted}),
        items=fitted.encode_columns(columns, len(held)),
    )
    return Split(held, whole, replace(whole, sequences=_without(whole.sequences, held)))


def _without(sequences: Sequences, held: Bool) -> Sequences:
    return sequences.keep(~held[sequences.items])


def embed_cold(model: Retriever, split: Split) -> Evaluation:
    """All items and users, those held out by the identity of the unknown one."""
    items = embed_items(model, split.whole, known_rows(split.counts))
    training = split.training
    users = known_rows(training.split().train_end - training.sequences.offsets[:-1])
    return Evaluation(items, user_embedder(model, split.whole, users, items.history))


def rows(name: str, method: Evaluation, split: Split) -> list[Row]:
    users, positions = targets(split.whole, "test")
    cold = split.held[split.whole.sequences.items[positions]]
    # Of a user who has fewer than three items left, training sees all.
    warm = ~cold & (split.training.split().test[users] >= 0)
    every = np.ones(len(split.held), np.bool_)
    questions = {
        "cold among cold": (cold, split.held),
        "cold among all": (cold, every),
        "warm among all": (warm, every),
    }
    return [
        Row(
            name,
            question,
            int(asked.sum()),
            ranking_metrics(_ranks(method, split.whole, users[asked], positions[asked], among), KS),
        )
        for question, (asked, among) in questions.items()
    ]


def _ranks(method: Evaluation, dataset: Dataset, users: I64, positions: I64, among: Bool) -> I64:
    found = np.empty(len(users), np.int64)
    for block, table in scores(method, dataset, users, positions):
        table[:, ~among] = -np.inf
        found[block] = ranks_in(table, dataset.sequences.items[positions[block]])
    return found
