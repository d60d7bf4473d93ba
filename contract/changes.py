"""What a journal comes to: the last state of every item that was written, and every event."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from contract.errors import JournalError
from contract.journal import Journal, Record

CHUNK = 10_000
"""Records read at a time: bounds the memory beside what is kept of them."""


class Posted(NamedTuple):
    features: Mapping[str, Any]
    available: bool


class Event(NamedTuple):
    user_id: str
    item_id: str
    timestamp: int
    """Seconds since 1970."""
    kind: str | None


@dataclass
class Changes:
    """The entries after one journal position up to another, `seq`, folded."""

    seq: int
    items: dict[str, Posted] = field(default_factory=dict)
    """As they were posted last, in the order of their first post. Deleted ones too: histories may
    hold them."""
    deleted: set[str] = field(default_factory=set)
    """Deleted and not posted again."""
    events: list[Event] = field(default_factory=list)
    """In the order of arrival."""

    def add(self, record: Record) -> None:
        body = record.body
        if record.kind == "event":
            timestamp = body.get("timestamp", int(record.at))
            self.events.append(Event(body["user_id"], body["item_id"], timestamp, body.get("kind")))
        elif record.kind == "item":
            posted = Posted(body.get("features", {}), body.get("available", True))
            self.items[body["item_id"]] = posted
            self.deleted.discard(body["item_id"])
        elif record.kind == "delete":
            self.deleted.add(body["item_id"])


def fold(journal: Journal, after: int, takes: Callable[[Record], bool] = lambda _: True) -> Changes:
    """Everything that was written after position `after`, to the journal's end, but for the records
    that `takes` does not take.

    Raises JournalError when the journal ends before `after`, or was trimmed behind it.
    """
    changes = Changes(after)
    for record in records(journal, after):
        if takes(record):
            changes.add(record)
        changes.seq = record.seq
    return changes


def records(journal: Journal, after: int) -> Iterator[Record]:
    """The entries after position `after`; raises as `fold` does."""
    end = journal.last_seq()
    if after > end:
        raise JournalError(
            f"the journal ends at seq {end}, before seq {after}, from where it was to be read; it "
            "is another journal"
        )
    while after < end:
        chunk = journal.read(after, min(CHUNK, end - after))
        if not chunk or chunk[0].seq != after + 1:
            raise JournalError(
                f"the journal was trimmed behind seq {after}, from where it was to be read; what "
                "was trimmed is in the bundles"
            )
        yield from chunk
        after = chunk[-1].seq
