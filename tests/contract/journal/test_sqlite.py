import sqlite3
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

import pytest

from contract.errors import JournalDamaged, JournalError
from contract.journal import Entry, Write, open_journal
from contract.journal.sqlite import SqliteJournal
from tests.contract.journal.entries import bodies, event, item
from tests.contract.journal.test_contract import append_threes


def test_a_commit_is_synced_before_it_is_acknowledged(journal: SqliteJournal, path: Path) -> None:
    # No test can cut the power; this is what SQLite asks for durability in WAL mode.
    assert journal._writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_an_error_inside_the_transaction_undoes_all_of_it(journal: SqliteJournal) -> None:
    journal.append([event(n=1)])

    with pytest.raises(JournalError, match="CHECK constraint failed"):
        journal.append([event(n=2), Entry("rename", {})])  # type: ignore[arg-type]

    assert journal.append([event(n=3)]) == range(2, 3)
    assert bodies(journal.read(after=0)) == [{"n": 1}, {"n": 3}]


def test_moved_tells_at_once(journal: SqliteJournal, path: Path) -> None:
    journal.moved()

    with closing(SqliteJournal(path)) as other:
        other.append([event(n=1)])
        assert journal.moved()
        assert not journal.moved()
        other.append([event(n=2)])
        assert journal.moved()
    journal.append([event(n=3)])
    assert journal.moved()
    with get_context("spawn").Pool(1) as pool:
        pool.apply(append_threes, (str(path), "other", 1))
    assert journal.moved()
    assert not journal.moved()


@pytest.mark.parametrize("prefix", ["", "sqlite://"])
def test_a_journal_opens_by_path_or_uri(path: Path, prefix: str) -> None:
    with closing(open_journal(f"{prefix}{path}")) as journal:
        journal.append([event(n=1)])

    assert path.is_file()


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


def test_a_journal_of_before_there_were_identities_gets_one(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    SqliteJournal(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA application_id = 0")
    connection.close()

    journal = SqliteJournal(path)

    assert journal.identity() > 0
    journal.close()
