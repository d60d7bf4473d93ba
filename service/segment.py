"""The slots of an overlay as something to search: scanned while they are few, then through an
inverted file that takes new ones in as they come.
"""

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from contract.arrays import F32, I64, Bool
from contract.index.base import Answer

if TYPE_CHECKING:
    from contract.index.growing import Growing

SCANNED = 4096
"""So many slots are scanned about as fast as lists are searched."""
TAIL = 1024
"""So many written slots may wait for the inverted file; they are scanned."""
SEALING_NICENESS = 10


class Segment:
    """Slots are rows of `vectors` (S, D), which the overlay owns and passes to every call.

    The first slots are *sealed* in an inverted file. The *tail*, what was written since, is scanned
    and put into the file when it is long. Each time that as many slots were put as the lists
    were made for, these are made anew, in a thread of low priority. To be used by one thread.
    """

    def __init__(self, scanned: int = SCANNED, tail: int = TAIL) -> None:
        self._scanned, self._longest_tail = scanned, tail
        self._sealed: Growing | None = None
        self._tail = np.empty(0, np.int64)
        """Ascending; sealed slots may be among them."""
        self._sealing: Future[Growing] | None = None
        self._since = np.empty(0, np.int64)
        """Slots written since the sealing began, ascending."""
        self._thread = ThreadPoolExecutor(1, "overlay-sealing", _step_back)

    def update(self, slots: I64, vectors: F32) -> None:
        """`slots` were written; every new slot once."""
        self._tail = np.union1d(self._tail, slots)
        if self._sealing:
            self._since = np.union1d(self._since, slots)
        self._take_over(vectors)
        self._fold(vectors)
        if not self._sealing and self._outgrown():
            # No copy is taken: what is written while the thread reads is put once more afterwards,
            # and until then it is scanned.
            self._since = np.empty(0, np.int64)
            self._sealing = self._thread.submit(_seal, vectors)

    def search(self, queries: F32, k: int, allowed: Bool | None, vectors: F32) -> Answer:
        """As `Index.search`, but a query's slots may be more than k or fewer than that, without
        padding, are in no order, and a slot may be there twice."""
        self._take_over(vectors)
        tail = _scan(vectors, queries, k, self._tail, allowed)
        if self._sealed is None:
            return tail
        count = len(self._sealed)
        among = None if allowed is None else allowed[:count]
        rows, scores = self._sealed.search(queries, k, among, vectors[:count])
        return np.concatenate([rows, tail[0]], axis=1), np.concatenate([scores, tail[1]], axis=1)

    def settle(self, vectors: F32) -> None:
        """Wait until lists that are being made are in use."""
        while self._sealing:
            self._sealing.result()
            self.update(np.empty(0, np.int64), vectors)

    def _outgrown(self) -> bool:
        if self._sealed is None:
            return len(self._tail) > self._scanned
        return self._sealed.outgrown

    def _take_over(self, vectors: F32) -> None:
        if self._sealing and self._sealing.done():
            made, self._sealing = self._sealing, None
            self._sealed, self._tail = made.result(), self._since
            self._fold(vectors)

    def _fold(self, vectors: F32) -> None:
        if self._sealed and len(self._tail) > self._longest_tail:
            self._sealed.put(self._tail, vectors[self._tail])
            self._tail = np.empty(0, np.int64)


def _seal(vectors: F32) -> "Growing":
    # FAISS is loaded when it is first needed: the bundle's own backend may do without.
    from contract.index.growing import Growing

    return Growing(vectors)


def _scan(vectors: F32, queries: F32, k: int, slots: I64, allowed: Bool | None) -> Answer:
    """The best k of the allowed ones among these slots, in no order; fewer if they are fewer."""
    if allowed is not None:
        slots = slots[allowed[slots]]
    count = len(slots)
    if count and slots[-1] - slots[0] + 1 == count:
        # Neighbours in memory, as appended slots are, need not be gathered.
        scores = queries @ vectors[slots[0] : slots[0] + count].T
    else:
        scores = queries @ vectors[slots].T
    if count <= k:
        return np.broadcast_to(slots, scores.shape), scores
    columns = scores.argpartition(count - k, axis=1)[:, count - k :]
    return slots[columns], np.take_along_axis(scores, columns, axis=1)


def _step_back() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), SEALING_NICENESS)
