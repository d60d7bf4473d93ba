from itertools import pairwise

import numpy as np
import pytest

from contract.arrays import F64
from contract.errors import TrainingError
from offline.walks import Bias, Graph, Walks

# 0 - 1, 0 - 2, 1 - 2, 2 - 3 twice, 3 - 4; node 5 has no edge.
ONE = np.array([0, 0, 1, 2, 2, 3])
OTHER = np.array([1, 2, 2, 3, 3, 4])
NODES = 6


def weights() -> F64:
    table = np.zeros((NODES, NODES))
    np.add.at(table, (ONE, OTHER), 1)
    np.add.at(table, (OTHER, ONE), 1)
    return table


def chances(before: int, at: int, bias: Bias) -> F64:
    """Of the next node, as the paper defines it."""
    edges = weights()
    chance: F64 = edges[at].copy()
    for node in range(NODES):
        if node == before:
            chance[node] /= bias.p
        elif not edges[before, node]:
            chance[node] /= bias.q
    chance /= chance.sum()
    return chance


@pytest.mark.parametrize("bias", [Bias(1.0, 1.0), Bias(0.25, 4.0), Bias(5.0, 0.5)], ids=str)
def test_a_step_is_as_likely_as_the_last_two_nodes_say(bias: Bias) -> None:
    generator = np.random.default_rng(3)
    graph = Graph(ONE, OTHER, NODES)
    found = np.zeros((NODES, NODES, NODES))
    for _ in range(300):
        paths = graph.walks(40, bias, generator)
        np.add.at(found, (paths[:, :-2], paths[:, 1:-1], paths[:, 2:]), 1)

    compared = 0
    for before, at in zip(*np.nonzero(weights()), strict=True):
        count = found[before, at].sum()
        assert count > 500
        np.testing.assert_allclose(
            found[before, at] / count, chances(before, at, bias), atol=4 * 0.5 / np.sqrt(count)
        )
        compared += 1
    assert compared == 10


def test_a_walk_begins_at_every_node_with_an_edge_and_follows_edges() -> None:
    paths = Graph(ONE, OTHER, NODES).walks(20, Bias(0.5, 2.0), np.random.default_rng(0))

    assert paths.shape == (5, 20)
    assert paths[:, 0].tolist() == [0, 1, 2, 3, 4]
    edges = weights()
    assert all(edges[one, other] for path in paths for one, other in pairwise(path))


def test_the_first_step_is_as_likely_as_the_edge_is_heavy() -> None:
    graph, generator = Graph(ONE, OTHER, NODES), np.random.default_rng(0)

    steps = np.array([graph.walks(2, Bias(1.0, 1.0), generator)[2, 1] for _ in range(4000)])

    shares = np.bincount(steps, minlength=NODES) / len(steps)
    np.testing.assert_allclose(shares, [0.25, 0.25, 0, 0.5, 0, 0], atol=0.03)


def test_a_walk_with_no_other_way_turns_back_however_unwelcome_that_is() -> None:
    graph = Graph(np.array([0]), np.array([1]), 2)

    paths = graph.walks(6, Bias(1e12, 1.0), np.random.default_rng(0))

    assert paths.tolist() == [[0, 1, 0, 1, 0, 1], [1, 0, 1, 0, 1, 0]]


def test_the_edges_are_what_one_user_read_in_succession() -> None:
    items = np.array([4, 7, 5, 9, 9, 4, 8], np.int32)
    walks = Walks(
        items,
        np.array([0, 4]),
        np.array([3, 6]),  # the 9 after the first sequence is not training
        window=1,
        passes=3,
        length=10,
        bias=Bias(1.0, 1.0),
    )

    paths = walks.graph.walks(10, Bias(1.0, 1.0), np.random.default_rng(0))

    assert walks.graph.starts.tolist() == [4, 5, 7, 9]
    steps = {frozenset(step) for path in paths.tolist() for step in pairwise(path)}
    assert steps == {frozenset({4, 7}), frozenset({5, 7}), frozenset({4, 9})}
    assert len(walks) == 3 * 4 * 10


def test_every_item_of_every_walk_is_the_center_of_a_pair() -> None:
    items = np.array([0, 1, 2, 3], np.int32)
    walks = Walks(
        items,
        np.array([0]),
        np.array([4]),
        window=1,
        passes=2,
        length=5,
        bias=Bias(1.0, 1.0),
    )

    plan = walks.plan(7, 0, np.random.default_rng(0))

    assert [len(part.center) for part in plan].count(7) == 5
    assert sum(len(part.center) for part in plan) == len(walks) == 40
    assert all((abs(part.center - part.near) == 1).all() for part in plan)
    assert walks.batch(plan[0]).history.shape == (7, 1)


def test_without_two_items_in_succession_there_is_nowhere_to_walk() -> None:
    with pytest.raises(TrainingError, match=r"^no two items in one sequence; give "):
        Walks(
            np.array([1, 2], np.int32),
            np.array([0, 1]),
            np.array([1, 2]),
            window=1,
            passes=1,
            length=2,
            bias=Bias(1.0, 1.0),
        )
