"""Negatives: the items that a step tells its targets apart from, one set for the whole step.

An item that is drawn often is a negative often. A sampler says by how much, as a weight that the
objectives use, so that the loss is what uniform draws would have given (logQ correction; Yi et al.,
"Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", RecSys 2019).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from contract.arrays import F32, F64, I64


class Negatives(NamedTuple):
    rows: I64  # (S,) distinct rows of the catalogue
    log_weight: F32  # (S,) logarithm of how often each counts
    target_log_weight: F32  # (T,) the same of the targets, as if each had been drawn once


class Sampler(Protocol):
    @property
    def keep(self) -> int:
        """Of the negatives of a sample only so many count, those scored highest; 0 for all."""
        ...

    def draw(self, targets: I64, generator: np.random.Generator) -> Negatives:
        """targets (T,): rows of the positives of the step."""
        ...


@dataclass(frozen=True)
class Catalogue:
    """Every item that occurs in training."""

    rows: I64
    keep: int = 0

    def draw(self, targets: I64, generator: np.random.Generator) -> Negatives:
        return Negatives(
            self.rows, np.zeros(len(self.rows), np.float32), np.zeros(len(targets), np.float32)
        )


class Draws:
    """Draws with repetition, and the targets of the step where `in_batch`."""

    def __init__(
        self, counts: I64, alpha: float, count: int, in_batch: bool, logq: float, keep: int = 0
    ) -> None:
        """counts (N,) of the training targets; an item is drawn in proportion to count ** alpha,
        never where its count is 0. logq: the share of the correction, from 0 to 1."""
        self.keep = keep
        self._count, self._in_batch, self._logq = count, in_batch, logq
        self._popularity = counts / counts.sum()
        powers: F64 = np.where(counts > 0, counts.astype(np.float64) ** alpha, 0.0)
        self._share = powers / powers.sum()
        self._cumulative = np.cumsum(self._share)
        self._items = int((counts > 0).sum())

    def draw(self, targets: I64, generator: np.random.Generator) -> Negatives:
        places = generator.random(self._count) * self._cumulative[-1]
        drawn = np.searchsorted(self._cumulative, places, side="right")
        batch = targets if self._in_batch else targets[:0]
        rows, times = np.unique(np.concatenate([drawn, batch]), return_counts=True)
        taken = len(drawn) + len(batch)
        odds = (len(drawn) / taken, len(batch) / taken)
        log_weight = np.log(times) - self._correction(rows, odds)
        return Negatives(
            rows, log_weight.astype(np.float32), -self._correction(targets, odds).astype(np.float32)
        )

    def _correction(self, rows: I64, odds: tuple[float, float]) -> F64:
        """Logarithm of how much likelier these rows are drawn than by uniform draws."""
        share = odds[0] * self._share[rows] + odds[1] * self._popularity[rows]
        correction: F64 = self._logq * np.log(np.maximum(share * self._items, 1e-12))
        return correction


def full(counts: I64) -> Sampler:
    """The whole catalogue: no sampling error, affordable up to some ten thousand items."""
    return Catalogue(np.flatnonzero(counts))


def in_batch(counts: I64, logq: float = 1.0) -> Sampler:
    """The other targets of the step: free, and as popular as the targets are."""
    return Draws(counts, 1.0, 0, True, logq)


def uniform(counts: I64, count: int = 512) -> Sampler:
    return Draws(counts, 0.0, count, False, 0.0)


def popularity(counts: I64, count: int = 512, alpha: float = 0.75, logq: float = 1.0) -> Sampler:
    """In proportion to popularity ** alpha."""
    return Draws(counts, alpha, count, False, logq)


def mixed(counts: I64, count: int = 512, logq: float = 1.0) -> Sampler:
    """The targets of the step and uniform draws: popular and rare ones (Yang et al., "Mixed
    Negative Sampling for Learning Two-tower Neural Networks in Recommendations", WWW 2020)."""
    return Draws(counts, 0.0, count, True, logq)


def hard(counts: I64, count: int = 1024, keep: int = 64) -> Sampler:
    """Of uniform draws those that a sample's user scores highest."""
    return Draws(counts, 0.0, count, False, 0.0, keep)


NEGATIVES: dict[str, Callable[..., Sampler]] = {
    "full": full,
    "in_batch": in_batch,
    "uniform": uniform,
    "popularity": popularity,
    "mixed": mixed,
    "hard": hard,
}
