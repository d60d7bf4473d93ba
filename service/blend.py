"""A list that is put together: several sources, fused, diverse, with places for the unknown."""

from dataclasses import dataclass

import numpy as np

from contract.arrays import F32, I32, I64, Bool
from contract.errors import MalformedRequest
from service import explore
from service.candidates import Candidates, newest
from service.filters import Filter
from service.request import Blend, Recall
from service.slate import Pick, Pool, Rules, Slate
from service.sources import PERSONAL, Found, Query, find

POOL = 4
"""A list of k is chosen from so many times k candidates,"""
MOST_POOL = 2000
"""but from no more than this, unless k is more: each one chosen is compared with all of them."""


@dataclass(frozen=True, eq=False)
class Blending:
    """A list in the order of its making, and all candidates that it was made from."""

    picks: list[Pick]
    found: list[Found]

    @property
    def personal(self) -> bool:
        """Whether a source that knows who asks gave any of the candidates."""
        return any(PERSONAL & found.lists.keys() for found in self.found)

    @property
    def widened(self) -> bool:
        return any(found.widened for found in self.found)

    @property
    def exact(self) -> bool:
        return any(found.exact for found in self.found)


def blend(query: Query, filter_: Filter, request: Recall, wanted: Blend) -> Blending:
    """k items whenever k eligible items exist that the rules allow.

    Raises MalformedRequest for a rule about categories where the items have none."""
    k, rules = (
        request.k,
        Rules(wanted.diversity, wanted.category_diversity, wanted.max_per_category),
    )
    catalogue = _Catalogue(query, rules)
    drawn = explore.places(wanted.explore, k)
    depth = k if rules.plain and not drawn else max(k, min(POOL * k, MOST_POOL))
    slate = Slate(catalogue.codes)
    found = [find(query, filter_, wanted.sources, depth)]
    pool = catalogue.pool(found[0])
    slate.fill(pool, k - drawn, rules)
    if drawn:
        if wanted.explore_from == "new":
            found.append(_new(query, filter_, depth))
        rng = explore.generator(query.state, request, wanted.seed)
        unknown = catalogue.pool(found[-1])
        order = explore.perturbed(unknown.relevance, wanted.temperature, rng)
        cap = Rules(max_per_category=wanted.max_per_category)
        slate.fill(unknown, min(k, len(slate) + drawn), cap, order)
    slate.fill(pool, k, rules)
    # A cap may leave too few of the candidates: there may be others further down.
    while len(slate) < k and len(found[0].rows) == depth:
        rest, before = filter_.without(catalogue.closed(slate)), found[-1].before + depth
        more = find(query, rest, wanted.sources, depth, before)
        if not len(more.rows):
            break
        found.append(more)
        slate.fill(catalogue.pool(more), k, rules)
    return Blending(slate.picks, found)


def _new(query: Query, filter_: Filter, k: int) -> Found:
    """The newest items, scored by the user vectors."""
    rows = newest(query.state, filter_, k).rows
    scores = np.zeros(len(rows), np.float32)
    if query.vectors is not None:
        scores = (query.vectors @ query.state.overlay.item_vectors(rows).T).max(axis=0)
    candidates = Candidates(rows, scores)
    return Found(rows, scores, {"new": candidates})


class _Catalogue:
    """What the rules look at in the items of bundle and overlay."""

    def __init__(self, query: Query, rules: Rules) -> None:
        self._state, self._rules = query.state, rules
        block = query.state.snapshot.category_block
        if rules.reads_categories and block is None:
            raise MalformedRequest(
                "max_per_category and category_diversity need items with a category; those of "
                f"bundle {query.state.snapshot.version} have no category or multi feature"
            )
        self.codes = block.size if block else 1

    def pool(self, found: Found) -> Pool:
        overlay, count = self._state.overlay, len(found.rows)
        vectors, categories = np.empty((count, 0), np.float32), np.empty((count, 0), np.int32)
        if self._rules.diversity:
            vectors = _unit(overlay.item_vectors(found.rows))
        if self._rules.reads_categories:
            categories = overlay.categories_of(found.rows)
        return Pool(found.rows, found.scores, _relevance(found.scores), vectors, categories)

    def closed(self, slate: Slate) -> I64:
        """All rows that may not be taken any more: those that were, and those of categories that
        the cap has closed."""
        overlay, full = self._state.overlay, slate.full_codes(self._rules)
        base, live = self._state.snapshot.categories, overlay.categories
        closed = [_any(full, codes) for codes in (base, live)]
        return np.concatenate([slate.rows, closed[0], closed[1] + overlay.base])


def _any(full: Bool, codes: I32) -> I64:
    return np.flatnonzero(full[codes].any(axis=1))


def _relevance(scores: F32) -> F32:
    """On a scale from 0, the worst of the candidates, to 1, the best."""
    if not len(scores):
        return scores
    worst, best = scores.min(), scores.max()
    relevance: F32 = (scores - worst) / (best - worst) if best > worst else np.zeros_like(scores)
    return relevance


def _unit(vectors: F32) -> F32:
    """Of length 1; a vector of zeros stays one."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: F32 = vectors / np.maximum(norms, np.finfo(np.float32).tiny).astype(np.float32)
    return unit
