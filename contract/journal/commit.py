"""One writer for many callers: what they submit while a commit is under way shares the next one."""

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from contract.errors import Conflict, JournalError, Overloaded
from contract.journal.base import Entry, Journal, Write, encode


@dataclass(frozen=True)
class _Submission:
    write: Write
    future: Future[int]


class GroupCommit:
    """One writer thread that commits what many callers submit, so that they share one fsync.

    The journal stays open, and the caller's, after `close`.
    """

    def __init__(self, journal: Journal, max_pending: int = 10_000, max_batch: int = 1_000) -> None:
        """`max_pending` entries may wait, and a batch ends with the submission that reaches
        `max_batch` entries: a submission is never split.
        """
        self._journal = journal
        self._max_pending = max_pending
        self._max_batch = max_batch
        self._queue: deque[_Submission] = deque()
        self._pending = 0
        self._closed = False
        self.committed = 0
        """The seq that it has written last."""
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)
        self._thread.start()

    def submit(self, entries: Sequence[Entry], after: int | None = None) -> Future[int]:
        """The last seq of these entries, once they are durable; their seqs are consecutive. An
        error of the commit goes to every submission of its batch. `after` as in `Write`: the future
        raises Conflict where it kept them out.

        Raises JournalError for an entry that is not JSON, and after `close`; Overloaded when as
        many entries wait as may.
        """
        # Refused here, because in the batch one bad entry would fail its neighbours.
        for entry in entries:
            encode(entry)
        submission = _Submission(Write(tuple(entries), after), Future())
        with self._changed:
            if self._closed:
                raise JournalError("the journal's writer is closed; nothing was written")
            if self._pending >= self._max_pending:
                raise Overloaded(f"{self._pending} writes wait for the disk; try again later")
            self._queue.append(submission)
            self._pending += len(entries)
            self._changed.notify()
        return submission.future

    def last_seq(self) -> int:
        """Of the journal."""
        return self._journal.last_seq()

    def close(self) -> None:
        """Commits what was submitted, then ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._take():
            self._commit([one for one in batch if one.future.set_running_or_notify_cancel()])

    def _take(self) -> list[_Submission]:
        """The next batch; empty when closed and drained."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            batch, size = list[_Submission](), 0
            while self._queue and size < self._max_batch:
                batch.append(self._queue.popleft())
                size += len(batch[-1].write.entries)
            self._pending -= size
            return batch

    def _commit(self, batch: list[_Submission]) -> None:
        try:
            written = self._journal.append_each([one.write for one in batch])
        except Exception as exc:
            for one in batch:
                one.future.set_exception(exc)
            return
        self.committed = max([self.committed, *(seqs.stop - 1 for seqs in written if seqs)])
        for one, seqs in zip(batch, written, strict=True):
            if seqs is None:
                one.future.set_exception(_conflict(one.write))
            else:
                one.future.set_result(seqs.stop - 1)


def _conflict(write: Write) -> Conflict:
    names = ", ".join(f"'{entry.body['item_id']}'" for entry in write.entries)
    return Conflict(
        f"item {names}: written again after seq {write.after}; get it again, and try again"
    )
