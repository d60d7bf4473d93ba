from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from contract.arrays import F32
from contract.bundle import Bundle, write_arrays
from contract.errors import GateError
from contract.index import BACKENDS, Index
from contract.index.exact import ExactBackend, ExactIndex
from contract.store import LocalStore
from offline import gate
from offline.build import IndexChoice
from offline.publish import publish
from offline.run import Run
from offline.towers import Towers
from offline.truth import truth


class TurningBackend(ExactBackend):
    """Finds the right items only in the vectors that it was built from, not in the file's."""

    @staticmethod
    def open(
        path: Path, vectors: F32, build: ExactBackend.Build, search: ExactBackend.Search
    ) -> Index:
        return ExactIndex(vectors if vectors.flags.writeable else vectors[::-1])


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
    wanted = truth(vectors, vectors[:20], gate.RECALL_AT)

    whole = gate.index_recall(ExactIndex(vectors), len(vectors), wanted)
    shuffled = gate.index_recall(ExactIndex(vectors[::-1]), len(vectors), wanted)

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


def test_one_vector_far_longer_than_the_rest_is_found(vectors: F32) -> None:
    assert gate.norms(vectors).passed

    vectors[7] *= 100.0

    assert not gate.norms(vectors).passed


def test_a_model_that_gives_everyone_the_same_list_is_found(vectors: F32) -> None:
    index = ExactIndex(vectors)

    different = gate.coverage(index, vectors, vectors[:200, None])
    same = gate.coverage(index, vectors, np.repeat(vectors[None, :1], 200, axis=0))

    assert different.passed
    assert not same.passed
    assert (same.wanted, same.found) == ("at least 60", "40")


def test_several_interests_that_are_the_same_for_everyone_are_found(vectors: F32) -> None:
    index = ExactIndex(vectors)

    same = gate.coverage(index, vectors, np.repeat(vectors[None, :4], 200, axis=0))

    assert (same.check, same.passed) == ("distinct items among the first 40 of 200 users", False)
    assert same.found == "40"
    assert gate.coverage(index, vectors, vectors.reshape(-1, 4, vectors.shape[1])).passed


def test_offline_metrics_may_fall_by_a_tenth_and_no_more() -> None:
    live = {"HR@10": 0.30, "NDCG@10": 0.20, "HR@200": 0.9}

    checks = gate.not_worse({"HR@10": 0.271, "NDCG@10": 0.179}, live)

    assert [(c.check, c.passed) for c in checks] == [
        ("HR@10 against the live bundle", True),
        ("NDCG@10 against the live bundle", False),
    ]
    assert checks[1].wanted == "at least 0.1800"


def test_a_bundle_larger_than_the_memory_is_found() -> None:
    assert gate.fits(2**20).passed
    assert not gate.fits(2**60).passed


def test_a_refusal_carries_all_checks() -> None:
    checks = [gate.unique("ids", ["a"]), gate.unique("ids", "aa")]

    with pytest.raises(GateError) as caught:
        gate.require(checks)

    assert caught.value.checks == tuple(checks)


def changed(bundle: Bundle, **arrays: npt.NDArray[Any]) -> Bundle:
    return replace(bundle, arrays={**bundle.arrays, **arrays})


def test_golden_requests_are_answered_out_of_the_files_alone(bundle: Bundle) -> None:
    check = gate.golden(bundle, Towers.open(bundle.path), ExactIndex(bundle.item_vectors))

    assert check.passed
    assert (check.check, check.wanted, check.found) == (
        "golden requests answered",
        "16 of 16",
        "16 of 16",
    )


def test_rows_that_are_shuffled_answer_no_golden_request(bundle: Bundle) -> None:
    index = ExactIndex(bundle.item_vectors[::-1])

    check = gate.golden(bundle, Towers.open(bundle.path), index)

    assert (check.passed, check.found) == (False, "0 of 16")


@pytest.mark.parametrize("name", ["history_vectors", "user_identity", "user_items_rows"])
def test_the_user_tower_needs_the_files_of_the_golden_users(bundle: Bundle, name: str) -> None:
    wrong = changed(bundle, **{name: np.roll(bundle.arrays[name], 1, axis=0)})

    check = gate.golden(wrong, Towers.open(bundle.path), ExactIndex(bundle.item_vectors))

    assert not check.passed


def test_a_golden_request_of_an_unknown_user_is_not_answered(bundle: Bundle) -> None:
    first, *others = bundle.golden
    wrong = replace(bundle)
    # As a cached property keeps it.
    wrong.__dict__["golden"] = (first.model_copy(update={"user_id": "nobody"}), *others)

    check = gate.golden(wrong, Towers.open(bundle.path), ExactIndex(bundle.item_vectors))

    assert (check.passed, check.found) == (False, "15 of 16")


def test_a_bundle_whose_index_answers_otherwise_from_its_files_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backends: dict[str, str] = BACKENDS  # type: ignore[assignment]
    monkeypatch.setitem(backends, "turning", f"{__name__}:TurningBackend")
    store = LocalStore(tmp_path)

    with pytest.raises(
        GateError, match=r"refused the bundle: golden requests answered: wanted 16 of 16, found 0 "
    ):
        publish(run, store, "live", IndexChoice("turning"))

    assert store.versions() == []


def test_a_bundle_whose_histories_were_written_wrong_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_shifted(directory: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        shifted = {"history_vectors": np.roll(arrays["history_vectors"], 1, axis=0)}
        write_arrays(directory, {**arrays, **shifted})

    monkeypatch.setattr("offline.build.write_arrays", write_shifted)

    with pytest.raises(GateError, match="golden requests answered: wanted 16 of 16, found "):
        publish(run, LocalStore(tmp_path), "live", IndexChoice("exact"))
