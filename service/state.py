"""What one recall works on: a snapshot and all that was written online since it."""

from collections.abc import Sequence
from dataclasses import dataclass

from contract.attributes import Attributes
from contract.journal import Record
from service.overlay import Overlay
from service.snapshot import Snapshot
from service.users import LiveUsers


@dataclass(frozen=True, eq=False)
class State:
    """One snapshot and what was written online since it, as far as it has been applied."""

    snapshot: Snapshot
    overlay: Overlay
    users: LiveUsers

    @classmethod
    def of(cls, snapshot: Snapshot, max_user_events: int, journal: int) -> "State":
        """Before any record of the journal of this identity."""
        overlay = Overlay(snapshot, journal)
        return cls(snapshot, overlay, LiveUsers(overlay, max_user_events))

    @property
    def attributes(self) -> Attributes:
        """What requests may filter by."""
        return self.snapshot.bundle.manifest.attributes

    def position(self, user_id: str | None) -> tuple[int, int]:
        """What an answer to this user depends on, beside the request and the snapshot: the journal
        positions of the last record about any item and of the user's own last event."""
        return self.overlay.seq, self.users.seq(user_id) if user_id is not None else 0

    def apply(self, records: Sequence[Record]) -> None:
        """Take in journal records that follow those already applied."""
        self.overlay.apply(records)
        manifest = self.snapshot.bundle.manifest
        kinds, histories = manifest.events, manifest.features.histories
        for record in records:
            if record.kind == "event":
                body = record.body
                flags = kinds.flags(body.get("kind"), histories)
                self.users.add(body["user_id"], body["item_id"], flags, record.seq)
