"""A world whose model says what a trained one would say, in any size and without a training.

It is a DSSM of the usual sizes with weights set by hand: an item's vector is one of a clustered
catalogue, a user's vector the mean of what they touched, the last of it most. So users lie near
their items, as they do after a training; the time that towers and index take is that of real ones.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np
import polars as pl
import torch
from torch import nn

from benchmarks.search import CENTRES, DIM, clustered, clusters
from benchmarks.world import World, save, untrained
from contract.arrays import I64
from contract.store import LocalStore
from offline.data.tables import Tables
from offline.models.two_tower import TwoTower
from offline.recipe import parse_recipe

HISTORY = 50
"""Items that each user has touched."""
COUNTRIES, CATEGORIES, FIRST_YEAR, YEARS = 20, 50, 1980, 45
RECIPE = {
    "model": "dssm",
    "history_length": HISTORY,
    "features": {
        "users": {"age": "number", "country": "category"},
        "items": {"category": "category", "year": "number"},
    },
    "parameters": {"dim": DIM},
}


@contextmanager
def planted(items: int) -> Iterator[World]:
    """Users have seen HISTORY items each. Nothing published yet."""
    recipe = parse_recipe(RECIPE, "the planted recipe")
    with TemporaryDirectory() as name:
        folder = Path(name)
        dataset, model = untrained(recipe, _tables(items))
        _plant(cast(TwoTower, model), items)
        run = save(folder / "run", recipe, dataset, model)
        yield World(folder, run, LocalStore(folder / "store"))


@torch.no_grad()
def _plant(model: TwoTower, items: int) -> None:
    model.item_identity.weight[1:] = torch.from_numpy(clustered(items, 0))
    model.item_identity.weight[0] = 0.01
    _pass(model.item_tower, first=0)
    model.as_history.weight[:] = torch.eye(*model.as_history.weight.shape)
    before = model.user_identity.embedding_dim + model.user_fields.width
    _pass(model.user_tower, first=before + model.history_dim)


def _pass(tower: nn.Sequential, first: int) -> None:
    """The tower gives DIM columns of its input, from `first` on: x is relu(x) - relu(-x)."""
    wide, narrow = (layer for layer in tower if isinstance(layer, nn.Linear))
    both = torch.cat([torch.eye(DIM), -torch.eye(DIM)])
    for layer in (wide, narrow):
        layer.weight.zero_()
        layer.bias.zero_()
    wide.weight[: 2 * DIM, first : first + DIM] = both
    narrow.weight[:, : 2 * DIM] = both.T


def _tables(items: int) -> Tables:
    """The first half of a history is of one cluster, the second of another."""
    histories = _histories(items)
    users = np.repeat(np.arange(len(histories)), HISTORY)
    interactions = pl.DataFrame(
        {"user_id": users, "item_id": histories.ravel(), "timestamp": np.arange(histories.size)}
    ).select(pl.format("u{}", "user_id").alias("user_id"), _item_id("item_id"), "timestamp")
    rows = pl.DataFrame({"row": np.arange(items), "cluster": clusters(items, 0)})
    described = rows.select(
        _item_id("row").alias("item_id"),
        pl.format("category {}", pl.col("cluster") * CATEGORIES // CENTRES).alias("category"),
        (FIRST_YEAR + pl.col("row") % YEARS).alias("year"),
    )
    profiles = pl.select(
        pl.format("u{}", pl.int_range(len(histories))).alias("user_id"),
        (16 + pl.int_range(len(histories)) % 64).alias("age"),
        pl.format("country {}", pl.int_range(len(histories)) % COUNTRIES).alias("country"),
    )
    return Tables(interactions, described, profiles)


def _item_id(row: str) -> pl.Expr:
    return pl.format("i{}", row).alias("item_id")


def _histories(items: int) -> I64:
    """(users, HISTORY) rows of items. Each of these stands there twice, the second time from the
    end: what a user touched last is held out, and an item that was never touched is unknown."""
    users = items // HISTORY
    order = np.argsort(clusters(items, 0), kind="stable")[: users * HISTORY]
    halves = np.random.default_rng(2).permutation(order.reshape(2 * users, HISTORY // 2))
    first = halves.reshape(users, HISTORY)
    return np.concatenate([first, first[:, ::-1]])
