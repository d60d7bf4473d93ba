import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.fusion import fuse


def test_two_lists_by_hand() -> None:
    rows, scores = fuse([np.array([7, 3, 5]), np.array([5, 9])], [1.0, 0.5])

    assert rows.tolist() == [5, 7, 3, 9]
    wanted = [1 / 63 + 0.5 / 61, 1 / 61, 1 / 62, 0.5 / 62]
    assert scores.tolist() == pytest.approx(wanted)


@given(
    lists=st.lists(st.lists(st.integers(0, 20), unique=True), min_size=1, max_size=4),
    weight=st.sampled_from((1.0, 0.5, 3.0)),
)
def test_any_lists_are_those_of_the_formula(lists: list[list[int]], weight: float) -> None:
    weights = [weight * (n + 1) for n in range(len(lists))]

    rows, scores = fuse([np.array(one, np.int64) for one in lists], weights)

    wanted: dict[int, float] = {}
    for one, factor in zip(lists, weights, strict=True):
        for rank, row in enumerate(one, start=1):
            wanted[row] = wanted.get(row, 0.0) + factor / (60 + rank)
    found = dict(zip(rows.tolist(), scores.tolist(), strict=True))
    assert found == pytest.approx(wanted)
    assert (np.diff(scores) <= 0).all()
