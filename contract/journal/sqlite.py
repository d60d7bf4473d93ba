"""A journal in one SQLite file: the one of a service on one machine."""

import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from contract.errors import JournalDamaged, JournalError
from contract.files import locked
from contract.journal.base import Journal, Record, Write, encode

SCHEME = "sqlite://"

FORMAT = 1  # PRAGMA user_version of the file

# A commit takes milliseconds; a writer that waits this long has met a stuck one.
LOCK_SECONDS = 30.0

REPAIR = ".repair"
"""A directory beside the journal while it is repaired; see `contract.salvage`."""

DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
UNDECODABLE = "Could not decode to UTF-8"
"""Begins what Python's sqlite3 says of a text that is damaged; there is no error code for it."""

SCHEMA = """
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('item', 'delete', 'event', 'lost')),
    body TEXT NOT NULL
)
"""


class SqliteJournal(Journal):
    """A journal in one SQLite file, shared by the processes of one machine.

    Creates the file and its directory where they are missing. Raises JournalError for a file that
    is not a journal of this format, JournalDamaged while a repair of it is not finished. To be
    opened after a fork, never carried across one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: int | str | None = None
        # Two connections, because a connection does not see its own commits as a move.
        self._writing, self._reading = threading.Lock(), threading.Lock()
        with self._explained():
            _make_directory(path.parent)
            if (path.parent / REPAIR).exists():
                raise _damaged(path, "its repair was begun and is not finished")
            self._writer = _connect(path)
            try:
                with _locked_directory(path.parent):
                    _prepare(self._writer, path)
                self._reader = _connect(path)
            except BaseException:
                self._writer.close()
                raise

    @classmethod
    def at(cls, uri: str) -> "SqliteJournal":
        if not uri.removeprefix(SCHEME):
            raise JournalError(f"journal {uri!r} names no file, expected a path or {SCHEME}/path")
        return cls(local_path(uri))

    @staticmethod
    def is_at(uri: str) -> bool:
        return local_path(uri).is_file()

    def append_each(self, writes: Sequence[Write]) -> list[range | None]:
        now = time.time()
        rows = [[(now, entry.kind, encode(entry)) for entry in one.entries] for one in writes]
        with self._transaction() as connection:
            return [
                None if self._overtaken(connection, one) else _insert(connection, its)
                for one, its in zip(writes, rows, strict=True)
            ]

    def read(self, after: int, limit: int = 10_000) -> list[Record]:
        query = (
            "SELECT seq, at, kind, CAST(body AS BLOB) FROM entries WHERE seq > ? "
            "ORDER BY seq LIMIT ?"
        )
        with self._reading, self._explained():
            rows = self._reader.execute(query, (after, limit)).fetchall()
        return [Record(seq, at, kind, self._decoded(seq, body)) for seq, at, kind, body in rows]

    def _overtaken(self, connection: sqlite3.Connection, write: Write) -> bool:
        """Whether anything was written after its `after` about the items that it names. Looks at
        what came since, which is little."""
        if write.after is None:
            return False
        query = (
            "SELECT seq, CAST(body AS BLOB) FROM entries "
            "WHERE seq > ? AND kind IN ('item', 'delete')"
        )
        items = {entry.body["item_id"] for entry in write.entries}
        since = connection.execute(query, (write.after,))
        return any(self._decoded(seq, body)["item_id"] in items for seq, body in since)

    def _decoded(self, seq: int, body: bytes) -> dict[str, Any]:
        """Of bytes: sqlite3, which decodes texts itself, does not say which one it cannot."""
        try:
            found = orjson.loads(body)
        except orjson.JSONDecodeError as exc:
            raise _damaged(self._path, f"entry {seq}: {exc}") from exc
        if not isinstance(found, dict):
            raise _damaged(self._path, f"entry {seq}: not an object")
        return found

    def moved(self, upto: int = 0) -> bool:
        with self._reading, self._explained():
            version = _pragma(self._reader, "data_version")
            moved = version != self._version
            self._version = version
        return moved

    def reachable(self) -> bool:
        return True

    def last_seq(self) -> int:
        with self._reading, self._explained():
            return _last_seq(self._reader)

    def identity(self) -> int:
        with self._reading, self._explained():
            return int(_pragma(self._reader, "application_id"))

    def trim(self, upto: int) -> int:
        with self._transaction() as connection:
            return connection.execute("DELETE FROM entries WHERE seq <= ?", (upto,)).rowcount

    def require_readable(self) -> None:
        with self._reading, self._explained():
            # Decoded as `read` does: SQLite's json_valid lets pass what is no UTF-8, and to look at
            # that too costs as much as this.
            query = "SELECT seq, CAST(body AS BLOB) FROM entries"
            for seq, body in self._reader.execute(query):
                self._decoded(seq, body)

    def close(self) -> None:
        with self._writing, self._reading, self._explained():
            self._reader.close()
            self._writer.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._writing, self._explained(), _transaction(self._writer):
            yield self._writer

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as exc:
            code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
            if code in DAMAGE or str(exc).startswith(UNDECODABLE):
                raise _damaged(self._path, str(exc)) from exc
            raise JournalError(
                f"journal {self._path}: {exc}; check the path, the disk and who else has it open"
            ) from exc


def local_path(uri: str) -> Path:
    """Of a path, or of `sqlite://` and a path."""
    return Path(uri.removeprefix(SCHEME))


def _damaged(path: Path, what: str) -> JournalDamaged:
    return JournalDamaged(
        f"journal {path}: damaged ({what}); stop what uses it, and see what "
        f"'tandem doctor --store STORE --state {path.parent}' says"
    )


def _connect(path: Path) -> sqlite3.Connection:
    # Locks of ours guard each connection, so any thread may use it.
    connection = sqlite3.connect(
        path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make a journal of an empty file; refuse a file that is something else."""
    found = int(_pragma(connection, "user_version"))
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    empty = found == 0 and not tables
    if not empty and (found != FORMAT or "entries" not in tables):
        raise JournalError(
            f"journal {path}: format {found} with tables {sorted(tables)}, expected format "
            f"{FORMAT} with table 'entries'; give another path, or use the Tandem that wrote it"
        )
    mode = _pragma(connection, "journal_mode = WAL")
    if mode != "wal":
        raise JournalError(
            f"journal {path}: mode {mode!r}, expected 'wal'; put it on a local file system"
        )
    if empty:
        with _transaction(connection):
            connection.execute(SCHEMA)
            connection.execute(f"PRAGMA user_version = {FORMAT}")
    if not _pragma(connection, "application_id"):
        connection.execute(f"PRAGMA application_id = {1 + secrets.randbelow(2**31 - 1)}")


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors (a full disk).
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _make_directory(directory: Path) -> None:
    """The directory and its missing parents, durably: a parent's fsync keeps the child's name."""
    if directory.is_dir():
        return
    _make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    with _locked_directory(directory.parent):
        pass


@contextmanager
def _locked_directory(directory: Path) -> Iterator[None]:
    """One process at a time, and the names in the directory on disk at the end. SQLite's own lock
    does not make one change to WAL wait for another.
    """
    with locked(directory) as descriptor:
        yield
        os.fsync(descriptor)


def _pragma(connection: sqlite3.Connection, pragma: str) -> int | str:
    value: int | str = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
    return value


def _insert(connection: sqlite3.Connection, rows: Sequence[tuple[float, str, str]]) -> range:
    connection.executemany("INSERT INTO entries (at, kind, body) VALUES (?, ?, ?)", rows)
    last = _last_seq(connection)
    return range(last - len(rows) + 1, last + 1)


def _last_seq(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'entries'").fetchone()
    return int(row[0]) if row else 0
