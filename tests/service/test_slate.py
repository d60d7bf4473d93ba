"""The greedy list against the formula, written out pair by pair; and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.arrays import F32, I32
from service.slate import Pool, Rules, Slate

CODES = 5


def pool_of(relevance: F32, vectors: F32, categories: I32) -> Pool:
    rows = np.arange(len(relevance), dtype=np.int64) + 10
    return Pool(rows, relevance * 2 - 1, relevance, vectors, categories)


def made(seed: int, size: int, width: int) -> Pool:
    """Numbers of few bits, so that sums are exact in any order."""
    rng = np.random.default_rng(seed)
    relevance = (rng.integers(0, 65, size) / 64).astype(np.float32)
    vectors = (rng.integers(-8, 9, (size, 3)) / 8).astype(np.float32)
    return pool_of(relevance, vectors, rng.integers(0, CODES, (size, width)).astype(np.int32))


def slowly(pool: Pool, size: int, rules: Rules) -> list[int]:
    """Places, by comparing each candidate with each item of the list at every step."""
    picked: list[int] = []
    while len(picked) < size:
        best, best_worth = -1, -np.inf
        for i in range(len(pool.rows)):
            if i in picked or not allowed(pool, picked, i, rules):
                continue
            alike = max((float(pool.vectors[i] @ pool.vectors[j]) for j in picked), default=0.0)
            others = sum(not categories_of(pool, i) & categories_of(pool, j) for j in picked)
            worth = (1 - rules.diversity) * float(pool.relevance[i]) - rules.diversity * alike
            worth += rules.category_diversity * others
            if worth > best_worth:
                best, best_worth = i, worth
        if best < 0:
            break
        picked.append(best)
    return picked


def categories_of(pool: Pool, place: int) -> set[int]:
    return set(pool.categories[place].tolist()) - {0}


def allowed(pool: Pool, picked: list[int], place: int, rules: Rules) -> bool:
    most = rules.max_per_category or len(pool.rows)
    held = [c for j in picked for c in categories_of(pool, j)]
    return all(held.count(c) < most for c in categories_of(pool, place))


@given(
    seed=st.integers(0, 10_000),
    size=st.integers(0, 25),
    width=st.integers(1, 3),
    wanted=st.integers(1, 30),
    rules=st.builds(
        Rules,
        diversity=st.sampled_from((0.0, 0.25, 0.5, 1.0)),
        category_diversity=st.sampled_from((0.0, 0.125, 1.0)),
        max_per_category=st.none() | st.integers(1, 4),
    ),
    cut=st.integers(0, 30),
)
def test_a_list_is_that_of_the_formula_however_it_is_filled(
    seed: int, size: int, width: int, wanted: int, rules: Rules, cut: int
) -> None:
    pool = made(seed, size, width)
    at_once, in_steps = Slate(CODES), Slate(CODES)

    at_once.fill(pool, wanted, rules)
    in_steps.fill(pool, min(cut, wanted), rules)
    in_steps.fill(pool, wanted, rules)

    places = slowly(pool, wanted, rules)
    assert (at_once.rows - 10).tolist() == places
    assert in_steps.picks == at_once.picks
    for pick, place in zip(at_once.picks, places, strict=True):
        assert pick.score == pool.scores[place]
        assert pick.relevance == pool.relevance[place]
        assert not pick.explored


# Two alike, one that is neither, one against both.
VECTORS = np.array([[1, 0], [0.8, 0.6], [0, 1], [-1, 0]], np.float32)
RELEVANCE = np.array([1.0, 0.9, 0.5, 0.0], np.float32)
CATEGORIES = np.array([[1], [1], [2], [0]], np.int32)


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        (Rules(), [0, 1, 2, 3]),
        # After 0: item 1 is worth .5 (.9 - .8) = .05, item 2 .5 (.5 - 0) = .25, item 3 .5 (0 + 1)
        # = .5. After 3: item 1 .05, item 2 .25.
        (Rules(diversity=0.5), [0, 3, 2, 1]),
        # After 0: item 1 .9, item 2 .5 + .3, item 3 0 + .3; after 1: .5 + .6 and 0 + .6.
        (Rules(category_diversity=0.3), [0, 1, 2, 3]),
        # After 0: item 1 .9, item 2 .5 + .5, item 3 .5; after 2: item 1 .9 + .5, item 3 1.
        (Rules(category_diversity=0.5), [0, 2, 1, 3]),
        (Rules(max_per_category=1), [0, 2, 3]),
    ],
    ids=["plain", "diversity", "little category diversity", "category diversity", "cap"],
)
def test_a_list_by_hand(rules: Rules, wanted: list[int]) -> None:
    slate = Slate(CODES)

    slate.fill(pool_of(RELEVANCE, VECTORS, CATEGORIES), 4, rules)

    assert (slate.rows - 10).tolist() == wanted


def test_what_is_drawn_takes_the_place_of_relevance_and_keeps_to_the_cap() -> None:
    pool = pool_of(RELEVANCE, VECTORS, CATEGORIES)
    drawn = np.array([0.0, 3.0, 1.0, 2.0], np.float32)
    slate = Slate(CODES)

    slate.fill(pool, 1, Rules(max_per_category=1))
    slate.fill(pool, 3, Rules(max_per_category=1), drawn)

    assert (slate.rows - 10).tolist() == [0, 3, 2]
    assert [pick.explored for pick in slate.picks] == [False, True, True]
    assert [pick.relevance for pick in slate.picks] == [1.0, 0.0, 0.5]
    assert slate.full_codes(Rules(max_per_category=1)).tolist() == [False, True, True, False, False]
