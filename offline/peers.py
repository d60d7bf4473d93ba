"""Ways to rank items that need no training, to measure a model against: each as users and items
with vectors, ranked as those of a model are."""

import numpy as np

from contract.arrays import F32, I64
from contract.features import Category, Multi, Text
from offline.data.dataset import Dataset, windows
from offline.embed import ItemVectors
from offline.evaluate import Evaluation

CHANCE, SEED = 16, 42


def chance(dataset: Dataset) -> Evaluation:
    """Another random order for every user."""
    generator = np.random.default_rng(SEED)
    items, users = (
        generator.standard_normal((len(ids), CHANCE), np.float32)
        for ids in (dataset.item_ids, dataset.user_ids)
    )
    return Evaluation(ItemVectors(items, items), lambda rows, positions: users[rows][:, None])


def popular_categories(dataset: Dataset, counts: I64) -> Evaluation:
    """An item is as popular as the items of its categories are in the mean; counts (N,) of their
    interactions, 0 for an item that none are known of."""
    categories = terms(dataset, (Category, Multi))
    known = categories[counts > 0].sum(axis=0)
    each = counts.astype(np.float32) @ categories / np.maximum(known, 1)
    items = categories @ each / np.maximum(categories.sum(axis=1), 1)
    return Evaluation(
        ItemVectors(items[:, None], items[:, None]),
        lambda rows, positions: np.ones((len(rows), 1, 1), np.float32),
    )


def nearest(dataset: Dataset) -> Evaluation:
    """TF-IDF: the items whose words and categories are those of the history, rare ones more."""
    found = terms(dataset, (Category, Multi, Text))
    found *= np.log(len(found) / np.maximum(found.sum(axis=0), 1))
    found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)

    def embed_users(users: I64, positions: I64) -> F32:
        length = dataset.schema.history_length
        rows, mask, _ = windows(dataset.sequences, users, positions, length)
        histories = [found[row[real]].sum(axis=0) for row, real in zip(rows, mask, strict=True)]
        return np.stack(histories)[:, None]

    return Evaluation(ItemVectors(found, found), embed_users)


def terms(dataset: Dataset, kinds: tuple[type, ...]) -> F32:
    """(N, V): 1 where an item has one of the values that occur in its fields of these kinds."""
    schema, parts = dataset.schema.items, [np.empty((len(dataset.item_ids), 0), np.float32)]
    for field in schema.fields:
        block = schema.block(field.name)
        if block is None or not isinstance(field, kinds):
            continue
        codes = dataset.items.codes[:, block.start : block.start + block.width]
        values, place = np.unique(codes, return_inverse=True)
        part = np.zeros((len(codes), len(values)), np.float32)
        np.put_along_axis(part, place.reshape(codes.shape), 1.0, axis=1)
        parts.append(part[:, values > 0])
    return np.concatenate(parts, axis=1)
