"""What every backend promises, over the whole table, against exact search."""

import multiprocessing
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from contract.arrays import F32, I64, Bool
from contract.errors import BundleError, ExtraMissing, RecipeError
from contract.index import (
    BACKENDS,
    HOSTED,
    Backend,
    BackendName,
    Index,
    load_backend,
    params_from,
)
from contract.index.exact import ExactBackend, ExactIndex, scan, scan_or_walk
from contract.index.faiss_hnsw import FaissHnswBackend
from tests.milvus import milvus_server
from tests.places import missing

COUNT, DIM, QUERIES, K = 5_000, 32, 20, 10


@dataclass(frozen=True)
class Case:
    """How a backend is tried. The searches are small enough for its own structure, not the
    fallback to a scan, to answer without a filter and at 90 %.
    """

    recall: float
    build: dict[str, Any] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)
    narrow: dict[str, Any] = field(default_factory=dict)
    """A search so small that a filter at 35 % is still walked, and that recall suffers."""


CASES: dict[BackendName, Case] = {
    "exact": Case(recall=1.0),
    "faiss_flat": Case(recall=1.0),
    "faiss_ivf": Case(recall=0.95, search={"probes": 8}, narrow={"probes": 4}),
    "faiss_ivfpq": Case(recall=0.95, search={"probes": 8}, narrow={"probes": 4}),
    "faiss_hnsw": Case(recall=0.95, search={"ef_search": 64}, narrow={"ef_search": 16}),
    "hnswlib": Case(recall=0.95, search={"ef": 64}, narrow={"ef": 16}),
    "annoy": Case(recall=0.95, search={"search_k": 500}, narrow={"search_k": 80}),
    "milvus": Case(
        recall=0.95,
        build={"m": 16, "ef_construction": 60},
        search={"ef": 64},
        narrow={"ef": 16},
    ),
}
VARIANTS: dict[str, tuple[BackendName, Case]] = {
    "faiss_hnsw_sq8": (
        "faiss_hnsw",
        Case(0.95, {"storage": "sq8"}, search={"ef_search": 64}, narrow={"ef_search": 16}),
    ),
    "faiss_ivfpq_4_bits": (
        "faiss_ivfpq",
        Case(0.95, {"bits": 4}, search={"probes": 8, "refine": 16}, narrow={"probes": 4}),
    ),
}
"""Other ways to build a backend, held to the same contract."""
TRIED = {name: (name, case) for name, case in CASES.items()} | VARIANTS
WITH_FILE = [name for name in TRIED if name != "exact"]
MAPPED = [name for name in WITH_FILE if name not in ("hnswlib", "milvus")]
FAISS = [name for name in BACKENDS if name.startswith("faiss_")]
SMAPS = Path("/proc/self/smaps")


@dataclass(frozen=True)
class Tried:
    name: str
    backend: type[Backend]
    case: Case

    def build(self, vectors: F32, path: Path) -> None:
        self.backend.build(vectors, path, params_from(self.backend.Build, self.case.build))

    def open(self, vectors: F32, path: Path, search: dict[str, Any] | None = None) -> Index:
        build = params_from(self.backend.Build, self.case.build)
        params = params_from(self.backend.Search, search or self.case.search)
        return self.backend.open(path, vectors, build, params)

    def index(self, vectors: F32, path: Path) -> Index:
        self.build(vectors, path)
        return self.open(vectors, path)


def clustered(count: int, seed: int) -> F32:
    centres = np.random.default_rng(0).normal(size=(50, DIM))
    rng = np.random.default_rng(seed)
    noise = 0.4 * rng.normal(size=(count, DIM))
    return (centres[rng.integers(0, 50, count)] + noise).astype(np.float32)


VECTORS = clustered(COUNT, seed=1)
USERS = clustered(QUERIES, seed=2)


@pytest.fixture(scope="module", params=list(TRIED))
def tried(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tried]:
    name, case = TRIED[request.param]
    try:
        backend = load_backend(name)
    except ExtraMissing as exc:
        missing(str(exc))
    with ExitStack() as servers:
        if name in HOSTED:
            servers.enter_context(milvus_server(tmp_path_factory.mktemp(name)))
        yield Tried(request.param, backend, case)


@pytest.fixture(scope="module")
def path(tried: Tried, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(tried.name) / "index"
    tried.build(VECTORS, path)
    return path


@pytest.fixture(scope="module")
def index(tried: Tried, path: Path) -> Index:
    return tried.open(VECTORS, path)


def bitmap(share: float) -> Bool:
    return np.random.default_rng(3).random(COUNT) < share


def truth(
    k: int, allowed: Bool | None = None, users: F32 = USERS, vectors: F32 = VECTORS
) -> tuple[I64, F32]:
    """By a full sort, so that `exact` is tried against something other than itself."""
    scores = users @ vectors.T
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(scores, rows, axis=1)


def recall(found: I64, wanted: I64) -> float:
    return float(np.mean([np.isin(w, f).mean() for f, w in zip(found, wanted, strict=True)]))


def test_every_backend_has_a_name_and_a_case() -> None:
    assert list(get_args(BackendName)) == list(BACKENDS) == list(CASES)


def test_finds_what_exact_search_finds(index: Index, tried: Tried) -> None:
    rows, scores = index.search(USERS, K)

    wanted, _ = truth(K)
    assert rows.shape == scores.shape == (QUERIES, K)
    assert rows.dtype == np.int64
    assert scores.dtype == np.float32
    assert recall(rows, wanted) >= tried.case.recall


def test_scores_are_inner_products_in_descending_order_without_repeats(index: Index) -> None:
    rows, scores = index.search(USERS, 100)

    expected = np.einsum("qd,qkd->qk", USERS, VECTORS[rows])
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert all(len(np.unique(answer)) == 100 for answer in rows)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 0.01, 0.001])
def test_a_filter_costs_neither_recall_nor_answers(
    index: Index, tried: Tried, share: float
) -> None:
    allowed = bitmap(share)
    rows, scores = index.search(USERS, K, allowed)

    expected = min(K, int(allowed.sum()))
    wanted, _ = truth(expected, allowed)
    assert ((rows >= 0).sum(axis=1) == expected).all()
    assert allowed[rows[rows >= 0]].all()
    assert np.isneginf(scores[rows < 0]).all()
    assert recall(rows, wanted) >= tried.case.recall


def test_a_filter_widens_the_walk(tried: Tried, tmp_path: Path) -> None:
    # Without clusters, where a walk finds its way least well.
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(COUNT, DIM)).astype(np.float32)
    users = rng.normal(size=(QUERIES, DIM)).astype(np.float32)
    allowed = bitmap(0.35)
    tried.build(vectors, tmp_path / "index")
    index = tried.open(vectors, tmp_path / "index", tried.case.narrow)

    plain = recall(index.search(users, K)[0], truth(K, None, users, vectors)[0])
    filtered = recall(index.search(users, K, allowed)[0], truth(K, allowed, users, vectors)[0])

    assert filtered >= plain - 0.03


def test_a_filter_that_keeps_the_worst_rows_still_gets_k_answers(index: Index) -> None:
    # The walk of a graph or a forest goes to the best rows, and none of these is allowed.
    user = USERS[:1]
    ranks = np.argsort(np.argsort(-(user @ VECTORS.T)[0]))
    allowed = ranks >= COUNT // 10

    rows, _ = index.search(user, K, allowed)

    assert (rows >= 0).all()
    assert allowed[rows].all()


def test_a_filter_that_allows_all_changes_nothing(index: Index) -> None:
    rows, scores = index.search(USERS, K, np.ones(COUNT, dtype=np.bool_))

    plain_rows, plain_scores = index.search(USERS, K)
    np.testing.assert_array_equal(rows, plain_rows)
    np.testing.assert_array_equal(scores, plain_scores)


def test_a_filter_that_allows_none_gets_padding_only(index: Index) -> None:
    rows, scores = index.search(USERS, K, np.zeros(COUNT, dtype=np.bool_))

    assert (rows == -1).all()
    assert np.isneginf(scores).all()


def test_more_than_the_catalogue_is_every_row_and_then_padding(index: Index) -> None:
    rows, scores = index.search(USERS[:2], COUNT + 7)

    np.testing.assert_array_equal(np.sort(rows[:, :COUNT]), np.tile(np.arange(COUNT), (2, 1)))
    assert (rows[:, COUNT:] == -1).all()
    assert np.isneginf(scores[:, COUNT:]).all()


def test_equal_scores_go_by_ascending_row(tried: Tried, tmp_path: Path) -> None:
    # Small integers, so that equal scores are equal to the last bit.
    vectors = np.array([[1, 0], [2, 0], [1, 0], [2, 0], [0, 3], [1, 0]], dtype=np.float32)
    rows, scores = tried.index(vectors, tmp_path / "index").search(
        np.array([[1, 0], [0, 0]], dtype=np.float32), 4
    )

    assert rows.tolist() == [[1, 3, 0, 2], [0, 1, 2, 3]]
    assert scores.tolist() == [[2, 2, 1, 1], [0, 0, 0, 0]]


@pytest.mark.parametrize("count", [1, 2, 20, 40, 100])
def test_a_handful_of_items_is_a_catalogue(tried: Tried, tmp_path: Path, count: int) -> None:
    rows, scores = tried.index(VECTORS[:count], tmp_path / "index").search(VECTORS[:1], count + 1)

    wanted = -np.sort(-(VECTORS[:count] @ VECTORS[0]))
    assert sorted(rows[0, :count]) == list(range(count))
    np.testing.assert_allclose(scores[0], [*wanted, -np.inf], rtol=1e-5, atol=1e-5)
    assert rows[0, count] == -1


def test_duplicates_are_all_found(tried: Tried, tmp_path: Path) -> None:
    # The longest of all vectors, ten times: nothing else scores as high.
    longest = 10 * VECTORS[:1]
    vectors = np.concatenate([VECTORS, np.repeat(longest, 10, axis=0)])
    rows, _ = tried.index(vectors, tmp_path / "index").search(longest, 10)

    assert sorted(rows[0]) == list(range(COUNT, COUNT + 10))


def test_several_queries_are_answered_as_one_by_one(index: Index) -> None:
    together, scores = index.search(USERS, K)
    one_by_one = [index.search(user[None], K) for user in USERS]

    np.testing.assert_array_equal(together, np.concatenate([rows for rows, _ in one_by_one]))
    np.testing.assert_allclose(scores, np.concatenate([s for _, s in one_by_one]), rtol=1e-5)


def test_no_queries_have_no_answers(index: Index) -> None:
    rows, scores = index.search(USERS[:0], K)

    assert rows.shape == scores.shape == (0, K)


@pytest.mark.parametrize(
    "queries", [USERS.astype(np.float64), np.asfortranarray(USERS), np.repeat(USERS, 2, 0)[::2]]
)
def test_queries_of_any_layout_and_precision_mean_the_same(index: Index, queries: F32) -> None:
    np.testing.assert_array_equal(index.search(queries, K)[0], index.search(USERS, K)[0])


@pytest.mark.parametrize(
    ("queries", "k", "allowed", "message"),
    [
        (USERS[:, :-1], K, None, r"shape \(20, 31\), expected \(Q, 32\)"),
        (USERS[0], K, None, r"shape \(32,\), expected \(Q, 32\)"),
        (USERS, 0, None, "k is 0, expected at least 1"),
        (USERS, K, np.ones(COUNT - 1, dtype=np.bool_), r"expected a boolean bitmap of shape"),
        (USERS, K, np.arange(COUNT), r"int64 of shape \(5000,\), expected a boolean bitmap"),
    ],
)
def test_impossible_questions_are_refused(
    index: Index, queries: F32, k: int, allowed: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        index.search(queries, k, allowed)


def test_an_index_opened_again_answers_the_same(tried: Tried, path: Path, index: Index) -> None:
    rows, scores = tried.open(VECTORS, path).search(USERS, K)

    first_rows, first_scores = index.search(USERS, K)
    np.testing.assert_array_equal(rows, first_rows)
    np.testing.assert_array_equal(scores, first_scores)


def answer(tried: Tried, path: Path, vectors: Path) -> I64:
    return tried.open(np.load(vectors, mmap_mode="r"), path).search(USERS, K)[0]


def test_two_processes_share_one_file(
    tried: Tried, path: Path, index: Index, tmp_path: Path
) -> None:
    vectors = tmp_path / "vectors.npy"
    np.save(vectors, VECTORS)

    with multiprocessing.get_context("spawn").Pool(2) as pool:
        answers = pool.starmap(answer, [(tried, path, vectors)] * 2, chunksize=1)

    wanted, _ = index.search(USERS, K)
    for rows in answers:
        np.testing.assert_array_equal(rows, wanted)


def pages(path: Path, kind: str) -> int:
    """Kilobytes of a file's pages of one kind that this process has mapped."""
    mappings = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", SMAPS.read_text(), flags=re.MULTILINE)
    of_file = [m for m in mappings if m.partition("\n")[0].endswith(f" {path}")]
    return sum(int(kb) for m in of_file for kb in re.findall(rf"\n{kind}: +(\d+) kB", m))


def pages_searched(tried: Tried, path: Path) -> dict[str, int]:
    index = tried.open(VECTORS, path)
    index.search(USERS, K)
    return {kind: pages(path, kind) for kind in ("Rss", "Pss", "Anonymous")}


@pytest.mark.skipif(not SMAPS.exists(), reason="the memory map is read from Linux's /proc")
@pytest.mark.parametrize("tried", MAPPED, indirect=True)
def test_a_second_process_has_no_pages_of_its_own(tried: Tried, path: Path, index: Index) -> None:
    index.search(USERS, K)

    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(pages_searched, (tried, path))

    assert found["Anonymous"] == 0
    # Of a page that two have mapped, half counts for each.
    assert 0 < found["Pss"] <= 0.55 * found["Rss"]


def test_threads_do_not_see_each_others_searches(index: Index) -> None:
    filters = [bitmap(share) for share in (0.95, 0.9, 0.85)]
    questions = [(k, allowed) for k in (5, 10, 40) for allowed in filters] * 2
    alone = [index.search(USERS, k, allowed)[0] for k, allowed in questions]

    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda asked: index.search(USERS, *asked)[0], questions))

    for rows, wanted in zip(together, alone, strict=True):
        np.testing.assert_array_equal(rows, wanted)


@pytest.mark.parametrize("tried", WITH_FILE, indirect=True)
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused_by_name(
    tried: Tried, path: Path, tmp_path: Path, kept: float
) -> None:
    whole = path.read_bytes()
    damaged = tmp_path / "damaged"
    damaged.write_bytes(whole[: int(kept * len(whole))])

    with pytest.raises(BundleError, match=f"{damaged}: "):
        tried.open(VECTORS, damaged)


@pytest.mark.parametrize("tried", WITH_FILE, indirect=True)
def test_a_missing_file_is_refused_by_name(tried: Tried, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=f"{tmp_path / 'absent'}: not a readable"):
        tried.open(VECTORS, tmp_path / "absent")


@pytest.mark.parametrize("tried", WITH_FILE, indirect=True)
def test_an_index_of_another_catalogue_is_refused(tried: Tried, path: Path) -> None:
    with pytest.raises(BundleError, match="5000 rows in the index, expected 4999"):
        tried.open(VECTORS[:-1], path)
    with pytest.raises(BundleError, match="dimensions"):
        tried.open(np.ascontiguousarray(VECTORS[:, :-1]), path)


def test_a_faiss_index_of_another_dimension_is_refused_with_both_numbers(tmp_path: Path) -> None:
    FaissHnswBackend.build(VECTORS[:50], tmp_path / "index", FaissHnswBackend.Build())

    with pytest.raises(BundleError, match="32 dimensions in the index, expected 16"):
        FaissHnswBackend.open(
            tmp_path / "index",
            VECTORS[:50, :16],
            FaissHnswBackend.Build(),
            FaissHnswBackend.Search(),
        )


@pytest.mark.parametrize("tried", FAISS, indirect=True)
def test_a_faiss_index_of_another_kind_is_refused(tried: Tried, tmp_path: Path) -> None:
    import faiss

    other = faiss.IndexFlatL2(DIM)
    other.add(VECTORS[:50])
    faiss.write_index(other, str(tmp_path / "index"))

    with pytest.raises(BundleError, match=r"IndexFlatL2 of metric 1, expected Index.* of metric 0"):
        tried.open(VECTORS[:50], tmp_path / "index")


def test_a_graph_of_another_storage_is_refused(tmp_path: Path) -> None:
    FaissHnswBackend.build(VECTORS[:50], tmp_path / "index", FaissHnswBackend.Build())

    with pytest.raises(BundleError, match="IndexHNSWFlat of metric 0, expected IndexHNSWSQ"):
        FaissHnswBackend.open(
            tmp_path / "index",
            VECTORS[:50],
            FaissHnswBackend.Build(storage="sq8"),
            FaissHnswBackend.Search(),
        )


@pytest.mark.parametrize(
    ("name", "build", "message"),
    [
        ("faiss_ivf", {"lists": 51}, "lists is 51, expected at most one an item, 50; 0 chooses"),
        ("faiss_ivfpq", {"lists": 51}, "lists is 51, expected at most one an item, 50"),
        (
            "faiss_ivfpq",
            {"subquantizers": 5},
            "subquantizers is 5, expected a divisor of the 32 dimensions: 1, 2, 4, 8, 16, 32",
        ),
    ],
)
def test_parameters_that_do_not_suit_the_catalogue_are_refused(
    tmp_path: Path, name: str, build: dict[str, Any], message: str
) -> None:
    backend = load_backend(name)

    with pytest.raises(RecipeError, match=message):
        backend.build(VECTORS[:50], tmp_path / "index", params_from(backend.Build, build))


@pytest.mark.parametrize(("dim", "bytes_an_item"), [(64, 16), (30, 10), (31, 31), (3, 1), (1, 1)])
def test_codes_of_any_dimension_have_parts_that_fit(
    tmp_path: Path, dim: int, bytes_an_item: int
) -> None:
    import faiss

    vectors = np.random.default_rng(6).normal(size=(300, dim)).astype(np.float32)
    backend = load_backend("faiss_ivfpq")
    backend.build(vectors, tmp_path / "index", backend.Build())

    assert faiss.read_index(str(tmp_path / "index")).sa_code_size() - 1 == bytes_an_item


@pytest.mark.parametrize("tried", ["faiss_ivf"], indirect=True)
def test_lists_that_are_all_probed_miss_nothing(tried: Tried, path: Path) -> None:
    rows, _ = tried.open(VECTORS, path, {"probes": COUNT}).search(USERS, K)

    np.testing.assert_array_equal(rows, truth(K)[0])


@pytest.mark.parametrize(("spread", "times"), [(0.0, 1.5), (0.5, 4)])
def test_more_centres_are_ranked_where_lengths_differ(
    tmp_path: Path, spread: float, times: float
) -> None:
    """Lists of long vectors are read first, and are short."""
    import faiss

    from contract.index._lists import Probing

    lengths = 1 + spread * np.random.default_rng(7).random((COUNT, 1), np.float32)
    level = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    backend, path = load_backend("faiss_ivf"), tmp_path / "index"
    backend.build((lengths * level).astype(np.float32), path, backend.Build(lists=50))
    params = Probing(faiss.read_index(str(path)), probes=8).params(K, widen=1.0)

    assert (params.nprobe, params.max_codes) == (8 * times, 8 * COUNT / 50)


@pytest.mark.parametrize("tried", ["annoy"], indirect=True)
@pytest.mark.parametrize("metric", ["angular", "euclidean"])
def test_annoy_answers_inner_products_whatever_its_trees_split_by(
    tried: Tried, tmp_path: Path, metric: str
) -> None:
    build = params_from(tried.backend.Build, {"metric": metric})
    tried.backend.build(VECTORS, tmp_path / "index", build)
    search = params_from(tried.backend.Search, {"search_k": 1_000})
    rows, _ = tried.backend.open(tmp_path / "index", VECTORS, build, search).search(USERS, K)

    assert recall(rows, truth(K)[0]) >= 0.95


def test_exact_search_is_a_full_sort() -> None:
    allowed = bitmap(0.3)
    for mask in (None, allowed):
        rows, scores = ExactIndex(VECTORS).search(USERS, 100, mask)
        wanted, wanted_scores = truth(100, mask)

        np.testing.assert_array_equal(rows, wanted)
        np.testing.assert_allclose(scores, wanted_scores, rtol=1e-5, atol=1e-5)


def test_exact_search_prefers_lower_rows_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(4).integers(0, 3, (1_000, 2)).astype(np.float32)
    queries = np.array([[1, 1], [0, 1]], dtype=np.float32)
    rows = np.arange(0, 1_000, 3)
    wanted = [rows[np.argsort(-(vectors[rows] @ query), kind="stable")[:50]] for query in queries]

    monkeypatch.setattr("contract.index.exact.BLOCK_BYTES", 8 * 7)

    np.testing.assert_array_equal(scan(vectors, queries, 50, rows)[0], wanted)


def test_only_the_queries_whose_walk_falls_short_are_scanned() -> None:
    allowed = bitmap(0.5)
    wanted, wanted_scores = ExactIndex(VECTORS).search(USERS, K, allowed)
    asked: list[float] = []

    def walk(widen: float, allowed: Bool | None) -> tuple[I64, F32]:
        """Finds nothing for the first user, all but one row for the second."""
        asked.append(widen)
        rows, scores = wanted.copy(), wanted_scores + 1
        rows[0], rows[1, -1] = -1, -1
        return rows, scores

    rows, scores = scan_or_walk(VECTORS, USERS, K, allowed, 1, walk)

    assert asked == [COUNT / allowed.sum()]
    np.testing.assert_array_equal(rows, wanted)
    np.testing.assert_allclose(scores[:2], wanted_scores[:2], rtol=1e-5)
    np.testing.assert_array_equal(scores[2:], wanted_scores[2:] + 1)


def test_few_allowed_rows_are_scanned_without_a_walk() -> None:
    allowed = bitmap(0.01)

    def walk(widen: float, allowed: Bool | None) -> tuple[I64, F32]:
        raise AssertionError("walked")

    rows, _ = scan_or_walk(VECTORS, USERS, K, allowed, 64, walk)

    np.testing.assert_array_equal(rows, truth(K, allowed)[0])


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BundleError, match=f"'flann' is unknown; known: {', '.join(BACKENDS)}"):
        load_backend("flann")


def test_a_missing_library_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "contract.index.annoy", raising=False)
    monkeypatch.setitem(sys.modules, "annoy", None)

    with pytest.raises(ExtraMissing, match=r"annoy needs annoy: pip install 'tandem-recall\[annoy"):
        load_backend("annoy")


def test_a_broken_library_is_not_called_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "annoy.py").write_text("import a_module_that_annoy_lacks\n")
    monkeypatch.delitem(sys.modules, "contract.index.annoy", raising=False)
    monkeypatch.delitem(sys.modules, "annoy", raising=False)
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ModuleNotFoundError, match="a_module_that_annoy_lacks"):
        load_backend("annoy")


def test_parameters_keep_their_defaults_unless_given() -> None:
    build = params_from(FaissHnswBackend.Build, {"m": 16})

    assert build == FaissHnswBackend.Build(m=16, ef_construction=200, storage="float")
    assert params_from(ExactBackend.Search, {}) == ExactBackend.Search()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ef": 9}, "faiss_hnsw has no build parameter 'ef'; known: m, ef_construction"),
        ({"m": "32"}, "faiss_hnsw, build parameter 'm' is '32', expected int"),
        ({"m": True}, "'m' is True, expected int"),
        ({"m": 0}, "m is 0, expected at least 1"),
        ({"storage": "sq4"}, "'sq4', expected one of 'float', 'sq8'"),
    ],
)
def test_parameters_that_cannot_be_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        params_from(FaissHnswBackend.Build, values)


@pytest.mark.parametrize("tried", ["annoy"], indirect=True)
def test_a_choice_is_refused_with_the_choices(tried: Tried) -> None:
    with pytest.raises(RecipeError, match="'l2', expected one of 'dot', 'angular', 'euclidean'"):
        params_from(tried.backend.Build, {"metric": "l2"})


def test_a_backend_without_parameters_says_so() -> None:
    with pytest.raises(RecipeError, match="exact has no search parameter 'k'; known: none"):
        params_from(ExactBackend.Search, {"k": 1})
