"""Second-order random walks on the graph of items that users read one after the other.

Many walks at once: all take a step together, by rejection. A step is proposed as if the walk had no
memory, and taken as often as its bias says; the few that are refused propose again.
"""

from typing import NamedTuple

import numpy as np

from contract.arrays import F64, I32, I64, Bool
from contract.errors import TrainingError
from offline.batches import Batch
from offline.skipgram import Pairs, draw_pairs, positions

TRIALS = 100
"""A walk whose steps were refused so often has hardly another way: it takes the last proposal."""


class Bias(NamedTuple):
    """How readily a step is taken: 1 / p back to where the walk was before, 1 to a neighbour of
    that, 1 / q to what lies further off."""

    p: float
    q: float


class Graph:
    """Undirected; an edge that was given n times is taken n times as often."""

    def __init__(self, one: I64, other: I64, nodes: int) -> None:
        """one (E,) and other (E,): the two ends of each edge, both less than `nodes`."""
        near, far = np.concatenate([one, other]), np.concatenate([other, one])
        order = np.argsort(near, kind="stable")
        self.nodes, self.ends = nodes, far[order]
        self.begin = np.searchsorted(near[order], np.arange(nodes + 1))
        self.starts = np.flatnonzero(np.diff(self.begin))
        """The nodes that have an edge."""
        self._edges = np.unique(near * nodes + far)

    def walks(self, length: int, bias: Bias, generator: np.random.Generator) -> I64:
        """One walk from each node that has an edge: (starts, length), two nodes at least."""
        path = [self.starts, self._step(self.starts, generator)]
        while len(path) < length:
            path.append(self._biased_step(path[-2], path[-1], bias, generator))
        return np.stack(path, axis=1)

    def _step(self, at: I64, generator: np.random.Generator) -> I64:
        degree = self.begin[at + 1] - self.begin[at]
        chosen = self.begin[at] + (generator.random(len(at)) * degree).astype(np.int64)
        return self.ends[chosen]

    def _biased_step(self, before: I64, at: I64, bias: Bias, generator: np.random.Generator) -> I64:
        most = max(1 / bias.p, 1.0, 1 / bias.q)
        taken = self._step(at, generator)
        open_ = np.arange(len(at))
        for _ in range(TRIALS):
            share = self._bias(before[open_], taken[open_], bias) / most
            open_ = open_[generator.random(len(open_)) >= share]
            if not len(open_):
                break
            taken[open_] = self._step(at[open_], generator)
        return taken

    def _bias(self, before: I64, proposed: I64, bias: Bias) -> F64:
        back = proposed == before
        return np.where(back, 1 / bias.p, np.where(self._joined(before, proposed), 1.0, 1 / bias.q))

    def _joined(self, one: I64, other: I64) -> Bool:
        edges = one * self.nodes + other
        at = np.minimum(np.searchsorted(self._edges, edges), len(self._edges) - 1)
        joined: Bool = self._edges[at] == edges
        return joined


class Walks:
    """Pairs out of walks that are new in every epoch, `passes` from each item, `length` items long;
    the edges are between neighbours in the sequences items[begin[s] : until[s]]."""

    def __init__(
        self,
        items: I32,
        begin: I64,
        until: I64,
        *,
        window: int,
        passes: int,
        length: int,
        bias: Bias,
    ) -> None:
        edges = positions(begin, np.maximum(begin, until - 1))
        if not len(edges):
            raise TrainingError("no two items in one sequence; give interactions of the same user")
        one, other = items[edges].astype(np.int64), items[edges + 1].astype(np.int64)
        self.graph = Graph(one, other, int(items.max()) + 1)
        self.window, self.passes, self.length, self.bias = window, passes, length, bias

    def __len__(self) -> int:
        return self.passes * len(self.graph.starts) * self.length

    def plan(self, size: int, length: int, generator: np.random.Generator) -> list[Pairs]:
        walks = [self.graph.walks(self.length, self.bias, generator) for _ in range(self.passes)]
        visited = np.concatenate(walks).astype(np.int32).ravel()
        begin = np.arange(0, len(visited), self.length)
        pairs = draw_pairs(visited, begin, begin + self.length, self.window, generator)
        return pairs.batches(size, generator)

    def batch(self, part: Pairs) -> Batch:
        return part.batch()
