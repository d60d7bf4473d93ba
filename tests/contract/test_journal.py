import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from contract.errors import Conflict, JournalDamaged, JournalError, Overloaded
from contract.journal import (
    Entry,
    GroupCommit,
    Journal,
    Record,
    SqliteJournal,
    Write,
    open_journal,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[SqliteJournal]:
    with closing(SqliteJournal(path)) as journal:
        yield journal


def event(**body: Any) -> Entry:
    return Entry("event", body)


def bodies(records: list[Record]) -> list[dict[str, Any]]:
    return [record.body for record in records]


def test_entries_come_back_in_order_and_whole(journal: SqliteJournal) -> None:
    entries = [
        Entry("item", {"item_id": "é\u0000\U0001f6b2", "features": {"year": 1994, "tags": ["a"]}}),
        Entry("delete", {"item_id": "2"}),
        Entry("event", {"user_id": "u", "weight": 0.1, "note": None, "again": True}),
    ]

    assert journal.append(entries[:2]) == range(1, 3)
    assert journal.append(entries[2:]) == range(3, 4)

    records = journal.read(after=0)
    assert [record.seq for record in records] == [1, 2, 3]
    assert [Entry(record.kind, record.body) for record in records] == entries
    assert records[0].at == records[1].at <= records[2].at


def test_a_reader_goes_on_where_it_stopped(journal: SqliteJournal) -> None:
    journal.append([event(n=n) for n in range(10)])

    assert [record.seq for record in journal.read(after=3, limit=4)] == [4, 5, 6, 7]
    assert [record.seq for record in journal.read(after=7)] == [8, 9, 10]
    assert journal.read(after=10) == []


def test_an_empty_journal_is_at_zero_and_writing_nothing_keeps_it_there(
    journal: SqliteJournal,
) -> None:
    assert journal.append([]) == range(1, 1)
    assert journal.last_seq() == 0
    assert journal.read(after=0) == []


def test_a_journal_opened_again_goes_on(path: Path) -> None:
    with closing(SqliteJournal(path)) as first:
        first.append([event(n=1)])
    with closing(SqliteJournal(path)) as second:
        assert second.append([event(n=2)]) == range(2, 3)
        assert bodies(second.read(after=0)) == [{"n": 1}, {"n": 2}]


def test_a_commit_is_synced_before_it_is_acknowledged(journal: SqliteJournal, path: Path) -> None:
    # No test can cut the power; this is what SQLite asks for durability in WAL mode.
    assert journal._writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("bad", [{1, 2}, object(), b"bytes", 2**64, "\ud800"])
def test_one_bad_entry_keeps_the_others_out(journal: SqliteJournal, bad: Any) -> None:
    with pytest.raises(JournalError, match="kind 'event' is not JSON"):
        journal.append([event(n=1), event(n=bad), event(n=3)])

    assert journal.last_seq() == 0
    assert journal.read(after=0) == []


def test_an_error_inside_the_transaction_undoes_all_of_it(journal: SqliteJournal) -> None:
    journal.append([event(n=1)])

    with pytest.raises(JournalError, match="CHECK constraint failed"):
        journal.append([event(n=2), Entry("rename", {})])  # type: ignore[arg-type]

    assert journal.append([event(n=3)]) == range(2, 3)
    assert bodies(journal.read(after=0)) == [{"n": 1}, {"n": 3}]


def test_moved_tells_of_every_commit_once(journal: SqliteJournal, path: Path) -> None:
    assert journal.moved()
    assert not journal.moved()

    journal.append([event(n=1)])
    assert journal.moved()
    assert not journal.moved()

    with closing(SqliteJournal(path)) as other:
        other.append([event(n=2)])
    assert journal.moved()
    assert bodies(journal.read(after=1)) == [{"n": 2}]
    assert not journal.moved()


def test_moved_tells_of_another_process(journal: SqliteJournal, path: Path) -> None:
    journal.moved()

    with get_context("spawn").Pool(1) as pool:
        pool.apply(append_threes, (path, "other", 1))

    assert journal.moved()
    assert not journal.moved()


def test_trimming_removes_entries_and_keeps_the_count(path: Path) -> None:
    with closing(SqliteJournal(path)) as journal:
        journal.append([event(n=n) for n in range(1, 6)])
        assert journal.trim(upto=3) == 3
        assert [record.seq for record in journal.read(after=0)] == [4, 5]
        assert journal.trim(upto=99) == 2
        assert journal.last_seq() == 5

    with closing(SqliteJournal(path)) as again:
        assert again.last_seq() == 5
        assert again.append([event(n=6)]) == range(6, 7)


def append_threes(path: Path, writer: str, times: int) -> list[range]:
    with closing(SqliteJournal(path)) as journal:
        return [
            journal.append([event(writer=writer, n=n, part=part) for part in range(3)])
            for n in range(times)
        ]


def test_two_processes_write_without_loss_or_mixing(path: Path) -> None:
    # The processes also race to create the file.
    with get_context("spawn").Pool(2) as pool:
        given = pool.starmap(append_threes, [(path, "a", 100), (path, "b", 100)], chunksize=1)

    with closing(SqliteJournal(path)) as journal:
        records = {record.seq: record.body for record in journal.read(after=0)}
    assert sorted(records) == list(range(1, 601))
    for writer, submissions in zip("ab", given, strict=True):
        for n, seqs in enumerate(submissions):
            assert [records[seq] for seq in seqs] == [
                {"writer": writer, "n": n, "part": part} for part in range(3)
            ]


WRITER = """
import sys
from pathlib import Path
from contract.journal import Entry, SqliteJournal

journal = SqliteJournal(Path(sys.argv[1]))
for n in range(1_000_000):
    pair = [Entry("item", {"life": int(sys.argv[2]), "n": n, "half": half}) for half in (0, 1)]
    print(journal.append(pair)[-1], flush=True)
"""


def acknowledged_until_killed(path: Path, life: int) -> list[int]:
    """The seqs that a writer acknowledged before SIGKILL, which comes at another moment each
    life.
    """
    command = [sys.executable, "-c", WRITER, str(path), str(life)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(1 + 3 * life)]
        process.kill()
        lines += process.stdout.readlines()
    return [int(line) for line in lines if line.endswith("\n")]


def test_no_kill_loses_what_was_acknowledged_or_adds_what_was_not_sent(path: Path) -> None:
    lives = [acknowledged_until_killed(path, life) for life in range(20)]

    with closing(SqliteJournal(path)) as journal:
        records = journal.read(after=0, limit=1_000_000)
    stored = {record.seq: record.body for record in records}
    assert sorted(stored) == list(range(1, len(records) + 1))
    for life, acknowledged in enumerate(lives):
        kept = [body for body in bodies(records) if body["life"] == life]
        # At most one commit may have been on disk and not yet acknowledged.
        assert len(kept) in (2 * len(acknowledged), 2 * len(acknowledged) + 2)
        assert kept == [
            {"life": life, "n": n, "half": half} for n in range(len(kept) // 2) for half in (0, 1)
        ]
        for n, seq in enumerate(acknowledged):
            assert stored[seq] == {"life": life, "n": n, "half": 1}


@pytest.mark.parametrize("prefix", ["", "sqlite://"])
def test_a_journal_opens_by_path_or_uri(path: Path, prefix: str) -> None:
    with closing(open_journal(f"{prefix}{path}")) as journal:
        journal.append([event(n=1)])

    assert path.is_file()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("redis://user:secret@host/0", "scheme 'redis' is unknown, expected a path or sqlite:///"),
        ("sqlite://", "'sqlite://' names no file"),
        ("", "'' names no file"),
    ],
)
def test_an_impossible_uri_is_refused(uri: str, message: str) -> None:
    with pytest.raises(JournalError, match=message) as caught:
        open_journal(uri)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, and dear to someone\n" * 100)

    with pytest.raises(JournalError, match=rf"{path}: damaged \(file is not a database\)"):
        SqliteJournal(path)

    assert path.read_text() == "not a database, and dear to someone\n" * 100


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("CREATE TABLE songs (title)", r"format 0 with tables \['songs'\], expected format 1"),
        ("PRAGMA user_version = 2", r"format 2 with tables \[\], expected format 1"),
    ],
)
def test_a_database_of_another_kind_is_refused_and_left_alone(
    tmp_path: Path, script: str, found: str
) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(script)
    before = path.read_bytes()

    with pytest.raises(JournalError, match=found):
        SqliteJournal(path)

    assert path.read_bytes() == before


def test_a_journal_of_a_newer_format_is_refused(journal: SqliteJournal, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")

    with pytest.raises(JournalError, match=r"format 2 with tables .*expected format 1"):
        SqliteJournal(path)


def test_a_directory_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(JournalError, match=r"file/journal\.db: .*check the path"):
        SqliteJournal(tmp_path / "file" / "journal.db")


def test_a_closed_journal_says_so(path: Path) -> None:
    journal = SqliteJournal(path)
    journal.close()

    with pytest.raises(JournalError, match="closed database"):
        journal.read(after=0)


class HeldJournal(SqliteJournal):
    """A journal whose writer waits at a gate, and that remembers the size of every commit."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gate = threading.Event()
        self.waiting = threading.Event()
        self.commits: list[int] = []

    def append_each(self, writes: Sequence[Write]) -> list[range | None]:
        self.waiting.set()
        assert self.gate.wait(timeout=60)
        self.commits.append(sum(len(write.entries) for write in writes))
        return super().append_each(writes)


@pytest.fixture
def held(path: Path) -> Iterator[HeldJournal]:
    with closing(HeldJournal(path)) as journal:
        yield journal


def hold_one(group: GroupCommit, held: HeldJournal) -> Future[int]:
    """A submission that the writer has taken and not yet committed."""
    future = group.submit([event(first=True)])
    assert held.waiting.wait(timeout=60)
    return future


def item(item_id: str, n: int) -> Entry:
    return Entry("item", {"item_id": item_id, "n": n})


def test_a_write_is_left_out_where_its_item_was_written_since(journal: SqliteJournal) -> None:
    journal.append([item("a", 1), event(item_id="b"), item("c", 3)])

    written = journal.append_each(
        [
            Write([item("a", 4)], after=1),
            Write([item("b", 5)], after=1),
            Write([item("c", 6), item("d", 6)], after=2),
            Write([Entry("delete", {"item_id": "a"})]),
            Write([item("a", 8)], after=3),
            Write([item("c", 9)], after=3),
        ]
    )

    assert written == [range(4, 5), range(5, 6), None, range(6, 7), None, range(7, 8)]
    assert [record.body["item_id"] for record in journal.read(after=3)] == ["a", "b", "a", "c"]


def test_a_conflict_fails_one_submission_and_not_its_neighbours(held: HeldJournal) -> None:
    with closing(GroupCommit(held)) as group:
        first = hold_one(group, held)
        one, late, other = (
            group.submit([item(name, n)], after=1) for n, name in enumerate(("a", "a", "b"))
        )
        held.gate.set()
        assert (first.result(timeout=60), one.result(timeout=60)) == (1, 2)
        with pytest.raises(Conflict, match=r"'a': written again after seq 1"):
            late.result(timeout=60)
        assert other.result(timeout=60) == 3

    assert len(held.read(after=0)) == 3


def test_concurrent_writers_share_commits_and_get_their_own_seqs(held: HeldJournal) -> None:
    with closing(GroupCommit(held, max_batch=150)) as group, ThreadPoolExecutor(20) as threads:
        hold_one(group, held)
        pairs = [[event(n=n, half=half) for half in (0, 1)] for n in range(200)]
        futures = list(threads.map(group.submit, pairs))
        held.gate.set()
        lasts = [future.result(timeout=60) for future in futures]

    records = {record.seq: record.body for record in held.read(after=0)}
    assert sorted(records) == list(range(1, 402))
    for n, last in enumerate(lasts):
        assert [records[last - 1], records[last]] == [{"n": n, "half": 0}, {"n": n, "half": 1}]
    assert held.commits == [1, 150, 150, 100]


def test_a_submission_is_never_split(held: HeldJournal) -> None:
    with closing(GroupCommit(held, max_batch=2)) as group:
        hold_one(group, held)
        large = group.submit([event(n=n) for n in range(5)])
        small = group.submit([event(n=5)])
        held.gate.set()
        assert (large.result(timeout=60), small.result(timeout=60)) == (6, 7)

    assert held.commits == [1, 5, 1]


def test_a_full_queue_refuses_and_then_takes_again(held: HeldJournal) -> None:
    with closing(GroupCommit(held, max_pending=2)) as group:
        hold_one(group, held)
        group.submit([event(n=1), event(n=2)])
        with pytest.raises(Overloaded, match="2 writes wait for the disk; try again later"):
            group.submit([event(n=3)])
        held.gate.set()
        held.waiting.clear()
        assert held.waiting.wait(timeout=60)
        assert group.submit([event(n=4)]).result(timeout=60) == 4


def test_a_bad_entry_is_refused_before_it_can_fail_its_neighbours(journal: SqliteJournal) -> None:
    with closing(GroupCommit(journal)) as group:
        with pytest.raises(JournalError, match="not JSON"):
            group.submit([event(n=object())])
        assert group.submit([event(n=1)]).result(timeout=60) == 1


def test_a_failed_commit_fails_its_whole_batch_and_not_the_next(held: HeldJournal) -> None:
    with closing(GroupCommit(held)) as group:
        first = hold_one(group, held)
        batch = [
            group.submit([event(n=1)]),
            group.submit([Entry("rename", {})]),  # type: ignore[arg-type]
        ]
        held.gate.set()
        assert first.result(timeout=60) == 1
        for future in batch:
            with pytest.raises(JournalError, match="CHECK constraint failed"):
                future.result(timeout=60)
        assert group.submit([event(n=2)]).result(timeout=60) == 2

    assert bodies(held.read(after=0)) == [{"first": True}, {"n": 2}]


def test_a_cancelled_submission_is_not_written(held: HeldJournal) -> None:
    with closing(GroupCommit(held)) as group:
        hold_one(group, held)
        cancelled, kept = group.submit([event(n=1)]), group.submit([event(n=2)])
        assert cancelled.cancel()
        held.gate.set()
        assert kept.result(timeout=60) == 2

    assert bodies(held.read(after=0)) == [{"first": True}, {"n": 2}]


def test_closing_commits_what_waits_and_refuses_the_rest(held: HeldJournal) -> None:
    group = GroupCommit(held, max_batch=1)
    hold_one(group, held)
    futures = [group.submit([event(n=n)]) for n in range(5)]
    held.gate.set()

    group.close()

    assert [future.result(timeout=0) for future in futures] == [2, 3, 4, 5, 6]
    with pytest.raises(JournalError, match="closed; nothing was written"):
        group.submit([event(n=5)])


def set_second(path: Path, column: str, value: str) -> None:
    """Write past the journal into its second entry, as a damaged disk would."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(f"UPDATE entries SET {column} = {value} WHERE seq = 2")


DAMAGED_BODIES = {
    "no UTF-8": """CAST(x'7b226974656d5f6964223a22ff227d' AS TEXT)""",
    "cut": """'{"item_id":"b'""",
    "no object": "'[]'",
}


@pytest.mark.parametrize("body", DAMAGED_BODIES)
def test_a_damaged_body_is_found_at_once_and_named(
    journal: SqliteJournal, path: Path, body: str
) -> None:
    journal.append([item("a", 1), item("b", 2), item("c", 3)])
    journal.require_readable()
    set_second(path, "body", DAMAGED_BODIES[body])

    for touch in (
        journal.require_readable,
        lambda: journal.read(after=0),
        lambda: journal.append_each([Write([item("c", 4)], after=1)]),
    ):
        with pytest.raises(JournalDamaged, match=r"damaged \(entry 2: .*'tandem doctor --store"):
            touch()
    assert bodies(journal.read(after=2)) == [{"item_id": "c", "n": 3}]


def test_a_damaged_kind_is_damage(journal: SqliteJournal, path: Path) -> None:
    journal.append([item("a", 1), item("b", 2)])
    set_second(path, "kind", "CAST(x'69ff' AS TEXT)")

    with pytest.raises(JournalDamaged, match=r"damaged \(Could not decode to UTF-8 column 'kind'"):
        journal.read(after=0)


def test_the_sqlite_journal_is_a_journal(journal: SqliteJournal) -> None:
    seam: Journal = journal

    assert seam.last_seq() == 0


def test_a_journal_has_an_identity_for_good_and_no_other_has_it(tmp_path: Path) -> None:
    one, other = SqliteJournal(tmp_path / "one.db"), SqliteJournal(tmp_path / "other.db")
    identity = one.identity()
    one.append([Entry("delete", {"item_id": "a"})])
    one.close()
    again = SqliteJournal(tmp_path / "one.db")

    assert 0 < identity < 2**31
    assert again.identity() == identity != other.identity()
    again.close()
    other.close()


def test_a_journal_of_before_there_were_identities_gets_one(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    SqliteJournal(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA application_id = 0")
    connection.close()

    journal = SqliteJournal(path)

    assert journal.identity() > 0
    journal.close()
