import copy
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from contract.features import Block, Encoded
from offline.data.dataset import Dataset, prepare
from offline.data.synthetic import generate
from offline.embed import embed_items, known_rows
from offline.evaluate import embed
from offline.export import export_towers
from offline.layers import Regressor
from offline.models.base import Retriever
from offline.recipe import Recipe, parse_recipe
from offline.regressor import fit_regressor
from offline.towers import ITEM_INPUTS, Towers, run_tower
from offline.train import train

ITEMS, CATEGORIES, DIM = 400, 5, 6
COLD = 12
MODELS = ("item2vec", "youtube_dnn", "sasrec")


class Shelf(nn.Module):
    """As little of a model as a regressor needs."""

    def __init__(self, blocks: tuple[Block, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.item_identity = nn.Embedding(ITEMS + 1, DIM)
        self.regressor = Regressor(self.item_identity, blocks, 0)


class World:
    """The identity of an item is that of its category, far from 0, and a little of its own."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.categories = torch.arange(ITEMS) % CATEGORIES
        self.centers = 5 + 3 * torch.randn(CATEGORIES, DIM, generator=generator)
        self.own = 0.1 * torch.randn(ITEMS, DIM, generator=generator)
        codes = (self.categories + 1).unsqueeze(1).numpy().astype(np.int32)
        self.items = Encoded(codes, np.empty((ITEMS, 0), np.float32))

    def shelf(self) -> Shelf:
        shelf = Shelf((Block(0, 1, CATEGORIES + 1),))
        with torch.no_grad():
            shelf.item_identity.weight[1:] = self.centers[self.categories] + self.own
        return shelf.eval()

    def encode(self, shelf: Shelf, identity: Tensor) -> Tensor:
        codes, numbers = map(torch.from_numpy, self.items)
        with torch.no_grad():
            return cast(Tensor, shelf.regressor(identity, codes, numbers))


def fit(shelf: Shelf, world: World, seed: int = 1) -> None:
    seen = np.flatnonzero(np.arange(ITEMS) % 4)  # the others were not
    fit_regressor(cast(Retriever, shelf), world.items, seen, seed)


def test_an_unknown_item_gets_the_identity_that_its_content_tells() -> None:
    world = World()
    shelf = world.shelf()

    before = world.encode(shelf, torch.zeros(ITEMS, DIM))
    fit(shelf, world)
    after = world.encode(shelf, torch.zeros(ITEMS, DIM))

    assert not before.any()
    torch.testing.assert_close(after, world.centers[world.categories], atol=0.3, rtol=0)


def test_a_known_item_keeps_its_own_identity() -> None:
    world = World()
    shelf = world.shelf()
    identity = shelf.item_identity.weight.detach()
    fit(shelf, world)

    mixed = identity[1:].clone()
    mixed[::2] = 0
    found = world.encode(shelf, mixed)

    assert torch.equal(found[1::2], identity[2::2])
    assert bool((found[::2] != identity[1::2]).all())


def test_a_fit_leaves_the_identities_as_they_are_and_is_the_same_each_time() -> None:
    world = World()
    shelf, again = world.shelf(), world.shelf()
    before = shelf.item_identity.weight.detach().clone()

    fit(shelf, world)
    torch.rand(7)
    fit(again, world)

    assert torch.equal(shelf.item_identity.weight, before)
    assert not shelf.item_identity.weight[0].any()
    for name, value in shelf.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_without_features_an_unknown_item_stays_unknown() -> None:
    shelf = Shelf(()).eval()
    before = copy.deepcopy(shelf.state_dict())
    none = np.empty((ITEMS, 0))

    fit_regressor(
        cast(Retriever, shelf),
        Encoded(none.astype(np.int32), none.astype(np.float32)),
        np.arange(ITEMS),
        1,
    )

    assert list(before) == ["item_identity.weight"]
    empty = torch.empty(1, 0)
    assert not shelf.regressor(torch.zeros(1, DIM), empty.int(), empty).any()


def test_few_items_are_enough() -> None:
    world = World()
    shelf = world.shelf()

    fit_regressor(cast(Retriever, shelf), world.items, np.array([0, 1]), 1)

    mean = shelf.item_identity.weight.detach()[1:3].mean(0)
    torch.testing.assert_close(world.encode(shelf, torch.zeros(ITEMS, DIM))[0], mean)


@pytest.fixture(scope="module")
def shop() -> Dataset:
    world = generate(users=200, items=120, interactions=8000, interests=4, seed=2, cold=COLD)
    return prepare(world.tables, {}, {"category": "category", "tags": "multi"}, 10)


@pytest.fixture(scope="module", params=MODELS)
def trained(request: pytest.FixtureRequest, shop: Dataset) -> Retriever:
    return train(recipe(request.param), shop, "cpu", lambda epoch: None).model


def recipe(model: str) -> Recipe:
    return parse_recipe(
        {
            "model": model,
            "history_length": 10,
            "parameters": {"dim": 16},
            "negatives": "full",
            "objective_parameters": {"temperature": 0.1},
            "training": {"epochs": 8, "batch": 512, "learning_rate": 0.01},
        },
        model,
    )


def test_training_leaves_the_unknown_identity_at_zero(trained: Retriever) -> None:
    assert not trained.item_identity.weight[0].any()
    assert trained.item_identity.weight[1:-COLD].any(1).all()


def test_items_that_training_never_saw_lie_near_those_of_their_category(
    trained: Retriever, shop: Dataset
) -> None:
    categories = np.array(shop.attributes["category"].to_list())
    vectors = embed(trained, shop).items.items
    scores = vectors[-COLD:] @ vectors[:-COLD].T
    same = categories[-COLD:, None] == categories[None, :-COLD]

    assert scores[same].mean() > scores[~same].mean() + 0.3


def test_the_exported_item_tower_knows_what_to_do_with_an_unknown_item(
    trained: Retriever, shop: Dataset, tmp_path: Path
) -> None:
    export_towers(trained, shop.schema, tmp_path)
    known = known_rows(shop.counts(shop.split().train_end))
    known[:5] = 0
    identity = trained.item_identity.weight.detach().numpy()[known]

    arrays = (identity, *shop.items)
    found = run_tower(Towers.open(tmp_path).item, dict(zip(ITEM_INPUTS, arrays, strict=True)))

    wanted = embed_items(trained, shop, known)
    np.testing.assert_allclose(found[0], wanted.items, atol=1e-5)
    np.testing.assert_allclose(found[1], wanted.history, atol=1e-5)
    assert (known == 0).sum() >= COLD + 5


def test_with_id_dropout_a_model_learns_the_unknown_item_itself(shop: Dataset) -> None:
    document = recipe("sasrec").model_dump()
    document["parameters"] |= {"id_dropout": 0.2}
    document["training"] |= {"epochs": 1}

    model = train(parse_recipe(document, "dropout"), shop, "cpu", lambda epoch: None).model

    assert model.item_identity.weight[0].any()
    assert not [name for name in cast(nn.Module, model).state_dict() if "regressor" in name]
