"""A list that is filled greedily: each item is the best one beside those that are already in it."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from contract.arrays import F32, I32, I64, Bool


@dataclass(frozen=True)
class Rules:
    """What is asked of a list as a whole. With c the categories and s the cosine, the worth of item
    i beside the items S already in the list is

        (1 - diversity) relevance(i) - diversity max s(i, j) + category_diversity #(c(i) != c(j))

    over j in S. The first two are maximal marginal relevance (Carbonell and Goldstein, "The Use of
    MMR, Diversity-Based Reranking", SIGIR 1998), the last is controllable aggregation (Cen et al.,
    "Controllable Multi-Interest Framework for Recommendation", KDD 2020).
    """

    diversity: float = 0.0
    category_diversity: float = 0.0
    max_per_category: int | None = None

    @property
    def reads_categories(self) -> bool:
        return self.category_diversity > 0 or self.max_per_category is not None

    @property
    def plain(self) -> bool:
        return self.diversity == 0 and not self.reads_categories


class Pool(NamedTuple):
    """P candidates: rows and scores (P,), relevance (P,) from 0 to 1, vectors (P, D) of length 1,
    categories (P, w), codes of which 0 is none. Vectors and categories may have no columns where no
    rule reads them."""

    rows: I64
    scores: F32
    relevance: F32
    vectors: F32
    categories: I32


class Pick(NamedTuple):
    """An item of the list, and what its worth was made of."""

    row: int
    score: float
    relevance: float
    similarity: float
    """The largest cosine with an item before it; 0 where no rule asked for it."""
    others: int
    """Items before it of other categories; 0 where no rule asked for it."""
    explored: bool


class Slate:
    def __init__(self, codes: int) -> None:
        """Category codes are below `codes`."""
        self.picks: list[Pick] = []
        self._vectors: list[F32] = []
        self._categories: list[I32] = []
        self._held = np.zeros(codes, np.int64)

    def __len__(self) -> int:
        return len(self.picks)

    @property
    def rows(self) -> I64:
        return np.array([pick.row for pick in self.picks], np.int64)

    def full_codes(self, rules: Rules) -> Bool:
        """Which category codes (codes,) may not come again; the code of no category always may."""
        if rules.max_per_category is None:
            return np.zeros(len(self._held), np.bool_)
        full: Bool = self._held >= rules.max_per_category
        full[0] = False
        return full

    def fill(self, pool: Pool, size: int, rules: Rules, drawn: F32 | None = None) -> None:
        """Take items of the pool until there are `size` in all, or none is left that may be taken.
        Given `drawn` (P,), the order is that of these numbers instead of the relevance."""
        worth = pool.relevance if drawn is None else drawn
        worth = ((1 - rules.diversity) * worth).astype(np.float32)
        worth[np.isin(pool.rows, self.rows)] = -np.inf
        if rules.plain:
            self._best(pool, size, worth, drawn is not None)
        elif len(worth):
            worth[self._meets(pool, self.full_codes(rules))] = -np.inf
            self._greedily(pool, size, rules, worth, drawn is not None)

    def _best(self, pool: Pool, size: int, worth: F32, explored: bool) -> None:
        order = np.argsort(-worth, kind="stable")[: max(size - len(self), 0)]
        for place in order[np.isfinite(worth[order])].tolist():
            self._take(pool, place, 0.0, 0, explored)

    def _greedily(self, pool: Pool, size: int, rules: Rules, worth: F32, explored: bool) -> None:
        closeness, others = self._beside(pool, rules)
        while len(self) < size:
            value = worth - rules.diversity * closeness + rules.category_diversity * others
            place = int(value.argmax())
            if value[place] == -np.inf:
                return
            self._take(pool, place, float(closeness[place]), int(others[place]), explored)
            worth[place] = -np.inf
            if rules.diversity:
                likeness = pool.vectors @ pool.vectors[place]
                closeness = likeness if len(self) == 1 else np.maximum(closeness, likeness)
            if rules.reads_categories:
                codes = pool.categories[place]
                others += ~self._meets(pool, self._marked(codes))
                full = self.full_codes(rules)
                if full[codes].any():
                    worth[self._meets(pool, full)] = -np.inf

    def _beside(self, pool: Pool, rules: Rules) -> tuple[F32, I64]:
        """Of each candidate, the largest cosine with an item of the list, and how many items of the
        list share no category; 0 where no rule asks."""
        closeness = np.zeros(len(pool.rows), np.float32)
        others = np.zeros(len(pool.rows), np.int64)
        if rules.diversity and self.picks:
            closeness = (pool.vectors @ np.stack(self._vectors).T).max(axis=1)
        if rules.reads_categories:
            for codes in self._categories:
                others += ~self._meets(pool, self._marked(codes))
        return closeness, others

    def _take(self, pool: Pool, place: int, similarity: float, others: int, explored: bool) -> None:
        row, score = int(pool.rows[place]), float(pool.scores[place])
        relevance = float(pool.relevance[place])
        self.picks.append(Pick(row, score, relevance, similarity, others, explored))
        self._vectors.append(pool.vectors[place])
        self._categories.append(pool.categories[place])
        self._held[pool.categories[place]] += 1

    def _marked(self, codes: I32) -> Bool:
        """Codes as a bitmap; code 0, which is no category, is left out."""
        marked = np.zeros(len(self._held), np.bool_)
        marked[codes] = True
        marked[0] = False
        return marked

    def _meets(self, pool: Pool, marked: Bool) -> Bool:
        """(P,) which items have one of the codes marked."""
        met: Bool = np.any(marked[pool.categories], axis=1)
        return met
