"""The reference of a bundle against the same computed plainly."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from contract.arrays import F32, I64
from contract.bundle import Bundle, ItemState
from contract.reference import DECILES, DEPTH, decile, signals
from offline import reference
from offline.towers import Towers, user_vectors


@pytest.fixture(scope="module")
def users(bundle: Bundle) -> I64:
    return np.arange(100)


@pytest.fixture(scope="module")
def vectors(bundle: Bundle, users: I64) -> F32:
    return user_vectors(Towers.open(bundle.path), bundle, users)


def answer(bundle: Bundle, user: int, vectors: F32) -> tuple[list[int], F32]:
    """The first DEPTH available items that a user has not seen, by sorting all of them."""
    scores = (vectors @ bundle.item_vectors.T).max(axis=0)
    scores[bundle.item_states != ItemState.AVAILABLE] = -np.inf
    scores[bundle.user_items(user)[0]] = -np.inf
    rows = np.argsort(-scores)[:DEPTH]
    return rows.tolist(), scores[rows]


def test_a_reference_is_what_all_pairs_and_all_users_say(
    bundle: Bundle, users: I64, vectors: F32
) -> None:
    answers = [answer(bundle, user, of) for user, of in zip(users, vectors, strict=True)]
    pairs = [len(set(a) & set(b)) / DEPTH for (a, _), (b, _) in combinations(answers, 2)]

    found = reference.measure(bundle, users, vectors)

    assert found
    assert found.overlap == pytest.approx(np.mean(pairs))
    best = [float(scores[0]) for _, scores in answers]
    tenth = [float(scores[-1]) for _, scores in answers]
    for edges, values in ((found.deciles["best"], best), (found.deciles["tenth"], tenth)):
        counts = np.bincount([decile(edges, value) for value in values])
        assert counts.tolist() == pytest.approx([10] * DECILES, abs=1)


def test_a_signal_that_is_the_same_for_all_is_left_out(
    bundle: Bundle, users: I64, vectors: F32
) -> None:
    longer = vectors * np.linspace(1, 2, len(users), dtype=np.float32)[:, None, None]

    # The model of the tests normalises its vectors, but for rounding.
    assert {float(n) for n in np.linalg.norm(vectors, axis=-1).ravel()} != {1.0}
    alike, different = (reference.measure(bundle, users, v) for v in (vectors, longer))

    assert alike
    assert alike.deciles.keys() == {"best", "tenth"}
    assert different
    assert different.deciles["norm"] == pytest.approx(np.arange(1.1, 2, 0.1), abs=0.01)


def test_interests_are_searched_together_and_measured_as_one(
    bundle: Bundle, users: I64, vectors: F32
) -> None:
    two = np.concatenate([vectors, vectors[::-1]], axis=1)

    found = reference.measure(bundle, users, two)

    assert found
    best = np.array([answer(bundle, u, of)[1][0] for u, of in zip(users, two, strict=True)])
    assert found.deciles["best"] == pytest.approx(
        np.quantile(best, np.arange(1, 10) / 10), abs=1e-3
    )
    assert signals(two[0], best)["norm"] == pytest.approx(1.0)


def test_too_few_users_make_no_reference(bundle: Bundle, users: I64, vectors: F32) -> None:
    few = slice(reference.LEAST_USERS - 1)
    broken = np.full_like(vectors, np.nan)
    nobody = replace(
        bundle, arrays={**bundle.arrays, "user_items_offsets": np.zeros(len(users) + 1, np.int64)}
    )

    assert reference.measure(bundle, users[few], vectors[few]) is None
    assert reference.measure(nobody, users, vectors) is None
    assert reference.measure(bundle, users, broken) is None


def test_a_published_bundle_carries_its_reference(bundle: Bundle) -> None:
    carried = bundle.manifest.reference

    assert carried
    assert carried.deciles.keys() == {"best", "tenth"}
    assert 0 < carried.overlap < 1
