"""Index parameters found by measuring: what is chosen reaches the goal, and nothing cheaper did."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contract.arrays import F32
from contract.errors import GateError
from contract.index import load_backend, open_index, params_from
from contract.manifest import Index
from offline import tune
from offline.truth import measure

K = 20
TUNABLE = ("faiss_ivf", "faiss_ivfpq", "faiss_hnsw", "hnswlib", "annoy")


def clustered(rows: int, dim: int, seed: int) -> F32:
    centres = np.random.default_rng(5).standard_normal((60, dim), dtype=np.float32)
    rng = np.random.default_rng(seed)
    x = centres[rng.integers(0, len(centres), rows)]
    x += 0.5 * rng.standard_normal((rows, dim), dtype=np.float32)
    unit: F32 = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit


@pytest.fixture(scope="module")
def vectors() -> F32:
    return clustered(6_000, 32, 0)


@pytest.fixture(scope="module")
def users() -> F32:
    return clustered(400, 32, 1)


def recall_of(entry: Index, directory: Path, vectors: F32, goal: tune.Goal) -> float:
    """Of the index that was built in the directory, opened once more."""
    return measure(open_index(entry, directory, vectors), len(vectors), goal.truth).recall


@pytest.mark.parametrize("name", TUNABLE)
def test_the_chosen_effort_reaches_the_goal_and_no_smaller_one_measured_did(
    name: str, vectors: F32, users: F32, tmp_path: Path
) -> None:
    goal = tune.goal(vectors, users, 0.9, K)

    entry = tune.tune(name, vectors, {}, tmp_path, goal)

    kind = load_backend(name)
    assert kind.effort is not None
    chosen = entry.search[kind.effort.name]
    smaller = [point.recall for point in entry.curve if point.effort < chosen]
    assert all(recall < 0.9 for recall in smaller)
    assert entry.curve[0].effort >= kind.effort.least(K)
    assert recall_of(entry, tmp_path, vectors, goal) >= 0.9
    assert f"wanted {0.9}" in entry.why
    assert [p.effort for p in entry.curve] == sorted(p.effort for p in entry.curve)


def test_of_many_users_some_are_measured_with_and_each_with_what_they_saw(
    vectors: F32, users: F32
) -> None:
    seen = [np.array([user]) for user in range(len(users))]
    goal = tune.goal(vectors, users, 0.9, K, seen)

    assert goal.truth.queries.shape == (tune.QUERIES, 32)
    asked = [int(user) for (user,) in goal.truth.seen]
    assert asked == np.linspace(0, len(users) - 1, tune.QUERIES, dtype=np.int64).tolist()
    np.testing.assert_array_equal(goal.truth.queries, users[asked])


def test_what_users_have_seen_asks_for_more_effort(
    vectors: F32, users: F32, tmp_path: Path
) -> None:
    """Whoever has seen what lies nearest wants what lies behind it."""
    nearest = [np.argsort(-scores)[: 4 * K].astype(np.int32) for scores in users @ vectors.T]
    whole = tune.goal(vectors, users, 0.99, K)
    rest = tune.goal(vectors, users, 0.99, K, nearest)

    alone, seen = (tune.tune("faiss_ivf", vectors, {}, tmp_path, one) for one in (whole, rest))

    assert seen.search["probes"] > alone.search["probes"]
    assert f"recall@{K}" in seen.why


def test_a_goal_that_no_effort_reaches_is_refused_with_the_best_found(
    vectors: F32, users: F32, tmp_path: Path
) -> None:
    goal = tune.goal(vectors, users, 1.01, K)

    with pytest.raises(GateError, match=r"annoy: recall@20 is 1\.0000 at most, wanted 1\.01"):
        tune.tune("annoy", vectors, {"trees": 1}, tmp_path, goal)


def test_auto_keeps_the_fastest_that_reaches_the_goal_and_only_its_file(
    vectors: F32, users: F32, tmp_path: Path
) -> None:
    goal = tune.goal(vectors, users, 0.95, K)

    entry = tune.choose(vectors, tmp_path, goal)

    tried = [candidate.backend for candidate in tune.candidates(len(vectors))]
    assert entry.backend in tried
    assert all(entry.why.count(f"{name} at recall") == tried.count(name) for name in tried)
    filename = load_backend(entry.backend).filename
    assert [path.name for path in tmp_path.iterdir()] == ([filename] if filename else [])
    assert recall_of(entry, tmp_path, vectors, goal) >= 0.95


@pytest.mark.parametrize(
    ("items", "tried"),
    [
        (8_000, ("exact",)),
        (8_001, ("faiss_flat", *["faiss_ivf"] * len(tune.SEEDS), "faiss_hnsw")),
        (200_000, ("faiss_flat", *["faiss_ivf"] * len(tune.SEEDS), "faiss_hnsw")),
        (1_000_000, ("faiss_ivf",)),
        (10_000_000, ("faiss_ivf", "faiss_ivfpq")),
    ],
)
def test_auto_tries_what_suits_the_size(items: int, tried: tuple[str, ...]) -> None:
    assert tuple(candidate.backend for candidate in tune.candidates(items)) == tried


def test_lists_are_kept_with_the_seed_that_was_the_fastest(
    vectors: F32, users: F32, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goal = tune.goal(vectors, users, 0.95, K)
    seeds = [tune.Candidate("faiss_ivf", {"seed": seed}) for seed in tune.SEEDS]
    monkeypatch.setattr(tune, "candidates", lambda _: seeds)

    entry = tune.choose(vectors, tmp_path, goal)

    assert entry.build["seed"] in tune.SEEDS
    assert recall_of(entry, tmp_path, vectors, goal) == tune.chosen(entry).recall


def test_an_untuned_index_has_the_parameters_it_was_given(vectors: F32, tmp_path: Path) -> None:
    entry = tune.build("faiss_ivf", vectors, {"lists": 9}, {"probes": 3}, tmp_path)

    kind = load_backend("faiss_ivf")
    assert params_from(kind.Build, entry.build) == replace(kind.Build(), lists=9)
    assert params_from(kind.Search, entry.search) == replace(kind.Search(), probes=3)
    assert entry.curve == ()


def test_a_wider_search_finds_more(vectors: F32, users: F32, tmp_path: Path) -> None:
    entry = tune.tune("faiss_ivf", vectors, {}, tmp_path, tune.goal(vectors, users, 0.99, K))

    recalls = [point.recall for point in entry.curve]
    assert recalls[0] < recalls[-1]


def test_more_effort_is_not_tried_where_it_finds_no_more(users: F32, tmp_path: Path) -> None:
    """Codes this coarse lose what no number of lists brings back."""
    vectors = clustered(60_000, 32, 0)
    goal = tune.goal(vectors, users, 0.999, K)
    kind = load_backend("faiss_ivfpq")
    built = params_from(kind.Build, {"subquantizers": 2, "bits": 4})
    path = tmp_path / "index"
    kind.build(vectors, path, built)

    curve = list(tune._curve(kind, path, vectors, built, goal))

    assert curve[-1].effort < len(vectors) / 4
    assert curve[-1].recall - curve[-2].recall < tune.PLATEAU
    assert all(point.recall < 0.999 for point in curve)
