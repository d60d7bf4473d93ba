"""What is drawn: how many places, how likely, and from which seed."""

from collections import Counter
from math import exp

import numpy as np
import pytest

from contract.journal import Record
from service.explore import generator, perturbed, places
from service.request import Recall
from service.snapshot import Snapshot
from service.state import State

DRAWS = 20_000


@pytest.mark.parametrize(
    ("share", "k", "wanted"), [(0.0, 50, 0), (0.1, 50, 5), (0.1, 5, 1), (0.09, 5, 0), (1.0, 7, 7)]
)
def test_a_share_of_the_places_is_rounded(share: float, k: int, wanted: int) -> None:
    assert places(share, k) == wanted


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_first_two_are_drawn_without_replacement_as_the_softmax_says(
    temperature: float,
) -> None:
    relevance = np.array([1.0, 0.5, 0.0], np.float32)
    rng = np.random.default_rng(3)

    found = Counter(
        tuple(np.argsort(-perturbed(relevance, temperature, rng))[:2].tolist())
        for _ in range(DRAWS)
    )

    weights = [exp(r / temperature) for r in relevance.tolist()]
    for first in range(3):
        for second in {0, 1, 2} - {first}:
            rest = sum(weights) - weights[first]
            chance = weights[first] / sum(weights) * weights[second] / rest
            deviation = (chance * (1 - chance) / DRAWS) ** 0.5
            assert found[first, second] / DRAWS == pytest.approx(chance, abs=4 * deviation)


def test_a_low_temperature_keeps_the_order_of_relevance() -> None:
    relevance = np.linspace(1, 0, 20, dtype=np.float32)

    drawn = perturbed(relevance, 1e-4, np.random.default_rng(1))

    assert np.argsort(-drawn).tolist() == list(range(20))


def first_draw(state: State, request: Recall, seed: int | None = None) -> float:
    return float(generator(state, request, seed).random())


def test_a_seed_follows_from_who_asks_and_what_was_written(snapshot: Snapshot) -> None:
    request = Recall(5, "u1")
    state, twin = State.of(snapshot, 1000, 1), State.of(snapshot, 1000, 1)
    before = first_draw(state, request)

    assert first_draw(twin, request) == before
    assert first_draw(state, Recall(5, "u2")) != before
    assert first_draw(state, Recall(5, "u1", history=["i1"])) != before
    event = Record(4, 0.0, "event", {"user_id": "u1", "item_id": "i1"})
    state.apply([event])
    assert first_draw(state, request) != before
    twin.apply([event])
    assert first_draw(state, request) == first_draw(twin, request)
    assert first_draw(state, request, seed=9) == first_draw(twin, Recall(7, "u3"), seed=9)
