"""A small catalogue is scored whole: the same as a full sort, for several vectors a user too."""

import numpy as np
import pytest

from contract.arrays import F32
from contract.index.base import depth
from contract.index.exact import SMALL
from service import candidates
from service.candidates import nearest, nearest_each
from service.filters import Filter
from service.state import State


def sorted_whole(state: State, filter_: Filter, vectors: F32, k: int) -> tuple[F32, list[int]]:
    """Scores of the k best eligible rows of bundle and overlay, and all eligible rows."""
    overlay = state.overlay
    matrix = np.concatenate([state.snapshot.bundle.item_vectors, overlay.vectors])
    eligible = np.concatenate([~overlay.dead, overlay.alive])
    eligible[filter_.blocked] = False
    rows = np.flatnonzero(eligible)
    scores = (vectors @ matrix[rows].T).max(axis=0)
    return np.sort(scores)[::-1][:k], rows.tolist()


@pytest.mark.parametrize("interests", [1, 3])
def test_the_best_of_all_rows_are_found(state: State, interests: int) -> None:
    rng = np.random.default_rng(interests)
    count, total = 5, state.overlay.base + state.overlay.slots
    dim = state.snapshot.bundle.manifest.dims.dim
    vectors = rng.normal(size=(count, interests, dim)).astype(np.float32)
    blocked = [rng.permutation(total)[:n] for n in (0, 1, 40, total - 3, total)]
    filters = [Filter(state.overlay, rows) for rows in blocked]
    ks = [1, 7, 50, 10, total]

    together = nearest_each(state, filters, vectors, ks)
    alone = [nearest(state, *one) for one in zip(filters, vectors, ks, strict=True)]

    for found, single, filter_, own, k in zip(together, alone, filters, vectors, ks, strict=True):
        scores, eligible = sorted_whole(state, filter_, own, k)
        assert found.rows.tolist() == single.rows.tolist()
        assert found.scores == pytest.approx(scores, abs=1e-6)
        assert set(found.rows.tolist()) <= set(eligible)
        assert len(set(found.rows.tolist())) == len(found.rows)
        assert (found.widened, found.exact) == (False, False)


@pytest.mark.parametrize("interests", [1, 3])
def test_what_is_scored_whole_and_what_is_searched_are_alike(
    state: State, monkeypatch: pytest.MonkeyPatch, interests: int
) -> None:
    """The same bundle with its limit below and above the size of the catalogue: searched for all at
    once, and one by one where one has k of its own."""
    rng = np.random.default_rng(0)
    dim = state.snapshot.bundle.manifest.dims.dim
    vectors = rng.normal(size=(4, interests, dim)).astype(np.float32)
    total = state.overlay.base + state.overlay.slots
    filters = [Filter(state.overlay, rng.permutation(total)[:n]) for n in (0, 20, 50, 100)]
    assert total <= SMALL

    for ks in ([20] * 4, [20, 20, 20, 19]):
        monkeypatch.setattr(candidates, "SMALL", SMALL)
        whole = nearest_each(state, filters, vectors, ks)
        monkeypatch.setattr(candidates, "SMALL", total - 1)
        searched = nearest_each(state, filters, vectors, ks)

        for one, other in zip(whole, searched, strict=True):
            assert one.rows.tolist() == other.rows.tolist()
            assert one.scores == pytest.approx(other.scores, abs=1e-6)


def test_a_few_who_have_seen_less_go_along_with_those_who_search_deeper(state: State) -> None:
    """Ten have seen nothing and ask for 20, two have seen one item and ask for 40."""
    filters = [Filter(state.overlay, np.arange(n)) for n in [0] * 10 + [1] * 2]
    lower = state.overlay.gone

    groups = candidates._groups(state.overlay, filters, [20] * 11 + [19])

    depths = [min(depth(k, lower + n), state.overlay.searched) for k, n in ((20, 1), (19, 1))]
    assert [(group.k, group.depth) for group in groups] == [(20, depths[0]), (19, depths[1])]
    assert [sorted(group.members) for group in groups] == [list(range(11)), [11]]


def test_many_who_have_seen_less_are_searched_apart(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    filters = [Filter(state.overlay, np.arange(n)) for n in [0] * 10 + [25] * 2]
    monkeypatch.setattr(candidates, "WORTH_A_CALL", 10)

    groups = candidates._groups(state.overlay, filters, [20] * 12)

    assert [sorted(group.members) for group in groups] == [[10, 11], list(range(10))]
    assert groups[0].depth > groups[1].depth
