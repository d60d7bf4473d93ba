import numpy as np

from contract.arrays import F32, I64
from contract.merge import merge


def lists(*pairs: tuple[int, float]) -> tuple[I64, F32]:
    rows, scores = zip(*pairs, strict=True)
    return np.array(rows, dtype=np.int64), np.array(scores, dtype=np.float32)


def merged(*pairs: tuple[int, float], k: int) -> list[tuple[int, float]]:
    rows, scores = merge(*lists(*pairs), k)
    return list(zip(rows.tolist(), scores.tolist(), strict=True))


def test_an_item_keeps_its_best_score() -> None:
    assert merged((4, 1.0), (7, 3.0), (4, 2.0), (7, 0.5), k=5) == [(7, 3.0), (4, 2.0)]


def test_the_best_k_come_in_descending_order() -> None:
    assert merged((1, 1.0), (2, 4.0), (3, 2.0), (4, 3.0), k=2) == [(2, 4.0), (4, 3.0)]


def test_a_repeated_item_does_not_cost_another_its_place() -> None:
    assert merged((1, 9.0), (1, 8.0), (1, 7.0), (2, 1.0), k=2) == [(1, 9.0), (2, 1.0)]


def test_ties_go_by_ascending_row() -> None:
    assert merged((9, 1.0), (3, 1.0), (5, 1.0), k=2) == [(3, 1.0), (5, 1.0)]


def test_padding_is_dropped() -> None:
    assert merged((-1, -np.inf), (2, -5.0), (-1, -np.inf), k=3) == [(2, -5.0)]
    assert merged((-1, -np.inf), k=3) == []


def test_nothing_merges_to_nothing_and_types_stay() -> None:
    rows, scores = merge(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32), 3)

    assert rows.shape == scores.shape == (0,)
    assert rows.dtype == np.int64
    assert scores.dtype == np.float32


def test_many_lists_agree_with_a_dictionary() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(-1, 200, 1_000)
    scores = rng.integers(0, 50, 1_000).astype(np.float32)
    best: dict[int, float] = {}
    for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
        if row >= 0:
            best[row] = max(score, best.get(row, score))

    found, found_scores = merge(rows, scores, 40)

    wanted = sorted(best.items(), key=lambda pair: (-pair[1], pair[0]))[:40]
    assert list(zip(found.tolist(), found_scores.tolist(), strict=True)) == wanted
