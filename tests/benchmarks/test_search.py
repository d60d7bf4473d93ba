"""The rows of the search benchmark: every backend is measured, and what is promised has a bar."""

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import search
from contract.index import BACKENDS, load_backend
from contract.manifest import Index as IndexEntry
from contract.manifest import Point
from offline import tune


def entry(backend: str, p50_us: float) -> IndexEntry:
    effort = load_backend(backend).effort
    return IndexEntry(
        backend=backend,
        search={effort.name: 0} if effort else {},
        curve=(Point(effort=0, recall=1, p50_us=p50_us, p99_us=9),),
    )


def result(backend: str, p50_us: float) -> search.Result:
    return search.Result(search.Tried(backend, {}), entry(backend, p50_us), 1.0, 100, 2**30)


def test_every_backend_with_a_file_of_its_own_is_tried_up_to_two_million_items() -> None:
    tried = {one.backend for one in search.USUAL.tried}

    assert tried == {name for name in BACKENDS if name != "milvus"}


def test_vectors_are_of_length_one_and_the_same_for_the_same_seed() -> None:
    vectors = search.clustered(500, 3)

    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(vectors, search.clustered(500, 3))
    assert not np.array_equal(vectors, search.clustered(500, 4))


def test_a_catalogue_is_measured_with_every_backend_and_a_picture_is_drawn(tmp_path: Path) -> None:
    rows = search.measure(1_500, tmp_path / "curves.svg")

    measured = {row.what: row for row in rows}
    for one in search.USUAL.tried:
        recalls = [
            row
            for what, row in measured.items()
            if re.match(rf"1,500 items, {re.escape(str(one))}[:,].* ?recall@50$", what)
        ]
        assert len(recalls) == 1, one
        assert recalls[0].at_least == 0.99
        assert recalls[0].holds
    peaks = [row.measured for what, row in measured.items() if "peak memory" in what]
    assert len(peaks) == len(search.USUAL.tried)
    assert all(0.05 < peak < 20 for peak in peaks)
    assert "recall@50" in (tmp_path / "curves.svg").read_text()


@pytest.mark.parametrize(("ivf", "holds"), [(109.0, True), (111.0, False)])
def test_auto_must_be_within_a_tenth_of_the_fastest(ivf: float, holds: bool) -> None:
    results = [result("faiss_flat", 100.0), result("exact", ivf)]

    *_, row = search._fastest(results, 100, search.USUAL)

    assert (row.what, row.at_most, row.holds) == ("100 items: auto over the fastest", 1.1, holds)


def test_above_two_million_items_the_fastest_has_two_milliseconds() -> None:
    results = [result("faiss_ivf", 1999.0), result("faiss_ivfpq", 2500.0)]

    fastest, _ = search._fastest(results, 10_000_000, search.HUGE)

    assert search.HUGE.recall == 0.95
    assert (fastest.measured, fastest.at_most) == (1999.0, 2000)


def test_a_backend_that_cannot_reach_the_recall_is_left_out_with_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    vectors, users = search.clustered(3_000, 0), search.clustered(100, 1)
    goal = tune.goal(vectors, users, 1.01, search.K)

    found = search._try(search.Tried("faiss_flat", {}), vectors, goal)

    assert found is None
    assert "left out: backend faiss_flat: recall@50 is 1.0000 at most" in capsys.readouterr().err
