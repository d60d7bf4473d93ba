"""What a journal is: the durable, ordered log of what was written online.

A write is acknowledged with its seq after it is on disk. Seqs start at 1, have no gaps, and are
never given twice, not even after a trim. Many processes may share one journal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import orjson

from contract.errors import JournalError

Kind = Literal["item", "delete", "event", "lost"]
"""`lost` stands where damage took an entry: its body is empty, and no one acts on it."""


@dataclass(frozen=True)
class Entry:
    kind: Kind
    body: dict[str, Any]
    """A JSON object; NaN and infinities are stored as null."""


@dataclass(frozen=True)
class Write:
    """Entries that stand together: all of them are written, or none."""

    entries: Sequence[Entry]
    after: int | None = None
    """Only where nothing was written after this seq about the items they name."""


@dataclass(frozen=True)
class Record:
    """An entry as the journal holds it."""

    seq: int
    at: float
    """Seconds since the epoch, by the clock of the writer: for people; `seq` is the order."""
    kind: Kind
    body: dict[str, Any]


class Journal(Protocol):
    """Every method raises JournalError where the journal cannot be read or written, JournalDamaged
    where its file is damaged."""

    def append(self, entries: Sequence[Entry]) -> range:
        """The seqs of the entries, consecutive and in their order. All of them are durable when
        this returns. None is there when it raises, but where the way to a server broke meanwhile:
        then all of them may be.
        """
        (seqs,) = self.append_each([Write(entries)])
        assert seqs is not None
        return seqs

    def append_each(self, writes: Sequence[Write]) -> list[range | None]:
        """In one commit, in their order: the seqs of each write, None for one that was not written
        because of its `after`; earlier ones of the same call count.
        """
        ...

    def read(self, after: int, limit: int = 10_000) -> list[Record]:
        """At most `limit` entries with a seq above `after`, in order. Trimmed entries are not
        there: a first seq above `after` + 1 tells the reader that it came too late.
        """
        ...

    def moved(self, upto: int = 0) -> bool:
        """Whether anyone has written since the last call; True on the first. Cheap enough for
        every request. One caller per journal object: a call forgets the news that it reports.

        News of a server's journal are those that have come here, some milliseconds after they were
        written. The caller knows that seq `upto` was given: these are waited for, for a moment.
        """
        ...

    def reachable(self) -> bool:
        """Whether what others write comes here: not while the server of a journal is away."""
        ...

    def last_seq(self) -> int:
        """The seq of the newest entry ever written, trimmed or not; 0 if there was none."""
        ...

    def identity(self) -> int:
        """A number from 1 to 2**31 - 1, drawn when the journal was made: tells it from others."""
        ...

    def trim(self, upto: int) -> int:
        """Remove the entries with a seq of at most `upto`; returns how many."""
        ...

    def require_readable(self) -> None:
        """Decode the body of every entry once."""
        ...

    def close(self) -> None: ...


def encode(entry: Entry) -> str:
    """The body as JSON; raises JournalError for a value that JSON cannot hold."""
    try:
        return orjson.dumps(entry.body).decode()
    except TypeError as exc:
        raise JournalError(
            f"the body of an entry of kind {entry.kind!r} is not JSON ({exc}); "
            "pass strings, numbers, booleans, lists and objects only"
        ) from exc


class JournalKind(Protocol):
    """What opens journals of one kind; `uri` as it was given."""

    def at(self, uri: str) -> Journal:
        """Made where there is none. Raises JournalError."""
        ...

    def is_at(self, uri: str) -> bool:
        """Whether there is one. Raises JournalError where that cannot be told."""
        ...


def shown(uri: str) -> str:
    """A URI as it may be logged: without names and passwords."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0].partition('#')[0]}"
