"""The gate: what must hold before a channel moves. Each check says what it wanted and found."""

from collections.abc import Sequence

import numpy as np

from contract.arrays import F32
from contract.errors import GateError
from contract.index.base import Index
from contract.index.exact import ExactIndex
from contract.manifest import Check

MIN_RECALL = 0.95
MAX_DIFFERENCE = 1e-3
RECALL_AT = 50


def finite(name: str, vectors: F32) -> Check:
    bad = int((~np.isfinite(vectors)).any(axis=-1).sum())
    return Check(
        check=f"{name} finite", wanted="0 rows with NaN", found=f"{bad} rows", passed=not bad
    )


def not_zero(name: str, vectors: F32) -> Check:
    """A vector of zeros scores zero with everything: an item that can never be found on merit."""
    zero = int((np.linalg.norm(vectors, axis=-1) < 1e-6).sum())
    return Check(
        check=f"{name} not zero", wanted="0 zero rows", found=f"{zero} rows", passed=not zero
    )


def unique(name: str, ids: Sequence[str]) -> Check:
    twice = len(ids) - len(set(ids))
    return Check(check=f"{name} unique", wanted="0 twice", found=f"{twice} twice", passed=not twice)


def parity(name: str, expected: F32, found: F32) -> Check:
    """The exported tower against torch on real rows."""
    worst = float(np.abs(expected - found).max()) if expected.size else 0.0
    return Check(
        check=f"{name} parity with torch",
        wanted=f"at most {MAX_DIFFERENCE:g}",
        found=f"{worst:.1e}",
        passed=bool(worst <= MAX_DIFFERENCE),
    )


def index_recall(index: Index, items: F32, queries: F32) -> Check:
    """Share of the true nearest items that the index finds. queries (Q, D) are user vectors, which
    are not distributed like items."""
    k = min(RECALL_AT, len(items))
    truth, _ = ExactIndex(items).search(queries, k)
    rows, _ = index.search(queries, k)
    hits = sum(len(np.intersect1d(t, r)) for t, r in zip(truth, rows, strict=True))
    recall = hits / truth.size
    return Check(
        check=f"index recall@{k} against exact",
        wanted=f"at least {MIN_RECALL}",
        found=f"{recall:.4f}",
        passed=recall >= MIN_RECALL,
    )


def require(checks: Sequence[Check]) -> None:
    """Raises GateError with the failed checks, one a line, unless all have passed."""
    failed = [c for c in checks if not c.passed]
    if failed:
        lines = [f"{c.check}: wanted {c.wanted}, found {c.found}" for c in failed]
        raise GateError("the gate refused the bundle: " + "; ".join(lines))
