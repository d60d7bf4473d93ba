"""A world whose model says what a trained one would say, in any size and without a training.

It is a model of the usual sizes with weights set by hand: an item's vector is one of a clustered
catalogue, a user's vector the mean of what they touched, the last of it most; of several interests,
each forgets at a speed of its own. So users lie near their items, as they do after a training; the
time that towers and index take is that of real ones.
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
from offline.models.base import Retriever
from offline.models.comirec_sa import ComirecSa
from offline.models.two_tower import TwoTower
from offline.recipe import Recipe, parse_recipe
from offline.run import Run

HISTORY = 50
COUNTRIES, CATEGORIES, FIRST_YEAR, YEARS = 20, 50, 1980, 45
RECIPE = {
    "features": {
        "users": {"age": "number", "country": "category"},
        "items": {"category": "category", "year": "number"},
    },
}


@contextmanager
def planted(items: int, history: int = HISTORY, interests: int | None = None) -> Iterator[World]:
    """Users have seen `history` items each, an even number. A DSSM; with `interests`, a
    ComiRec-SA of so many. Nothing published yet."""
    parameters = {"dim": DIM} | ({"interests": interests} if interests else {})
    model_name = "comirec_sa" if interests else "dssm"
    given = RECIPE | {"model": model_name, "history_length": history, "parameters": parameters}
    recipe = parse_recipe(given, "the planted recipe")
    with TemporaryDirectory() as name:
        folder = Path(name)
        run = _planted(folder / "run", recipe, items, history)
        yield World(folder, run, LocalStore(folder / "store"))


def _planted(path: Path, recipe: Recipe, items: int, history: int) -> Run:
    dataset, model = untrained(recipe, _tables(items, history))
    _plant(model, items)
    return save(path, recipe, dataset, model)


@torch.no_grad()
def _plant(model: Retriever, items: int) -> None:
    both = cast(TwoTower | ComirecSa, model)
    both.item_identity.weight[1:] = torch.from_numpy(clustered(items, 0))
    if isinstance(model, ComirecSa):
        _plant_interests(model)
    else:
        _plant_towers(cast(TwoTower, model))


def _plant_towers(model: TwoTower) -> None:
    model.item_identity.weight[0] = 0.01
    _pass(model.item_tower, first=0)
    model.as_history.weight[:] = torch.eye(*model.as_history.weight.shape)
    before = model.user_identity.embedding_dim + model.user_fields.width
    _pass(model.user_tower, first=before + model.history_dim)


def _plant_interests(model: ComirecSa) -> None:
    """An item weighs what its age says, and neither profile nor content adds anything."""
    model.attention.narrow.weight.zero_()
    for projection in (model.profile, model.content):
        if projection.linear:
            projection.linear.weight.zero_()
            projection.linear.bias.zero_()


def _pass(tower: nn.Sequential, first: int) -> None:
    """The tower gives DIM columns of its input, from `first` on: x is relu(x) - relu(-x)."""
    wide, narrow = (layer for layer in tower if isinstance(layer, nn.Linear))
    both = torch.cat([torch.eye(DIM), -torch.eye(DIM)])
    for layer in (wide, narrow):
        layer.weight.zero_()
        layer.bias.zero_()
    wide.weight[: 2 * DIM, first : first + DIM] = both
    narrow.weight[:, : 2 * DIM] = both.T


def _tables(items: int, history: int) -> Tables:
    """The first half of a history is of one cluster, the second of another."""
    histories = _histories(items, history)
    users = np.repeat(np.arange(len(histories)), history)
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


def _histories(items: int, history: int) -> I64:
    """(users, history) rows of items. Each of these stands there twice, the second time from the
    end: what a user touched last is held out, and an item that was never touched is unknown."""
    users = items // history
    order = np.argsort(clusters(items, 0), kind="stable")[: users * history]
    halves = np.random.default_rng(2).permutation(order.reshape(2 * users, history // 2))
    first = halves.reshape(users, history)
    return np.concatenate([first, first[:, ::-1]])
