"""What every journal promises, of every kind."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from contract.errors import JournalError
from contract.journal import Entry, Journal, Write, open_journal, opened_journal
from tests.contract.journal.entries import bodies, event, item
from tests.places import ROOT
from tests.redis import RedisServer
from tests.service.server import wait_until

NEWS = "the news to come here"


@pytest.fixture(params=["sqlite", "redis"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "state" / "journal.db")
    server: RedisServer = request.getfixturevalue("server")
    return server.uri(tmp_path.name)


@pytest.fixture
def journal(uri: str) -> Iterator[Journal]:
    with closing(open_journal(uri)) as journal:
        yield journal


def test_entries_come_back_in_order_and_whole(journal: Journal) -> None:
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


def test_a_reader_goes_on_where_it_stopped(journal: Journal) -> None:
    journal.append([event(n=n) for n in range(10)])

    assert [record.seq for record in journal.read(after=3, limit=4)] == [4, 5, 6, 7]
    assert [record.seq for record in journal.read(after=7)] == [8, 9, 10]
    assert journal.read(after=10) == []


def test_an_empty_journal_is_at_zero_and_writing_nothing_keeps_it_there(
    journal: Journal,
) -> None:
    assert journal.append([]) == range(1, 1)
    assert journal.last_seq() == 0
    assert journal.read(after=0) == []


def test_a_journal_opened_again_goes_on(uri: str) -> None:
    with closing(open_journal(uri)) as first:
        first.append([event(n=1)])
    with closing(open_journal(uri)) as second:
        assert second.append([event(n=2)]) == range(2, 3)
        assert bodies(second.read(after=0)) == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("bad", [{1, 2}, object(), b"bytes", 2**64, "\ud800"])
def test_one_bad_entry_keeps_the_others_out(journal: Journal, bad: Any) -> None:
    with pytest.raises(JournalError, match="kind 'event' is not JSON"):
        journal.append([event(n=1), event(n=bad), event(n=3)])

    assert journal.last_seq() == 0
    assert journal.read(after=0) == []


def test_moved_tells_of_every_commit_once(journal: Journal, uri: str) -> None:
    assert journal.moved()
    assert not journal.moved()

    journal.append([event(n=1)])
    wait_until(journal.moved, NEWS)
    assert not journal.moved()

    with closing(open_journal(uri)) as other:
        other.append([event(n=2)])
    wait_until(journal.moved, NEWS)
    assert bodies(journal.read(after=1)) == [{"n": 2}]
    assert not journal.moved()


def test_moved_tells_of_another_process(journal: Journal, uri: str) -> None:
    journal.moved()

    with get_context("spawn").Pool(1) as pool:
        pool.apply(append_threes, (uri, "other", 1))

    wait_until(journal.moved, NEWS)
    assert not journal.moved()


def test_trimming_removes_entries_and_keeps_the_count(uri: str) -> None:
    with closing(open_journal(uri)) as journal:
        journal.append([event(n=n) for n in range(1, 6)])
        assert journal.trim(upto=3) == 3
        assert [record.seq for record in journal.read(after=0)] == [4, 5]
        assert journal.trim(upto=99) == 2
        assert journal.last_seq() == 5

    with closing(open_journal(uri)) as again:
        assert again.last_seq() == 5
        assert again.append([event(n=6)]) == range(6, 7)


def append_threes(uri: str, writer: str, times: int) -> list[range]:
    with closing(open_journal(uri)) as journal:
        return [
            journal.append([event(writer=writer, n=n, part=part) for part in range(3)])
            for n in range(times)
        ]


def test_two_processes_write_without_loss_or_mixing(uri: str) -> None:
    # The processes also race to create the file.
    with get_context("spawn").Pool(2) as pool:
        given = pool.starmap(append_threes, [(uri, "a", 100), (uri, "b", 100)], chunksize=1)

    with closing(open_journal(uri)) as journal:
        records = {record.seq: record.body for record in journal.read(after=0)}
    assert sorted(records) == list(range(1, 601))
    for writer, submissions in zip("ab", given, strict=True):
        for n, seqs in enumerate(submissions):
            assert [records[seq] for seq in seqs] == [
                {"writer": writer, "n": n, "part": part} for part in range(3)
            ]


WRITER = """
import sys
from contract.journal import Entry, open_journal

journal = open_journal(sys.argv[1])
for n in range(1_000_000):
    body = {"item_id": "a", "life": int(sys.argv[2]), "n": n}
    print(journal.append([Entry("item", body | {"half": half}) for half in (0, 1)])[-1], flush=True)
"""


def acknowledged_until_killed(uri: str, life: int) -> list[int]:
    """The seqs that a writer acknowledged before SIGKILL, which comes at another moment each
    life.
    """
    command = [sys.executable, "-c", WRITER, uri, str(life)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(1 + 3 * life)]
        process.kill()
        lines += process.stdout.readlines()
    return [int(line) for line in lines if line.endswith("\n")]


def test_no_kill_loses_what_was_acknowledged_or_adds_what_was_not_sent(uri: str) -> None:
    lives = [acknowledged_until_killed(uri, life) for life in range(20)]

    with closing(open_journal(uri)) as journal:
        records = journal.read(after=0, limit=1_000_000)
    stored = {record.seq: record.body for record in records}
    assert sorted(stored) == list(range(1, len(records) + 1))
    for life, acknowledged in enumerate(lives):
        kept = [body for body in bodies(records) if body["life"] == life]
        # At most one commit may have been on disk and not yet acknowledged.
        assert len(kept) in (2 * len(acknowledged), 2 * len(acknowledged) + 2)
        assert kept == [
            {"item_id": "a", "life": life, "n": n, "half": half}
            for n in range(len(kept) // 2)
            for half in (0, 1)
        ]
        for n, seq in enumerate(acknowledged):
            assert stored[seq] == {"item_id": "a", "life": life, "n": n, "half": 1}


def test_a_write_is_left_out_where_its_item_was_written_since(journal: Journal) -> None:
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


def test_a_journal_has_an_identity_for_good_and_no_other_has_it(uri: str) -> None:
    with closing(open_journal(uri)) as one, closing(open_journal(f"{uri}-other")) as other:
        identity = one.identity()
        one.append([Entry("delete", {"item_id": "a"})])
        assert 0 < identity < 2**31
        assert identity != other.identity()

    with closing(open_journal(uri)) as again:
        assert again.identity() == identity


def test_a_journal_that_has_to_be_there_is_not_made(uri: str) -> None:
    for _ in range(2):
        with (
            pytest.raises(JournalError, match="there is none; give journal"),
            opened_journal(uri),
        ):
            pass

    open_journal(uri).close()

    with opened_journal(uri) as journal:
        assert journal.last_seq() == 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("mysql://user:secret@host/0", r"scheme 'mysql' is unknown, expected a path, sqlite:///"),
        ("sqlite://", "'sqlite://' names no file"),
        ("", "'' names no file"),
        ("redis://user:secret@127.0.0.1:1/0", r"redis://127.0.0.1:1/0: .*refused.*see that the"),
        ("redis://user:secret@host:99999/0", "not a URI; percent-encode"),
        ("redis://user:secret@host/0?db=1", "'db' in its query, expected name=NAME"),
        ("redis://user:secret@host/0?durable=no", "'durable' in its query"),
    ],
)
def test_an_impossible_uri_is_refused(bad: str, message: str) -> None:
    with pytest.raises(JournalError, match=message) as caught:
        open_journal(bad)
    assert "secret" not in str(caught.value)
