import numpy as np
import pytest

from contract.arrays import F64, I64
from contract.errors import RecipeError
from offline.models import check_parameters
from offline.negatives import NEGATIVES, Negatives, Sampler, full, hard, in_batch, mixed, uniform
from offline.negatives import popularity as by_popularity

# Items 2 and 5 never occur in training.
COUNTS = np.array([40, 10, 0, 25, 5, 0, 20])
REAL = COUNTS > 0
SHARE = COUNTS / COUNTS.sum()
NONE = np.empty(0, np.int64)
TRIALS = 4000


def times(sampler: Sampler, targets: I64, seed: int = 0) -> F64:
    """(TRIALS, N): how often each item counts in one draw after another."""
    generator = np.random.default_rng(seed)
    table = np.zeros((TRIALS, len(COUNTS)))
    for trial in table:
        found = sampler.draw(targets, generator)
        trial[found.rows] = np.exp(found.log_weight.astype(np.float64))
    return table


def assert_mean(table: F64, expected: F64) -> None:
    """The mean over the trials is the expected one, up to five standard errors."""
    error = table.std(axis=0) / np.sqrt(TRIALS)
    assert (np.abs(table.mean(axis=0) - expected) <= 5 * error + 1e-6).all()


def test_the_whole_catalogue_is_every_item_of_the_training_once() -> None:
    found = full(COUNTS).draw(np.array([3, 3]), np.random.default_rng(0))

    assert found.rows.tolist() == [0, 1, 3, 4, 6]
    assert found.log_weight.tolist() == [0.0] * 5
    assert found.target_log_weight.tolist() == [0.0] * 2


def test_uniform_draws_take_every_item_of_the_training_alike() -> None:
    table = times(uniform(COUNTS, count=50), NONE)

    assert (table.sum(axis=1).round(3) == 50).all()
    assert_mean(table, np.where(REAL, 10.0, 0.0))


@pytest.mark.parametrize("alpha", [0.0, 0.75, 1.0])
def test_draws_by_popularity_have_the_shares_of_their_power(alpha: float) -> None:
    table = times(by_popularity(COUNTS, count=50, alpha=alpha, logq=0.0), NONE)

    powers = np.where(REAL, COUNTS.astype(np.float64) ** alpha, 0.0)
    assert_mean(table, 50 * powers / powers.sum())


def test_the_negatives_of_a_batch_are_its_targets_as_often_as_they_stand_there() -> None:
    found = in_batch(COUNTS, logq=0.0).draw(np.array([4, 1, 4, 6]), np.random.default_rng(0))

    assert found.rows.tolist() == [1, 4, 6]
    np.testing.assert_allclose(np.exp(found.log_weight), [1, 2, 1], rtol=1e-6)
    assert found.target_log_weight.tolist() == [0.0] * 4


def test_mixed_negatives_are_the_targets_and_uniform_draws() -> None:
    table = times(mixed(COUNTS, count=20, logq=0.0), np.array([4, 1, 4, 6]))

    assert_mean(table, np.where(REAL, 4.0, 0.0) + np.bincount([4, 1, 4, 6], minlength=7))


def targets_by_popularity(count: int, trials: int) -> I64:
    return np.random.default_rng(5).choice(len(COUNTS), (trials, count), p=SHARE)


@pytest.mark.parametrize("name", ["popularity", "in_batch", "mixed"])
def test_the_weights_undo_the_sampler(name: str) -> None:
    """Over many steps each item counts as often as in as many uniform draws."""
    sampler = in_batch(COUNTS) if name == "in_batch" else NEGATIVES[name](COUNTS, count=30)
    generator = np.random.default_rng(3)
    table = np.zeros((TRIALS, len(COUNTS)))
    for trial, targets in zip(table, targets_by_popularity(20, TRIALS), strict=True):
        found = sampler.draw(targets, generator)
        trial[found.rows] = np.exp(found.log_weight.astype(np.float64))

    drawn = {"popularity": 30, "in_batch": 20, "mixed": 50}[name]
    assert_mean(table, np.where(REAL, drawn / REAL.sum(), 0.0))


@pytest.mark.parametrize("logq", [0.0, 0.5, 1.0])
def test_a_target_has_the_weight_of_one_draw_of_it(logq: float) -> None:
    targets = np.array([0, 4, 6])

    found = in_batch(COUNTS, logq=logq).draw(targets, np.random.default_rng(0))

    expected = (SHARE[targets] * REAL.sum()) ** -logq
    np.testing.assert_allclose(np.exp(found.target_log_weight), expected, rtol=1e-5)
    np.testing.assert_allclose(np.exp(found.log_weight), expected, rtol=1e-5)


def test_hard_negatives_are_uniform_draws_of_which_a_few_count() -> None:
    sampler = hard(COUNTS, count=50, keep=3)

    assert sampler.keep == 3
    assert_mean(times(sampler, NONE), np.where(REAL, 10.0, 0.0))
    assert {name for name in NEGATIVES if NEGATIVES[name](COUNTS).keep} == {"hard"}


@pytest.mark.parametrize("name", NEGATIVES)
def test_negatives_are_distinct_ascending_and_never_items_without_training(name: str) -> None:
    targets = np.array([4, 1, 4, 6, 0])

    found = NEGATIVES[name](COUNTS).draw(targets, np.random.default_rng(1))

    assert found.rows.tolist() == sorted(set(found.rows.tolist()))
    assert REAL[found.rows].all()
    assert found.log_weight.shape == found.rows.shape
    assert found.target_log_weight.shape == targets.shape
    assert np.isfinite(found.log_weight).all()


@pytest.mark.parametrize("name", NEGATIVES)
def test_the_same_generator_draws_the_same(name: str) -> None:
    def draw(seed: int) -> Negatives:
        return NEGATIVES[name](COUNTS).draw(np.array([4, 1]), np.random.default_rng(seed))

    for found, wanted in zip(draw(1), draw(1), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("uniform", {"count": 0}, "count is 0, expected at least 1"),
        ("mixed", {"count": -1}, "count is -1, expected at least 1"),
        ("popularity", {"count": 0}, "count is 0, expected at least 1"),
        ("hard", {"keep": 0}, "keep is 0, expected at least 1"),
    ],
)
def test_a_number_of_negatives_that_cannot_be_is_refused(
    name: str, parameters: dict[str, int], words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        check_parameters("negatives", NEGATIVES[name], parameters, frozenset({"counts"}))
