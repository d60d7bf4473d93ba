"""Keeping up with the journal, also where reading it fails in between."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from contract.errors import JournalError
from contract.journal import Entry, GroupCommit, Record
from contract.journal.sqlite import SqliteJournal
from contract.store import LocalStore
from service import live
from service.live import Live, load
from service.metrics import Metrics
from service.settings import Settings
from service.snapshot import Snapshot
from service.state import State
from service.swap import Swapper


class Interrupted(SqliteJournal):
    """A journal that fails one read, when told."""

    fail_at: int | None = None
    failure: Exception = JournalError("the disk is gone for a moment")

    def read(self, after: int, limit: int = 10_000) -> list[Record]:
        if self.fail_at is not None and after >= self.fail_at:
            self.fail_at = None
            raise self.failure
        return super().read(after, limit)


def viewed(items: Sequence[str]) -> list[Entry]:
    return [Entry("event", {"user_id": "ann", "item_id": item}) for item in items]


def test_a_read_that_failed_is_taken_up_where_it_ended(
    snapshot: Snapshot, metrics: Metrics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "CHUNK", 2)
    journal = Interrupted(tmp_path / "journal.db")
    commits = GroupCommit(journal)
    followed = Live("live", journal, commits, metrics)
    followed.replace(load(State.of(snapshot, 100, 1), journal))
    journal.append(viewed(["i1", "i2", "i3", "i4", "i5"]))
    journal.fail_at = 2

    with pytest.raises(JournalError):
        followed.state()
    state = followed.state()

    assert [i for i, _ in state.users.events("ann")] == ["i1", "i2", "i3", "i4", "i5"]
    assert followed.seq == 5
    commits.close()
    journal.close()


def test_what_nobody_foresaw_does_not_end_the_watch(
    shelf: LocalStore, metrics: Metrics, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Interrupted(tmp_path / "journal.db")
    commits = GroupCommit(journal)
    followed = Live("live", journal, commits, metrics)
    settings = Settings(store=str(shelf.root), state=str(tmp_path / "state"))
    settings.runtime_directory().mkdir(parents=True)
    swapper = Swapper(shelf, settings, followed, str(tmp_path / "journal.db"), metrics)
    told = []

    async def watched() -> bool:
        await swapper.follow()
        journal.append(viewed(["i1", "i2"]))
        journal.fail_at, journal.failure = 0, MemoryError("no room")
        watch = asyncio.create_task(swapper.watch(0.01))
        while followed.seq < 2 and not watch.done():
            told.append(followed.trouble)
            await asyncio.sleep(0.001)
        return watch.cancel()

    assert asyncio.run(asyncio.wait_for(watched(), 10))

    assert "following failed, MemoryError: no room" in told
    assert "following channel 'live'" in caplog.messages
    assert (followed.seq, followed.trouble) == (2, None)
    commits.close()
    journal.close()


@pytest.mark.parametrize("trimmed", [3, 5])
def test_a_worker_that_is_behind_what_was_trimmed_says_so(
    snapshot: Snapshot, tmp_path: Path, trimmed: int
) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    journal.append(viewed(["i1"]))
    behind = load(State.of(snapshot, 100, 1), journal)
    journal.append(viewed(["i2", "i3", "i4", "i5"]))
    journal.trim(trimmed)

    with pytest.raises(JournalError, match=f"trimmed behind seq 1, which .* {snapshot.version}"):
        list(live.catch_up(behind, journal))

    assert [item_id for item_id, _ in behind.state.users.events("ann")] == ["i1"]
    journal.close()
