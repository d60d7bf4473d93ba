import numpy as np
import pytest

from contract.arrays import F32
from contract.errors import GateError
from contract.index.exact import ExactIndex
from offline import gate


@pytest.fixture
def vectors() -> F32:
    return np.random.default_rng(1).standard_normal((400, 8), dtype=np.float32)


def test_rows_that_are_not_finite_are_counted(vectors: F32) -> None:
    assert gate.finite("items", vectors).passed
    vectors[3, 1] = np.nan
    vectors[5] = np.inf

    check = gate.finite("items", vectors)

    assert not check.passed
    assert (check.check, check.found) == ("items finite", "2 rows")


def test_rows_of_zeros_are_counted(vectors: F32) -> None:
    assert gate.not_zero("items", vectors).passed
    vectors[7] = 0

    check = gate.not_zero("items", vectors)

    assert not check.passed
    assert (check.wanted, check.found) == ("0 zero rows", "1 rows")


def test_ids_that_stand_twice_are_counted() -> None:
    assert gate.unique("ids", ["a", "b"]).passed
    assert gate.unique("ids", ["a", "b", "a", "a"]).found == "2 twice"


def test_towers_may_differ_by_rounding_and_no_more(vectors: F32) -> None:
    assert gate.parity("tower", vectors, vectors + np.float32(1e-4)).passed
    assert not gate.parity("tower", vectors, vectors[::-1]).passed
    assert not gate.parity("tower", vectors, np.full_like(vectors, np.nan)).passed


def test_an_index_of_shuffled_vectors_finds_too_little(vectors: F32) -> None:
    queries = vectors[:20]

    whole = gate.index_recall(ExactIndex(vectors), vectors, queries)
    shuffled = gate.index_recall(ExactIndex(vectors[::-1]), vectors, queries)

    assert (whole.passed, whole.found) == (True, "1.0000")
    assert not shuffled.passed
    # Fifty of 400 rows at random are an eighth of the true ones.
    assert float(shuffled.found) == pytest.approx(0.125, abs=0.05)


def test_what_failed_is_listed_on_one_line(vectors: F32) -> None:
    vectors[0] = np.nan
    checks = [gate.unique("ids", ["a"]), gate.finite("items", vectors), gate.unique("ids", "aa")]

    gate.require(checks[:1])
    with pytest.raises(GateError) as caught:
        gate.require(checks)

    assert str(caught.value) == (
        "the gate refused the bundle: items finite: wanted 0 rows with NaN, found 1 rows; "
        "ids unique: wanted 0 twice, found 1 twice"
    )
