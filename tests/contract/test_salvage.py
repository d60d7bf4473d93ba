"""A journal of which a page is damaged: everything else of it comes back."""

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from contract.errors import JournalDamaged, JournalError
from contract.journal import Entry, open_journal
from contract.salvage import Salvage, problems, repair, salvage

PAGE, FRAME, LOG_HEADER = 4096, 4096 + 24, 32
TRIMMED, LAST = 100, 400


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal of some 50 pages, a part of it trimmed, with its log still to be taken in."""
    path = tmp_path_factory.mktemp("original") / "journal.db"
    with closing(open_journal(str(path))) as journal:
        for n in range(LAST // 20):
            journal.append([entry(n * 20 + m) for m in range(20)])
        journal.trim(TRIMMED)
        for name in ("journal.db", "journal.db-wal"):
            shutil.copy(path.with_name(name), path.with_name(f"copy-{name}"))
    for name in ("journal.db", "journal.db-wal"):
        path.with_name(f"copy-{name}").rename(path.with_name(name))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def entry(n: int) -> Entry:
    """Some of them do not fit into a page."""
    length = 9000 if n % 50 == 7 else n % 600
    return Entry("item", {"item_id": f"x{n}", "features": {"title": "ä" * length}})


def taken_in(original: Path, path: Path) -> bytes:
    """All of the journal in its one file."""
    for name in ("journal.db", "journal.db-wal"):
        shutil.copy(original.with_name(name), path.with_name(name))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.read_bytes()


def missing(found: Salvage) -> list[int]:
    return [seq for span in found.lost for seq in span]


def spoil(content: bytes, at: int, size: int) -> bytes:
    return content[:at] + b"\xa5" * size + content[at + size :]


def test_a_damaged_page_costs_the_entries_on_it_alone(original: Path, path: Path) -> None:
    content = taken_in(original, path)
    lost = []
    for at in range(0, len(content), PAGE):
        path.write_bytes(spoil(content, at, PAGE))

        found = salvage(path, after=TRIMMED)

        lost += missing(found)
        seqs = [seq for seq, *_ in found.lines]
        assert sorted([*seqs, *missing(found)]) == list(range(TRIMMED + 1, LAST + 1))
        assert found.last == LAST
        assert [body for *_, body in found.lines if '"x299"' in body] or 300 in missing(found)
    # Each entry was on one page, but for those too large for one.
    large = [n + 1 for n in range(TRIMMED, LAST) if n % 50 == 7]
    assert sorted(set(lost)) == list(range(TRIMMED + 1, LAST + 1))
    assert {seq for seq in lost if lost.count(seq) > 1} == set(large)


def test_what_comes_back_is_what_was_written(original: Path, path: Path) -> None:
    before = contents(original, path)
    file = path.read_bytes()
    path.write_bytes(spoil(file, 0, PAGE))
    assert problems(path) == ["file is not a database"]

    found, aside = repair(path, after=TRIMMED)

    assert found.lost == []
    assert problems(path) == []
    assert (aside / "journal.db").read_bytes()[PAGE:] == file[PAGE:]
    with closing(open_journal(str(path))) as journal:
        assert [(r.seq, r.at, r.body) for r in journal.read(0)] == before
        assert journal.append([entry(0)]) == range(LAST + 1, LAST + 2)


def contents(original: Path, path: Path) -> list[tuple[int, float, object]]:
    taken_in(original, path)
    with closing(open_journal(str(path))) as journal:
        return [(r.seq, r.at, r.body) for r in journal.read(0)]


def test_a_damaged_frame_of_the_log_costs_what_it_brought_alone(original: Path, path: Path) -> None:
    log = original.with_name("journal.db-wal").read_bytes()
    frames = range(LOG_HEADER, len(log), FRAME)
    numbers = [int.from_bytes(log[at : at + 4]) for at in frames]
    lost = list[int]()
    for n, at in list(enumerate(frames))[:: len(frames) // 20]:
        path.write_bytes(original.read_bytes())
        path.with_name("journal.db-wal").write_bytes(spoil(log, at + 100, 50))

        found = salvage(path, after=TRIMMED)

        gone = [seq for seq in missing(found) if seq > TRIMMED]
        seqs = [seq for seq, *_ in found.lines if seq > TRIMMED]
        assert sorted([*seqs, *gone]) == list(range(TRIMMED + 1, LAST + 1))
        # SQLite reads no further than this frame. Of most pages there is a newer one.
        if numbers[n] in numbers[n + 1 :]:
            assert gone == []
        lost += gone
    assert len(lost) < LAST - TRIMMED


def test_entries_that_were_trimmed_do_not_come_back(original: Path, path: Path) -> None:
    content = taken_in(original, path)
    path.write_bytes(spoil(content, len(content) - PAGE, PAGE))

    for after in (0, TRIMMED, LAST):
        assert min(seq for seq, *_ in salvage(path, after).lines) == TRIMMED + 1


def test_a_lost_entry_is_marked_and_the_seqs_go_on(original: Path, path: Path) -> None:
    content = taken_in(original, path)
    before = salvage(path, TRIMMED)
    at = content.rindex(b'"x250"') // PAGE * PAGE
    path.write_bytes(spoil(content, at, PAGE))

    found, _ = repair(path, after=TRIMMED)

    assert 251 in missing(found)
    with closing(open_journal(str(path))) as journal:
        records = journal.read(0)
        assert journal.identity() == found.identity == before.identity
    assert [r.seq for r in records] == list(range(TRIMMED + 1, LAST + 1))
    assert [r.seq for r in records if r.kind == "lost"] == missing(found)
    assert all(r.body == {} for r in records if r.kind == "lost")
    assert [r.at for r in records] == sorted(r.at for r in records)


@pytest.mark.parametrize("seed", range(12))
def test_any_bytes_anywhere_are_read_past(original: Path, path: Path, seed: int) -> None:
    chance = random.Random(seed)
    content = bytearray(taken_in(original, path))
    for _ in range(chance.choice([1, 5, 50])):
        at, size = chance.randrange(len(content) - 8), chance.choice([1, 8])
        content[at : at + size] = chance.randbytes(size)
    path.write_bytes(bytes(content[: chance.choice([len(content), len(content) // 2])]))

    found, _ = repair(path, after=TRIMMED)

    with closing(open_journal(str(path))) as journal:
        records = journal.read(0, limit=10**6)
    seqs = [r.seq for r in records]
    assert seqs == list(range(seqs[0], found.last + 1))
    assert len([r for r in records if r.kind != "lost"]) == len(found.lines)
    assert found.last <= LAST + len(content) // 16


def test_a_journal_in_use_is_not_repaired(path: Path) -> None:
    with closing(open_journal(str(path))) as journal:
        journal.append([entry(1)])

        with pytest.raises(JournalError, match=r"journal\.db: in use; stop the service"):
            repair(path, after=0)

        assert journal.append([entry(2)]) == range(2, 3)
    assert sorted(p.name for p in path.parent.iterdir()) == ["journal.db"]


def test_a_repair_that_is_not_finished_keeps_everyone_out(original: Path, path: Path) -> None:
    taken_in(original, path)
    (path.parent / ".repair").mkdir()

    with pytest.raises(JournalDamaged, match="its repair was begun and is not finished"):
        open_journal(str(path))
    assert problems(path) == ["its repair was begun and is not finished"]

    found, _ = repair(path, after=TRIMMED)
    assert found.lost == []
    assert problems(path) == []


def unsequenced(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM sqlite_sequence")


def gone(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM entries WHERE seq = 200")


def listed(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE entries SET body = '[]' WHERE seq = 300")


def cut(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE entries SET body = '{\"item_id\":' WHERE seq = 300")


def latin(connection: sqlite3.Connection) -> None:
    body = "CAST(x'7b226974656d5f6964223a22ff227d' AS TEXT)"
    connection.execute(f"UPDATE entries SET body = {body} WHERE seq = 300")


def newer(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA user_version = 9")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (unsequenced, "entry 400 lies behind seq 0, which is the last one given"),
        (gone, "no entry 200, after it comes 201"),
        (listed, "entry 300 is not a JSON object"),
        (cut, "entry 300 is not a JSON object"),
        (latin, "entry 300 is not a JSON object"),
        (newer, "format 9, this release reads format 1"),
    ],
)
def test_what_sqlite_finds_sound_and_is_no_journal_is_named(
    original: Path, path: Path, damage: Callable[[sqlite3.Connection], None], problem: str
) -> None:
    taken_in(original, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        damage(connection)

    assert problems(path) == [problem]


def test_a_body_that_is_no_utf_8_costs_its_entry_alone(original: Path, path: Path) -> None:
    taken_in(original, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        latin(connection)

    found, _ = repair(path, after=TRIMMED)

    assert missing(found) == [300]
    with closing(open_journal(str(path))) as journal:
        journal.require_readable()
        assert [r.seq for r in journal.read(0) if r.kind == "lost"] == [300]
