"""The fallback by segment of users and with recency, out of a bundle that a recipe asked it of."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from contract.bundle import Bundle
from contract.journal import Record
from contract.popularity import DAY, PRIOR
from contract.store import LocalStore
from offline.build import IndexChoice
from offline.data.dataset import Dataset
from offline.models import create_model
from offline.publish import publish
from offline.recipe import Recipe
from offline.run import Description, Run, save_run
from service.answer import Answer
from service.engine import recall
from service.request import Blend, Recall
from service.snapshot import Snapshot, load_snapshot
from service.state import State
from tests.conftest import live
from tests.service.reference import TOLERANCE

HALF_LIFE = 30.0


@pytest.fixture(scope="module")
def snapshot(
    dataset: Dataset, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> Snapshot:
    """Of a model that reads histories alone, never trained."""
    folder = tmp_path_factory.mktemp("popularity")
    asked = recipe.model_dump() | {
        "model": "item2vec",
        "parameters": {"dim": 8},
        "popularity": {"segment": "country", "half_life_days": HALF_LIFE},
    }
    torch.manual_seed(1)
    model = create_model("item2vec", dataset.schema, 300, 210, {"dim": 8})
    description = Description(
        recipe=Recipe.model_validate(asked),
        features=dataset.schema,
        seq=0,
        epochs=(),
        samples_per_second=0.0,
        metrics={},
    )
    run: Run = save_run(folder / "run", description, dataset, model)
    store = LocalStore(folder / "store")
    publish(run, store, "live", IndexChoice("exact"), force=True)
    return load_snapshot(live(store))


@pytest.fixture
def state(snapshot: Snapshot) -> State:
    return State.of(snapshot, 1000, 0)


def shares(bundle: Bundle, dataset: Dataset, country: str | None) -> dict[str, float]:
    """Every item with its share, counted one interaction at a time."""
    field = dataset.schema.users.block("country")
    wanted = dataset.schema.users.field("country")
    assert field
    assert wanted
    newest = int(dataset.sequences.times.max())
    everyone = dict.fromkeys(dataset.item_ids, 0.0)
    own = dict.fromkeys(dataset.item_ids, 0.0)
    for user, codes in enumerate(dataset.users.codes[:, field.start].tolist()):
        begin, end = dataset.sequences.offsets[user : user + 2]
        for at in range(begin, end):
            item_id = dataset.item_ids[dataset.sequences.items[at]]
            age = (newest - int(dataset.sequences.times[at])) / DAY
            everyone[item_id] += 0.5 ** (age / HALF_LIFE)
            if country is not None and codes == wanted.values.index(country) + 1:  # type: ignore[union-attr]
                own[item_id] += 0.5 ** (age / HALF_LIFE)
    total = sum(everyone.values())
    if country is None:
        return {item_id: weight / total for item_id, weight in everyone.items()}
    whole = sum(own.values()) + PRIOR
    return {i: (own[i] + PRIOR * everyone[i] / total) / whole for i in own}


def assert_shares(answer: Answer, wanted: dict[str, float], eligible: set[str]) -> None:
    found = {item.item_id: item.score for item in answer.items}
    assert found.keys() == eligible
    assert found == pytest.approx({i: wanted.get(i, 0.0) for i in found}, abs=TOLERANCE)
    scores = list(found.values())
    assert scores == sorted(scores, reverse=True)


def test_nobody_gets_what_is_popular_now(state: State, dataset: Dataset) -> None:
    bundle = state.snapshot.bundle
    recent = shares(bundle, dataset, None)
    raw = np.argsort(-bundle.popularity, kind="stable")[:10].tolist()

    answer = recall(state, Recall(210))

    assert answer.source == "fallback"
    assert_shares(answer, recent, set(dataset.item_ids))
    assert [item.item_id for item in answer.items[:10]] != [dataset.item_ids[row] for row in raw]


def test_a_profile_that_the_model_does_not_read_chooses_the_segment(
    state: State, dataset: Dataset
) -> None:
    countries = dataset.schema.users.fields[1]
    for country in countries.values[:2]:  # type: ignore[union-attr]
        answer = recall(state, Recall(210, "nobody", features={"country": country}))
        assert answer.source == "fallback"
        wanted = shares(state.snapshot.bundle, dataset, country)
        assert_shares(answer, wanted, set(dataset.item_ids))
    unknown = recall(state, Recall(210, features={"country": "Atlantis"}))
    assert list(unknown.items) == list(recall(state, Recall(210)).items)


def test_a_known_user_has_the_popular_items_of_their_segment(
    state: State, dataset: Dataset
) -> None:
    bundle = state.snapshot.bundle
    field = dataset.schema.users.block("country")
    assert field
    code = int(dataset.users.codes[17, field.start])
    country = dataset.schema.users.fields[1].values[code - 1]  # type: ignore[union-attr]

    answer = recall(state, Recall(210, "u17", blend=Blend(sources={"popular": 1.0})))

    seen = set(bundle.item_ids.of_rows(bundle.user_items(17)[0].tolist()))
    assert_shares(answer, shares(bundle, dataset, country), set(dataset.item_ids) - seen)
    assert recall(state, Recall(5, "u17")).source == "model"


def test_behind_the_list_of_the_bundle_stands_every_other_item_then_new_ones(
    snapshot: Snapshot, dataset: Dataset
) -> None:
    depth = 20
    arrays = snapshot.bundle.arrays
    short = {name: arrays[name][:, :depth] for name in ("popular_rows", "popular_scores")}
    bundle = replace(snapshot.bundle, arrays={**arrays, **short})
    state = State.of(replace(snapshot, bundle=bundle), 1000, 0)
    listed = bundle.item_ids.of_rows(bundle.popular_rows[0].tolist())
    features = json.loads(bundle.attributes[bundle.item_ids.row(listed[3])])
    bodies = [{"item_id": "new"}, {"item_id": listed[3], "features": features}, {"item_id": "new"}]
    state.apply([Record(n, 0.0, "item", body) for n, body in enumerate(bodies, start=1)])
    state.apply([Record(4, 0.0, "delete", {"item_id": listed[0]})])

    answer = recall(state, Recall(300, exclude=[listed[1]]))

    found = [item.item_id for item in answer.items]
    assert found[: depth - 2] == listed[2:]
    assert answer.items[1].source == "overlay"
    order = np.argsort(-bundle.popularity, kind="stable").tolist()
    rest = [dataset.item_ids[row] for row in order if dataset.item_ids[row] not in listed]
    assert found[depth - 2 :] == [*rest, "new"]
    scores = [item.score for item in answer.items]
    assert scores == sorted(scores, reverse=True)
