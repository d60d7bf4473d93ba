"""The bare side of the seam benchmark is the library itself: same file, same answers."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import seam
from benchmarks.search import DIM, K, clustered
from contract.arrays import F32
from contract.index import BACKENDS, BackendName, load_backend

COUNT = 12_000


@pytest.fixture(scope="module")
def vectors() -> F32:
    return clustered(COUNT, 0)


def test_every_library_has_a_bare_side() -> None:
    assert set(seam.BARE) == set(BACKENDS) - {"exact", "milvus"}


@pytest.mark.parametrize("name", list(seam.BARE))
def test_the_bare_library_finds_in_the_file_of_a_backend_what_the_backend_finds(
    name: BackendName, vectors: F32, tmp_path: Path
) -> None:
    kind = load_backend(name)
    path = tmp_path / "index"
    part = vectors[:2_000] if seam.BARE[name].most else vectors
    kind.build(part, path, kind.Build())
    index = kind.open(path, part, kind.Build(), kind.Search())
    bare = seam.BARE[name].open(path, part)

    queries = clustered(20, 1)[:, None]
    shared = [np.isin(bare(query)[0], index.search(query, K)[0]).mean() for query in queries]

    # Annoy's backend scans so few items and finds all; the forest alone misses some.
    assert np.mean(shared) >= (0.9 if name == "annoy" else 0.999)


@pytest.mark.parametrize("name", list(seam.BARE))
def test_what_the_bare_library_builds_a_backend_opens(
    name: BackendName, vectors: F32, tmp_path: Path
) -> None:
    kind = load_backend(name)
    part = vectors[:2_000]
    seam.BARE[name].build(part, tmp_path / "index")

    index = kind.open(tmp_path / "index", part, kind.Build(), kind.Search())

    rows, scores = index.search(part[:5], K)
    assert rows[:, 0].tolist() == list(range(5))
    np.testing.assert_allclose(scores[:, 0], 1, rtol=1e-5)
    assert part.shape[1] == DIM


def test_the_cost_of_a_search_has_the_larger_of_two_bars(
    vectors: F32, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = clustered(10, 1)[:, None]
    bare, added, shared = seam._searches("faiss_ivf", vectors, queries)
    monkeypatch.setattr(seam, "MOST_US", 0.0)
    _, share, _ = seam._searches("faiss_ivf", vectors, queries)

    assert bare.what == "12,000 items, faiss_ivf: bare search"
    assert bare.measured > 0
    assert added.at_most is not None
    assert share.at_most is not None
    assert added.at_most >= 10 > share.at_most > 0
    assert (shared.measured, shared.at_least) == (1.0, 0.999)


def test_builds_take_turns_until_there_are_enough() -> None:
    order: list[str] = []

    seam._build_in_turns(
        lambda path: order.append("bare"), lambda path: order.append("seam"), seconds=0.0
    )

    assert order == ["bare", "seam"] * seam.FEWEST_BUILDS


def test_what_the_seam_adds_is_compared_turn_for_turn() -> None:
    # The last turn of both was slow: the machine, not the seam.
    assert seam._turns([1.0, 2.0, 9.0], [1.5, 2.5, 9.5]) == seam.Turns(bare=2.0, added=0.5)
