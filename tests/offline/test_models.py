"""What every model of the table promises: as it is defined, trained, saved, exported and served."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import cast

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from contract.arrays import F32, I64
from contract.bundle import Bundle, open_bundle
from contract.store import LocalStore
from offline.build import IndexChoice
from offline.checkpoint import Epoch
from offline.data.dataset import Dataset, prepare, windows
from offline.data.synthetic import generate
from offline.evaluate import embed, targets
from offline.metrics import ranking_metrics
from offline.models import DATA_PARAMETERS, MODELS, create_model, reads_several
from offline.models.base import Retriever
from offline.publish import publish
from offline.recipe import Recipe, parse_recipe
from offline.run import Run, load_run
from offline.towers import ITEM_INPUTS, USER_INPUTS, Towers, run_tower
from offline.train import train
from tests.conftest import RECIPE, trained_run
from tests.offline.training import assert_same, changed, of_model, other_value, trained
from tests.service.server import Server, wait_until

LENGTH, COLD, K = 20, 10, 10
ROWS, WIDTH = 4, 9
HISTORIES = ("view", "like")
USER = 7

SETTINGS = {
    "history_length": LENGTH,
    "negatives": "full",
    "training": {"epochs": 8, "batch": 256, "learning_rate": 0.02},
}
OTHERS: dict[str, object] = {"heads": 2, "dim": 24}
"""Parameters for which not any value will do."""


@pytest.fixture(scope="module", params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def data(name: str) -> Dataset:
    """With several histories for a model that reads them."""
    world = generate(users=200, items=150, interactions=8000, interests=6, seed=3, cold=COLD)
    log = world.tables.interactions
    kinds = np.random.default_rng(5).choice([*HISTORIES, "share"], len(log))
    tables = replace(world.tables, interactions=log.with_columns(pl.Series("kind", kinds)))
    features = parse_recipe(RECIPE, "the recipe of the tests").features
    histories = HISTORIES if reads_several(name) else ()
    return prepare(tables, features.users, features.items, LENGTH, histories=histories)


@pytest.fixture(scope="module")
def run(name: str, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The model, trained and on disk. Not to be changed."""
    recipe = of_model(parse_recipe(RECIPE | SETTINGS, name), name)
    return trained_run(data, recipe, tmp_path_factory.mktemp(name) / "run")


@dataclass(frozen=True)
class Inputs:
    """What the user side of a model takes; histories of WIDTH, 5, 1 and no items."""

    identity: Tensor
    codes: Tensor
    numbers: Tensor
    history: Tensor
    mask: Tensor
    kinds: Tensor

    def vectors(self, model: Retriever) -> Tensor:
        """(B, W, K, D)"""
        return model.sequence_vectors(*self.parts())

    def user_vectors(self, model: Retriever) -> Tensor:
        """(B, K, D), out of as many columns as the service gives."""
        history = pad(self.history, (0, 0, LENGTH - self.history.shape[1], 0))
        mask, kinds = (pad(part, (LENGTH - part.shape[1], 0)) for part in (self.mask, self.kinds))
        return model.user_vectors(self.identity, self.codes, self.numbers, history, mask, kinds)

    def at(self, columns: slice) -> "Inputs":
        history, mask, kinds = (part[:, columns] for part in self.parts()[3:])
        return replace(self, history=history, mask=mask, kinds=kinds)

    def parts(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))


@pytest.fixture(scope="module")
def table(run: Run) -> F32:
    return embed(run.model, run.dataset).items.history


@pytest.fixture(scope="module")
def inputs(run: Run, table: F32) -> Inputs:
    model, users = run.model, torch.arange(ROWS)
    codes, numbers = (torch.from_numpy(array)[users] for array in run.dataset.users)
    taken = torch.tensor([WIDTH, 5, 1, 0])
    mask = (torch.arange(WIDTH) >= WIDTH - taken.unsqueeze(1)).float()
    rows = np.random.default_rng(1).integers(0, len(table), (ROWS, WIDTH))
    history = torch.from_numpy(table[rows]) * mask.unsqueeze(2)
    kinds = torch.from_numpy(np.random.default_rng(2).integers(0, 3, (ROWS, WIDTH)))
    return Inputs(model.user_identity(users + 1).detach(), codes, numbers, history, mask, kinds)


@torch.no_grad()
def test_vectors_have_the_shapes_that_the_model_says(run: Run, inputs: Inputs) -> None:
    model = run.model
    users, sequences = inputs.user_vectors(model), inputs.vectors(model)
    codes, numbers = (torch.from_numpy(array)[:5] for array in run.dataset.items)
    made = model.item_inputs(model.item_identity.weight[1:6], codes, numbers)
    items, history = model.item_vectors(made), model.history_vectors(made)

    assert users.shape == (ROWS, model.interests, model.dim)
    assert sequences.shape == (ROWS, WIDTH, model.interests, model.dim)
    assert (items.shape, history.shape) == ((5, model.dim), (5, model.history_dim))
    assert {v.dtype for v in (users, sequences, items, history)} == {torch.float32}


@torch.no_grad()
def test_the_last_position_of_a_sequence_is_the_user(run: Run, inputs: Inputs) -> None:
    for part in (inputs, inputs.at(slice(WIDTH - 1, WIDTH))):
        torch.testing.assert_close(part.vectors(run.model)[:, -1], part.user_vectors(run.model))


@torch.no_grad()
def test_a_position_sees_itself_and_what_is_before_it_and_nothing_after(
    run: Run, inputs: Inputs
) -> None:
    before = inputs.vectors(run.model)[0]
    for column in (2, WIDTH - 1):
        history = inputs.history.clone()
        history[0, column] = inputs.history[0, column - 1] - inputs.history[0, column]
        other = replace(inputs, history=history)

        after = other.vectors(run.model)[0]

        torch.testing.assert_close(after[:column], before[:column])
        assert (after[column] - before[column]).abs().max() > 1e-4


@torch.no_grad()
def test_a_history_that_is_padded_is_the_history(run: Run, inputs: Inputs) -> None:
    padded = inputs.vectors(run.model)[1]
    alone = inputs.at(slice(WIDTH - 5, WIDTH)).vectors(run.model)[1]

    torch.testing.assert_close(padded[-5:], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_user_does_not_depend_on_who_else_is_asked_for(run: Run, inputs: Inputs) -> None:
    together = inputs.user_vectors(run.model)
    for user in range(ROWS):
        parts = (part[user : user + 1] for part in inputs.parts())
        alone = Inputs(*parts).user_vectors(run.model)
        torch.testing.assert_close(alone[0], together[user], rtol=1e-4, atol=1e-5)


def test_a_position_without_history_has_finite_vectors_and_gradients(
    run: Run, inputs: Inputs
) -> None:
    model = load_run(run.path).model
    history = inputs.history.clone().requires_grad_()
    vectors = replace(inputs, history=history).vectors(model)
    torch.autograd.backward((vectors * torch.arange(model.dim)).sum())

    assert torch.isfinite(vectors).all()
    assert history.grad is not None
    assert torch.isfinite(history.grad).all()
    for path, parameter in cast(nn.Module, model).named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), path


def test_the_loss_falls(run: Run) -> None:
    first, *_, last = run.description.epochs

    assert last.loss < first.loss - 0.1


def test_every_weight_is_trained(run: Run) -> None:
    recipe, dataset = run.description.recipe, run.dataset
    users, items = len(dataset.user_ids), len(dataset.item_ids)
    torch.manual_seed(recipe.seed)

    fresh = create_model(recipe.model, dataset.schema, users, items, recipe.parameters)

    before = cast(nn.Module, fresh).state_dict()
    after = dict(cast(nn.Module, run.model).named_parameters())
    same = [n for n, p in after.items() if p.numel() and torch.equal(p, before[n])]
    # A regressor is left alone where the content says nothing of the identities.
    assert [n for n in same if not n.startswith("regressor.")] == []


def popularity_ranks(dataset: Dataset) -> I64:
    counts = dataset.counts(dataset.split().train_end)
    offsets, items, *_ = dataset.sequences
    found = []
    for user, position in zip(*targets(dataset, "test"), strict=True):
        unseen = counts.copy()
        unseen[items[offsets[user] : position]] = -1
        found.append(int((unseen > unseen[items[position]]).sum()))
    return np.array(found)


def test_the_planted_structure_is_found(run: Run) -> None:
    popular = ranking_metrics(popularity_ranks(run.dataset), (K,))

    for metric in ("HR@10", "NDCG@10"):
        assert run.description.metrics[metric] > 1.5 * popular[metric]


def test_a_saved_model_is_the_model(run: Run) -> None:
    loaded = load_run(run.path)

    ours, theirs = (embed(r.model, r.dataset) for r in (loaded, run))
    users, positions = targets(run.dataset, "test")

    np.testing.assert_array_equal(ours.items.items, theirs.items.items)
    np.testing.assert_array_equal(ours.items.history, theirs.items.history)
    np.testing.assert_array_equal(
        ours.embed_users(users, positions), theirs.embed_users(users, positions)
    )


class Stopped(Exception):
    pass


def stop(epoch: Epoch) -> None:
    raise Stopped


def test_a_training_that_was_stopped_ends_as_one_that_was_not(
    name: str, short: Recipe, tiny: Dataset, tmp_path: Path
) -> None:
    recipe = of_model(short, name)
    with pytest.raises(Stopped):
        train(recipe, tiny, "cpu", stop, tmp_path / "kept")

    resumed = train(recipe, tiny, "cpu", lambda epoch: None, tmp_path / "kept")

    assert len(resumed.history) == 2
    assert_same(resumed, trained(recipe, tiny))


def test_every_parameter_changes_the_outcome(name: str, short: Recipe, tiny: Dataset) -> None:
    once = changed(short, training={"epochs": 1})

    def outcome(**parameters: object) -> list[tuple[float, ...]]:
        history = trained(of_model(once, name, **parameters), tiny).history
        return [(epoch.loss, epoch.score) for epoch in history]

    # With each at its default: the sizes of the other tests are not.
    known = inspect.signature(MODELS[name]).parameters
    defaults = {n: p.default for n, p in known.items() if n not in DATA_PARAMETERS}
    others = {n: OTHERS.get(n, other_value(default)) for n, default in defaults.items()}
    before = outcome(**defaults)

    assert [n for n in others if outcome(**defaults | {n: others[n]}) == before] == []


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    return LocalStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def bundle(run: Run, name: str, store: LocalStore) -> Bundle:
    """Published behind a channel of the model's name."""
    manifest = publish(run, store, name, IndexChoice("exact"))
    return open_bundle(store.bundle(manifest.version))


def test_the_exported_towers_answer_as_the_model_does(run: Run, bundle: Bundle, table: F32) -> None:
    towers, dataset, found = Towers.open(bundle.path), run.dataset, embed(run.model, run.dataset)
    users = np.arange(ROWS)
    positions = dataset.sequences.offsets[users] + np.array([0, 1, 7, 30])
    rows, mask, kinds = windows(dataset.sequences, users, positions, LENGTH)
    values = (
        bundle.user_identity[users + 1],
        dataset.users.codes[users],
        dataset.users.numbers[users],
        table[rows] * mask[:, :, None],
        mask.astype(np.float32),
        kinds.astype(np.int32),
    )
    last = np.arange(len(dataset.item_ids))[-COLD - 5 :]
    items = (bundle.item_identity[last + 1], *(array[last] for array in dataset.items))

    (vectors,) = run_tower(towers.user, dict(zip(USER_INPUTS, values, strict=True)))
    item_vectors, history = run_tower(towers.item, dict(zip(ITEM_INPUTS, items, strict=True)))

    assert mask.sum(axis=1).tolist() == [0, 1, 7, LENGTH]
    np.testing.assert_allclose(vectors, found.embed_users(users, positions), atol=1e-4)
    np.testing.assert_allclose(item_vectors, found.items.items[last], atol=1e-4)
    np.testing.assert_allclose(history, found.items.history[last], atol=1e-4)


@pytest.fixture(scope="module")
def server(store: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One service for all models: each is swapped in."""
    server = Server(store.root, tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


def swap(server: Server, store: LocalStore, version: str) -> None:
    store.point("live", version)

    def serving() -> bool:
        answer = server.fresh("/v1/bundle")
        return answer is not None and answer.status_code == 200 and version in answer.text

    wait_until(serving, f"bundle {version} to be served; see {server.state}")


def test_it_is_published_and_served_and_takes_new_items(
    run: Run, name: str, bundle: Bundle, store: LocalStore, server: Server
) -> None:
    dataset, new = run.dataset, f"new-{name}"
    end = dataset.sequences.offsets[USER + 1 : USER + 2]
    seen = dataset.sequences.items[dataset.sequences.offsets[USER] : int(end[0])]
    found = embed(run.model, dataset)
    vectors = found.embed_users(np.array([USER]), end)[0]  # (K, D)
    scores = (vectors @ found.items.items.T).max(axis=0)
    scores[seen] = -np.inf
    features = {"category": "detective stories", "title": "A Clue in the Night"}
    encoded = dataset.schema.items.encode([features])
    unknown = torch.from_numpy(bundle.item_identity[:1].copy())
    with torch.no_grad():
        inputs = run.model.item_inputs(unknown, *map(torch.from_numpy, encoded))
        cold = run.model.item_vectors(inputs).numpy()

    swap(server, store, bundle.version)
    path = f"/v1/recommendations/{dataset.user_ids[USER]}"
    first = server.client.get(path, params={"k": 1000}).json()
    posted = server.client.post("/v1/items", json={"item_id": new, "features": features})
    second = server.client.get(path, params={"k": 1000}).json()

    assert (first["source"], first["bundle"]) == ("model", bundle.version)
    bundled = [i for i in first["items"] if i["source"] == "bundle"]
    rows = [dataset.item_ids.index(item["item_id"]) for item in bundled]
    assert sorted(rows) == np.flatnonzero(np.isfinite(scores)).tolist()
    np.testing.assert_allclose([i["score"] for i in bundled], scores[rows], atol=1e-4)
    assert scores[rows].tolist() == pytest.approx(
        np.sort(scores)[::-1][: len(rows)].tolist(), abs=1e-4
    )
    assert posted.status_code == 201
    (appended,) = (item for item in second["items"] if item["item_id"] == new)
    assert appended["source"] == "overlay"
    assert appended["score"] == pytest.approx(float((vectors @ cold[0]).max()), abs=1e-4)
    assert {i["item_id"] for i in second["items"]} == {i["item_id"] for i in first["items"]} | {new}
