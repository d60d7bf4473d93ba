"""The gate: what must hold before a channel moves. Each check says what it wanted and found."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from contract.arrays import F32
from contract.bundle import Bundle, Golden
from contract.errors import GateError
from contract.ids import Ids
from contract.index.base import Index
from contract.manifest import Check
from contract.merge import merge
from offline.towers import Towers, user_vectors
from offline.truth import Truth, measure

MIN_RECALL = 0.95
MAX_DIFFERENCE = 1e-3
RECALL_AT = 50
MAX_LOSS = 0.1
"""Largest share of an offline metric that a bundle may lose against the live one."""
COMPARED = ("HR@10", "NDCG@10", "HR@50")
MIN_OVERLAP = 0.9
"""Smallest share of a golden answer that is found again; a tie may fall the other way."""
MAX_NORM = 20.0
"""Largest norm of an item vector, in medians: one longer is first for everyone."""


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


def unique(name: str, ids: Sequence[str] | Ids) -> Check:
    twice = len(ids) - len({ids[n] for n in range(len(ids))})
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


def index_recall(index: Index, items: int, wanted: Truth) -> Check:
    """Share of the true nearest items that the index finds."""
    found = measure(index, items, wanted)
    return Check(
        check=f"index recall@{wanted.k} against exact",
        wanted=f"at least {MIN_RECALL}",
        found=f"{found.recall:.4f}",
        passed=found.recall >= MIN_RECALL,
    )


def norms(items: F32) -> Check:
    lengths = np.linalg.norm(items, axis=1) if len(items) else np.zeros(1)
    found = float(lengths.max() / max(float(np.median(lengths)), 1e-9))
    return Check(
        check="item vectors of like norm",
        wanted=f"largest at most {MAX_NORM:g} medians",
        found=f"{found:.1f}",
        passed=bool(found <= MAX_NORM),
    )


def coverage(index: Index, items: F32, users: F32) -> Check:
    """Distinct items among the first of many users (U, K, D): at most a tenth of the catalogue
    each, together half as many again. A model that collapsed gives everyone the same list."""
    k = min(RECALL_AT, max(1, len(items) // 10))
    rows, scores = index.search(users.reshape(-1, users.shape[2]), k)
    each = zip(rows.reshape(len(users), -1), scores.reshape(len(users), -1), strict=True)
    answers = [merge(own, at, k)[0] for own, at in each]
    found, wanted = len(np.unique(np.concatenate(answers))), min(round(1.5 * k), len(items))
    return Check(
        check=f"distinct items among the first {k} of {len(users):,} users",
        wanted=f"at least {wanted}" if len(users) > 1 else "any",
        found=f"{found:,}",
        passed=found >= wanted or len(users) <= 1,
    )


def not_worse(metrics: Mapping[str, float], live: Mapping[str, float]) -> list[Check]:
    """The offline metrics that both bundles have, against those of the live one."""
    return [
        Check(
            check=f"{name} against the live bundle",
            wanted=f"at least {(1 - MAX_LOSS) * live[name]:.4f}",
            found=f"{metrics[name]:.4f}",
            passed=metrics[name] >= (1 - MAX_LOSS) * live[name],
        )
        for name in COMPARED
        if name in metrics and name in live
    ]


def golden(bundle: Bundle, towers: Towers, index: Index) -> Check:
    """The requests that the service replays before it serves, replayed out of nothing but the files
    of the bundle: the exported tower, the histories, the index as it is opened."""
    asked = bundle.golden
    users = np.array([bundle.user_ids.row(request.user_id) for request in asked], np.int64)
    vectors = user_vectors(towers, bundle, users)
    answered = sum(
        user >= 0 and _answers(index, of_user, request)
        for user, of_user, request in zip(users.tolist(), vectors, asked, strict=True)
    )
    return Check(
        check="golden requests answered",
        wanted=f"{len(asked)} of {len(asked)}",
        found=f"{answered} of {len(asked)}",
        passed=answered == len(asked),
    )


def _answers(index: Index, vectors: F32, request: Golden) -> bool:
    wanted = np.array(request.rows)
    # A score that is no number was written as null.
    expected = np.array(request.scores, np.float32)
    rows, scores = index.search(vectors, wanted.shape[1])
    overlap = np.mean([np.isin(w, r).mean() for w, r in zip(wanted, rows, strict=True)])
    worst = np.abs(scores - expected).max()
    return bool(overlap >= MIN_OVERLAP and worst <= MAX_DIFFERENCE)


def fits(size: int) -> Check:
    """A bundle is mapped: what does not fit the memory is read from the disk again and again."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Check(
        check="size within this machine's memory",
        wanted=f"at most {memory / 2**30:.1f} GiB",
        found=f"{size / 2**30:.3f} GiB",
        passed=size <= memory,
    )


def require(checks: Sequence[Check]) -> None:
    """Raises GateError, which holds all the checks, unless every one has passed."""
    failed = [c for c in checks if not c.passed]
    if failed:
        lines = [f"{c.check}: wanted {c.wanted}, found {c.found}" for c in failed]
        raise GateError("the gate refused the bundle: " + "; ".join(lines), tuple(checks))
