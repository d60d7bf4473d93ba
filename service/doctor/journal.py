"""What is wrong with the journal of a service, and what a repair does about it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from contract import upkeep
from contract.errors import BundleError, StoreError
from contract.journal import opened_journal
from contract.manifest import read_manifest
from contract.salvage import Salvage, problems, repair, salvage
from contract.store import LocalStore
from service.doctor.finding import Finding

LEAST_FREE = 64 * 2**20
"""Bytes that a journal and the metrics of some workers have for a while."""


def examine(path: Path, store: LocalStore) -> list[Finding]:
    included = _included(store)
    if not path.exists():
        return [Finding(f"journal {path}", "not there: the service makes it")]
    return [_journal(path, included), _room(path.parent)]


def _included(store: LocalStore) -> Sequence[int]:
    """How far the bundles that channels name include the journal; what cannot be read of a store
    is told elsewhere."""
    seqs = []
    for channel in upkeep.channels(store).values():
        if isinstance(channel, StoreError):
            continue
        try:
            seqs.append(read_manifest(store.bundle(channel.version)).seq)
        except (StoreError, BundleError):
            continue
    return seqs


def _journal(path: Path, included: Sequence[int]) -> Finding:
    what, after = f"journal {path}", min(included, default=0)
    if not (wrong := problems(path)):
        return _sound(path, max(included, default=0))
    found = salvage(path, after)
    counts = f"{len(found.lines):,} entries can be read, {_lost(found)}"

    def cure() -> str:
        done, aside = repair(path, after)
        return f"is made anew, {_lost(done)}; the old files are in {aside}"

    return Finding(
        what,
        f"damaged ({' '.join(wrong[0].split())}); {counts}",
        "stop the service, then: set the file aside, make a journal of what can be read",
        True,
        cure,
    )


def _sound(path: Path, included: int) -> Finding:
    with opened_journal(str(path)) as journal:
        last = journal.last_seq()
    what, found = f"journal {path}", f"sound, up to seq {last}"
    if included > last:
        advice = f"a bundle includes it up to seq {included}: it is another one; see --state"
        return Finding(what, found, advice, True)
    return Finding(what, found)


def _lost(found: Salvage) -> str:
    if not found.lost:
        return "none is lost"
    spans = [f"{s.start}-{s.stop - 1}" if len(s) > 1 else str(s.start) for s in found.lost]
    return f"lost: seq {', '.join(spans)}"


def _room(state: Path) -> Finding:
    free = shutil.disk_usage(state).free
    short = free < LEAST_FREE
    return Finding(
        f"state {state}", f"{free / 2**20:,.0f} MiB free", "make room" if short else "", short
    )
