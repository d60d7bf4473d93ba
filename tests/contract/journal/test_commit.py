import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from contract.errors import Conflict, JournalError, Overloaded
from contract.journal import Entry, GroupCommit, Write
from contract.journal.sqlite import SqliteJournal
from tests.contract.journal.entries import bodies, event, item


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
