"""A new bundle out of bundle + journal, without training; then the journal is trimmed."""

import shutil
import time
from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from contract.bundle import ITEM_TOWER, USER_TOWER, open_bundle
from contract.errors import StoreError
from contract.journal import Journal
from contract.manifest import Index as IndexEntry
from contract.manifest import Manifest, read_manifest
from contract.store import Store
from offline import build
from offline.build import Content, IndexChoice
from offline.gate import RECALL_AT
from offline.intake import Intake, take_in

DAY = 86_400.0


@dataclass(frozen=True)
class Compacted:
    """What a compaction has done."""

    version: str
    parent: str
    seq: int
    """The last journal entry that the new bundle includes."""
    items: int
    """Posted since the bundle before, new and replaced."""
    refused: int
    """Posts left out, because the schema of the bundle cannot encode them."""
    deleted: int
    events: int
    trimmed: int
    """Entries removed from the journal."""


def compact(
    store: Store, journal: Journal, channel: str, least: int = 1, keep: float = DAY
) -> Compacted | None:
    """Let the channel point at its bundle with the journal taken in, and trim the journal; None
    where fewer than `least` entries wait. What was written in the last `keep` seconds stays in the
    journal: for a training that began before, for a rollback, for a service that has not swapped.

    The order is: write the bundle, point, trim. Whatever stops it in between loses nothing, since
    what a bundle lacks is in the journal still. Raises StoreError where the channel points at
    nothing, JournalError where the journal is not that of the bundle, and what `build.add` raises.
    """
    pointed = store.channel(channel)
    if pointed is None:
        raise StoreError(f"channel '{channel}' points at nothing yet; publish a run to it first")
    before = open_bundle(store.bundle(pointed.version))
    if 0 <= journal.last_seq() - before.manifest.seq < least:
        return None
    intake = take_in(before, journal)

    def copy_towers(directory: Path) -> None:
        for name in (USER_TOWER, ITEM_TOWER):
            shutil.copyfile(before.path / name, directory / name)

    content = Content(_manifest(before.manifest, intake), intake.arrays, copy_towers)
    # Whoever forced a bundle past the gate goes on with it.
    forced = before.manifest.forced
    after = build.add(store, channel, content, _choice(before.manifest.index), forced)
    return Compacted(
        version=after.version,
        parent=before.version,
        seq=after.seq,
        items=len(intake.changes.items),
        refused=intake.refused,
        deleted=len(intake.changes.deleted),
        events=len(intake.changes.events),
        trimmed=journal.trim(removable(store, journal, keep)),
    )


def removable(store: Store, journal: Journal, keep: float) -> int:
    """The journal position up to which no one needs it: the bundle of every channel holds that, and
    it was written more than `keep` seconds ago."""
    channels = store.channels().values()
    held = min((read_manifest(store.bundle(c.version)).seq for c in channels), default=0)
    first = journal.read(0, limit=1)
    if not first:
        return 0
    written = range(first[0].seq, held + 1)
    # In the order of the seqs, but for clocks that were set back.
    before = bisect_left(
        written, time.time() - keep, key=lambda seq: journal.read(seq - 1, 1)[0].at
    )
    return first[0].seq + before - 1


def _manifest(before: Manifest, intake: Intake) -> Manifest:
    arrays = intake.arrays
    dims = {"items": len(arrays["item_vectors"]), "users": len(arrays["user_codes"])}
    changed = {
        "created_at": datetime.now(UTC).replace(microsecond=0),
        "attributes": intake.attributes,
        "dims": before.dims.model_copy(update=dims),
        "seq": intake.changes.seq,
    }
    return before.model_copy(update=changed)


def _choice(entry: IndexEntry) -> IndexChoice:
    """As the bundle before was built, and tuned anew where it was tuned."""
    k = entry.target_k or RECALL_AT
    return IndexChoice(entry.backend, entry.build, entry.search, entry.target_recall, k)
