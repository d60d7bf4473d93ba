"""A journal whose file is damaged: what of it can be read, and a sound one made of that.

A repair never destroys. The old files are linked into a directory aside, the new journal is made
there, and only then takes the old one's place. Until all is done no one can open the journal, and
a repair that died goes on from what is aside.
"""

import fcntl
import mmap
import os
import shutil
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import get_args

import orjson

from contract.errors import JournalError
from contract.files import sync
from contract.journal.base import Kind
from contract.journal.sqlite import FORMAT, REPAIR, SCHEMA
from contract.pages import Content, Pages, Row

LOG, SHARED = "-wal", "-shm"
"""What SQLite appends to the name of a journal, for its write-ahead log and for what is shared."""
NEW = "new.db"
SEQUENCE = "entries"
KINDS = get_args(Kind)
IDENTITY = 68
"""Where a SQLite header has its application id."""
FIRST_LOCK, LOCKS = 0x40000002, 510
"""The bytes of a database file that SQLite locks shared as long as anyone has it open."""
LEAST_ROW = 16
"""Bytes of a row at least: what counts further than the file is long was not written so."""

Line = tuple[int, float, str, str]
"""A row of the table of entries: seq, at, kind, body."""


@dataclass(frozen=True)
class Salvage:
    """What can be read of a journal."""

    lines: Sequence[Line]
    """Ascending; what was marked as lost before is among them."""
    lost: Sequence[range]
    """The seqs that cannot be read."""
    last: int
    """The seq that was given last."""
    identity: int
    """0 where it cannot be read."""


def problems(path: Path) -> list[str]:
    """What is wrong with the file of a journal; may be called while it is in use."""
    if (path.parent / REPAIR).exists():
        return ["its repair was begun and is not finished"]
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(3)")]
            if found != ["ok"]:
                return found
            return list(_problems(connection))
    except sqlite3.Error as error:
        return [str(error)]


def _problems(connection: sqlite3.Connection) -> Iterator[str]:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != FORMAT:
        yield f"format {version}, this release reads format {FORMAT}"
        return
    expected = None
    query = "SELECT seq, CAST(body AS BLOB) FROM entries ORDER BY seq"
    for seq, body in connection.execute(query):
        if expected is not None and seq != expected:
            yield f"no entry {expected}, after it comes {seq}"
            return
        if not _is_object(body):
            yield f"entry {seq} is not a JSON object"
            return
        expected = seq + 1
    query = "SELECT seq FROM sqlite_sequence WHERE name = 'entries'"
    (given,) = connection.execute(query).fetchone() or (0,)
    if expected is not None and given < expected - 1:
        yield f"entry {expected - 1} lies behind seq {given}, which is the last one given"


def salvage(path: Path, after: int) -> Salvage:
    """Read what can be read. `after` is a position that no trim can have passed: what is not found
    after it is lost. What lies before it may be old, where the page that took it out is damaged.
    Raises OSError."""
    source = path.parent / REPAIR if (path.parent / REPAIR / path.name).exists() else path.parent
    with _content(source / path.name) as file, _content(source / f"{path.name}{LOG}") as log:
        pages = Pages(file, log)
        rows = list(pages.rows())
        identity, most = pages.number(IDENTITY) or 0, (len(file) + len(log)) // LEAST_ROW
    lines = _agreeing(line for row in rows if (line := _line(row)))
    given = [row.values[1] for row in rows if len(row.values) == 2 and row.values[0] == SEQUENCE]
    seqs = _counting([after, *(line[0] for line in lines)], most)
    lines = [line for line in lines if line[0] <= seqs[-1]]
    last = max(n for n in (seqs[-1], *given) if isinstance(n, int) and n <= seqs[-1] + most)
    return Salvage(lines, _gaps([*seqs, last + 1]), last, identity)


def repair(path: Path, after: int) -> tuple[Salvage, Path]:
    """Put a sound journal in the place of a damaged one: what was read, an entry of kind `lost`
    for each that was not, and where the old files are now. Raises JournalError while anyone has it
    open, and where the disk does not take it; then nothing is lost, and another try goes on."""
    try:
        return _repaired(path, after)
    except (OSError, sqlite3.Error) as error:
        raise JournalError(
            f"journal {path}: not repaired ({error}); what there was is in {path.parent} and in "
            f"{path.parent / REPAIR}; make room, then repair it again"
        ) from error


def _repaired(path: Path, after: int) -> tuple[Salvage, Path]:
    aside = path.parent / REPAIR
    with _alone(path):
        if not (aside / path.name).exists():
            _set_aside(path, aside)
        found = salvage(path, after)
        new = aside / NEW
        new.unlink(missing_ok=True)
        _write(new, found)
        # Another journal's log must not be found beside the new one.
        for name in (LOG, SHARED):
            path.with_name(path.name + name).unlink(missing_ok=True)
        sync(path.parent)
        new.replace(path)
        sync(path.parent)
    kept = path.with_name(f"{path.name}-damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}")
    aside.rename(kept)
    sync(path.parent)
    return found, kept


def _set_aside(path: Path, aside: Path) -> None:
    """The file itself last: where it is aside, all are."""
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for name in (SHARED, LOG, ""):
        old = path.with_name(path.name + name)
        if old.exists():
            os.link(old, aside / old.name)
        sync(aside)
    sync(path.parent)


def _write(path: Path, found: Salvage) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN")
        connection.execute(SCHEMA)
        connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", _marked(found))
        connection.execute("DELETE FROM sqlite_sequence")
        connection.execute("INSERT INTO sqlite_sequence VALUES ('entries', ?)", (found.last,))
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute(f"PRAGMA application_id = {found.identity}")
        connection.execute("COMMIT")
    sync(path)


def _marked(found: Salvage) -> Iterator[Line]:
    """With an entry for each that is lost, of the time of the one before it."""
    lost: list[Line] = [(seq, 0.0, "lost", "{}") for missing in found.lost for seq in missing]
    at = found.lines[0][1] if found.lines else 0.0
    for seq, when, kind, body in sorted([*found.lines, *lost]):
        at = when if kind != "lost" else at
        yield seq, at, kind, body


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """No one has the journal open, and no one can open it: SQLite's own lock, taken beside it."""
    # Of the open file: a lock of the process ends when the process closes the file elsewhere.
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, FIRST_LOCK, LOCKS, 0)
    with path.open("r+b") as file:
        try:
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
        except OSError as error:
            raise JournalError(
                f"journal {path}: in use; stop the service and whatever else has it open, "
                "then repair it"
            ) from error
        yield


@contextmanager
def _content(path: Path) -> Iterator[Content]:
    """Of a file, mapped; nothing where there is none."""
    if not path.exists() or not path.stat().st_size:
        yield b""
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


def _line(row: Row) -> Line | None:
    """A row that can only be one of the table of entries."""
    if len(row.values) != 4 or row.id < 1:
        return None
    nothing, at, kind, body = row.values
    sound = nothing is None and isinstance(at, int | float) and kind in KINDS
    if not sound or not isinstance(body, str) or not _is_object(body):
        return None
    assert isinstance(at, int | float)
    return row.id, float(at), str(kind), body


def _is_object(body: str | bytes) -> bool:
    try:
        return isinstance(orjson.loads(body), dict)
    except orjson.JSONDecodeError:
        return False


def _agreeing(lines: Iterator[Line]) -> list[Line]:
    """Each seq once, in order; without those of which there are two that differ."""
    found = dict[int, Line]()
    torn = set[int]()
    for line in lines:
        if found.setdefault(line[0], line) != line:
            torn.add(line[0])
    return [found[seq] for seq in sorted(found.keys() - torn)]


def _counting(seqs: list[int], most: int) -> list[int]:
    """The first is where to begin, the others are what was found. Without what lies before the
    beginning, for that was trimmed or not, and what no file of this size can count to."""
    begin, *found = seqs
    if found and not begin < found[0] <= begin + most:
        begin = found[0] - 1
    counted = [begin]
    for seq in found:
        if seq <= counted[-1] + most:
            counted.append(seq)
    return counted


def _gaps(seqs: Sequence[int]) -> list[range]:
    """What lies between each two of them."""
    between = (range(one + 1, two) for one, two in pairwise(seqs))
    return [missing for missing in between if missing]
