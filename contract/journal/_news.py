"""What others write to a journal on a Redis server, fetched as it comes."""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from itertools import islice

from contract.errors import JournalError
from contract.journal._redis import SECONDS, Address, explained, other, record
from contract.journal.base import Record

log = logging.getLogger("tandem.journal")

WAIT_SECONDS = 1.0
"""For news, before the server is asked again; and for a server that is away."""
LEAST_SECONDS = 0.05
"""Between two looks for a server that is away."""
MOMENT = 0.005
"""Seconds that a request waits for news that are known to be on their way."""
CHUNK = 1000
AHEAD = 20_000
"""Records that are fetched and not yet read, at most."""


class News:
    """What was written, fetched as it comes by a thread of its own."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._thread = threading.Thread(target=self._run, name="journal-news", daemon=True)
        self._changed = threading.Condition()
        self._records = deque[Record]()
        """Consecutive, up to the last that was fetched."""
        self._id = self._fetched = self._told = self._wanted = 0
        self._closed = self._is_other = self.begun = self.away = False

    def begin(self, identity: int, after: int) -> None:
        self._id, self.begun = identity, True
        self._fetched = self._told = after
        self._thread.start()

    def moved(self, upto: int) -> bool:
        """Once for all that came since the last call."""
        if self._fetched < upto:
            with self._changed:
                self._wanted = upto
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._fetched >= upto or self.away, MOMENT)
        fetched = self._fetched  # once: the thread goes on meanwhile
        moved = fetched > self._told
        self._told = max(self._told, fetched)
        return moved

    def following(self, after: int, limit: int) -> list[Record]:
        """Empty where what follows is not here. Forgets what does not."""
        with self._changed:
            while self._records and self._records[0].seq <= after:
                self._records.popleft()
            self._changed.notify()
            found = list(islice(self._records, limit))
            if found and found[0].seq != after + 1:
                return []
            # What is read is no news, nor is what the reader has from elsewhere.
            self._told = max(self._told, found[-1].seq if found else after)
            return found

    def close(self) -> None:
        """The thread ends within a moment: it waits for the server."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        with closing(self._address.connect(WAIT_SECONDS + SECONDS)) as self._client:
            self._follow()

    def _follow(self) -> None:
        while self._has_room():
            try:
                records = self._fetch()
            except JournalError as error:
                self._lost(error)
                continue
            if self.away:
                log.warning("journal %s: can be followed again", self._address.shown)
            self._take(records)

    def _lost(self, error: JournalError) -> None:
        if not self.away and not self._closed:
            log.error("%s; answers go on without what others write meanwhile", error)
        with self._changed:
            self.away = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed, LEAST_SECONDS)
            # Whoever knows of more has heard it from the server, or was told.
            self._changed.wait_for(
                lambda: self._closed or self._fetched < self._wanted, WAIT_SECONDS
            )

    def _has_room(self) -> bool:
        """Waits for it; False when there is no more to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._records) < AHEAD)
            return not self._closed

    def _fetch(self) -> list[Record]:
        """What follows, when there is some; none after a while."""
        stream, where = self._address.keys.stream, self._address.shown
        with explained(where):
            if self.away:
                self._require_same()
            found = self._client.xread(
                {stream: f"{self._fetched}-0"}, count=CHUNK, block=round(WAIT_SECONDS * 1000)
            )
            if not found:
                self._require_same()
        return [record(where, *one) for _, entries in found for one in entries]

    def _require_same(self) -> None:
        """Raises JournalError for good where the server has lost what was fetched: what it gives
        under later seqs does not follow."""
        keys = self._address.keys
        identity, last = (int(value or 0) for value in self._client.mget(keys.identity, keys.last))
        self._is_other = self._is_other or identity != self._id or last < self._fetched
        if self._is_other:
            raise other(self._address.shown, last)

    def _take(self, records: Sequence[Record]) -> None:
        with self._changed:
            self.away = False
            if not records:
                return
            if records[0].seq != self._fetched + 1:
                # Trimmed meanwhile: who reads on finds at the server that it came too late.
                self._records.clear()
            self._records.extend(records)
            self._fetched = records[-1].seq
            self._changed.notify_all()
