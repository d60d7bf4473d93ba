"""Where a blended list gets its candidates from: a table of sources, asked and fused."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from contract.arrays import F32, I64
from service.asker import Asker
from service.candidates import Candidates, nearest, newest, popular
from service.filters import Filter
from service.fusion import fuse
from service.request import SourceName
from service.state import State

RECENT = 5
"""The source `similar` starts from so many items, the last of the history."""
PERSONAL: frozenset[SourceName] = frozenset({"model", "similar"})
"""Sources that know who asks."""


@dataclass(frozen=True, eq=False)
class Query:
    """What the sources are asked about: a state, who asks, and the user vectors (K, D), which are
    None for someone of whom nothing is known."""

    state: State
    asker: Asker
    vectors: F32 | None


@dataclass(frozen=True, eq=False)
class Found:
    """Distinct eligible rows (n,), the best first, their scores (n,), and what each source gave."""

    rows: I64
    scores: F32
    lists: Mapping[SourceName, Candidates]
    before: int = 0
    """So many candidates of each source came before these, in earlier looks."""

    @property
    def widened(self) -> bool:
        return any(candidates.widened for candidates in self.lists.values())

    @property
    def exact(self) -> bool:
        return any(candidates.exact for candidates in self.lists.values())


NONE = Candidates(np.empty(0, np.int64), np.empty(0, np.float32))


def _model(query: Query, filter_: Filter, k: int) -> Candidates:
    if query.vectors is None:
        return NONE
    return nearest(query.state, filter_, query.vectors, k)


def _similar(query: Query, filter_: Filter, k: int) -> Candidates:
    recent = query.asker.history[-RECENT:]
    if not len(recent):
        return NONE
    return nearest(query.state, filter_, query.state.overlay.item_vectors(recent), k)


def _new(query: Query, filter_: Filter, k: int) -> Candidates:
    return newest(query.state, filter_, k)


def _popular(query: Query, filter_: Filter, k: int) -> Candidates:
    return popular(query.state, filter_, query.asker.segment, k)


SOURCES: dict[SourceName, Callable[[Query, Filter, int], Candidates]] = {
    "model": _model,
    "similar": _similar,
    "new": _new,
    "popular": _popular,
}


def find(
    query: Query, filter_: Filter, weights: Mapping[SourceName, float], k: int, before: int = 0
) -> Found:
    """The k best eligible items of the sources together, after so many `before` of each, which the
    filter leaves out. Where they give fewer, popular items come behind, so that there are k
    whenever k are eligible.

    The scores are those of the source where one alone gave candidates, else those of `fuse`."""
    asked = {name: SOURCES[name](query, filter_, k) for name in weights}
    lists = {name: candidates for name, candidates in asked.items() if len(candidates.rows)}
    if len(lists) > 1:
        each = [candidates.rows for candidates in lists.values()]
        rows, scores = fuse(each, [weights[name] for name in lists], before)
    else:
        rows, scores, *_ = next(iter(lists.values()), NONE)
    found = Found(rows[:k], scores[:k], lists, before)
    return found if len(rows) >= k or "popular" in weights else _filled(query, filter_, found, k)


def _filled(query: Query, filter_: Filter, found: Found, k: int) -> Found:
    more = _popular(query, filter_.without(found.rows), k - len(found.rows))
    if not len(more.rows):
        return found
    if not len(found.rows):
        return Found(more.rows, more.scores, {"popular": more}, found.before)
    behind = np.full(len(more.rows), min(0.0, float(found.scores[-1])), np.float32)
    return Found(
        np.concatenate([found.rows, more.rows]),
        np.concatenate([found.scores, behind]),
        {**found.lists, "popular": more},
        found.before,
    )
