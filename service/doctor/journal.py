"""What is wrong with the journal of a service, and what a repair does about it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from contract import upkeep
from contract.errors import BundleError, JournalError, StoreError
from contract.journal import Journal, is_local, opened_journal
from contract.journal.base import shown
from contract.journal.sqlite import local_path
from contract.manifest import read_manifest
from contract.salvage import Salvage, problems, repair, salvage
from contract.store import LocalStore
from service.doctor.finding import Finding

LEAST_FREE = 64 * 2**20
"""Bytes that a journal and the metrics of some workers have for a while."""


def examine(uri: str, store: LocalStore) -> list[Finding]:
    included = _included(store)
    if not is_local(uri):
        return [_served(uri, max(included, default=0))]
    path = local_path(uri)
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
        with opened_journal(str(path)) as journal:
            return _sound(str(path), journal, max(included, default=0))
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


def _served(uri: str, included: int) -> Finding:
    try:
        with opened_journal(uri) as journal:
            journal.require_readable()
            return _sound(uri, journal, included)
    except JournalError as error:
        return Finding(f"journal {shown(uri)}", str(error), "see to its server", True)


def _sound(uri: str, journal: Journal, included: int) -> Finding:
    last = journal.last_seq()
    what, found = f"journal {shown(uri)}", f"sound, up to seq {last}"
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
