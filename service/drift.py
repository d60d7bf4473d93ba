"""Drift: whether answers still look as they did when the bundle was published.

They are counted by deciles of the reference that the bundle carries. So the counts add up over
workers and time, and one threshold suits every model: without drift, each decile gets a tenth.
"""

from collections.abc import Sequence

import numpy as np

from contract.arrays import F32, I64
from contract.reference import DECILES, DEPTH, Reference, decile, signals
from service.answer import Item
from service.metrics import Metrics


class Drift:
    """Of the answers that one worker gives out of one bundle."""

    def __init__(self, reference: Reference | None, variant: str, metrics: Metrics) -> None:
        """Without a reference there is nothing to compare with, and nothing is counted."""
        self._reference = reference
        self._compared = metrics.recheck_compared.labels(variant)
        self._common = metrics.recheck_common.labels(variant)
        self._last: tuple[str | None, I64] | None = None
        metrics.reference_overlap.labels(variant).set(reference.overlap if reference else 0.0)
        self._counts = {
            name: [metrics.recheck_signals.labels(variant, name, str(n)) for n in range(DECILES)]
            for name in (reference.deciles if reference else ())
        }

    def note(self, user_id: str | None, vectors: F32, rows: I64, items: Sequence[Item]) -> None:
        """The items in these rows were the answer to the user vectors (K, D), among all that the
        user has not seen. One of fewer than DEPTH items says nothing."""
        if self._reference is None or len(items) < DEPTH:
            return
        first = rows[:DEPTH]
        scores = np.array([item.score for item in items[:DEPTH]], np.float32)
        found = signals(vectors, scores)
        for name, counts in self._counts.items():
            counts[decile(self._reference.deciles[name], found[name])].inc()
        self._compare(user_id, first)

    def _compare(self, user_id: str | None, rows: I64) -> None:
        """With the answer before, unless it was the same user's."""
        if self._last and (user_id is None or user_id != self._last[0]):
            self._compared.inc(DEPTH)
            self._common.inc(len(np.intersect1d(rows, self._last[1])))
        self._last = user_id, rows
