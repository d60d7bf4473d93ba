"""Live recall: a share of the recalls is answered once more, exactly, beside the requests.

The event loop says what was asked and who may be answered with what, as for any recall; a thread
scores every item, block by block, with rests between them: it and the event loop may share a core.
One recall at a time, and then a rest of many times as long: however large the catalogue, it takes
no more than a small share of a core. The thread has the priority of all others: one that is not let
run while it holds the interpreter's lock would hold up the event loop.
"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from random import random
from time import perf_counter, sleep, thread_time
from typing import NamedTuple

import numpy as np

from contract.arrays import F32, I64, Bool
from contract.index.base import Matrix
from contract.index.exact import Stacked, scan
from contract.kinds import history_of
from contract.merge import merge
from service.answer import Answer
from service.asker import identify
from service.drift import Drift
from service.filters import Filter, filter_of
from service.metrics import Metrics
from service.request import Recall
from service.state import State

DUTY = 0.005
"""The thread takes at most this share of a core."""
RESTS = 9
"""Between two blocks it rests so many times as long as one took. A million items in one go took
half of a core for 50 ms: beside a load of 70 % the p99 was 14 to 20 ms; with rests it is 5 to 8."""
FEW_OTHERS = 10_000
"""Of so many items that are not eligible the scores are thrown away: of a million vectors, all are
scored in 26 ms as they lie, and in 136 ms where some are left out."""
CLOSE = 1e-5
"""Scores nearer to each other, relatively, are equal: which of two such items is among the first k
is chance."""


class Question(NamedTuple):
    """What the thread needs, none of which the event loop changes but for rows of the overlay."""

    state: State
    filter_: Filter
    slots: Bool
    """Which slots of the overlay were eligible (S,)."""
    posted: F32
    """The vectors of these slots (S, D)."""
    vectors: F32
    k: int
    rows: I64
    """What the answer had."""


class Found(NamedTuple):
    wanted: int
    """Items of the exact answer."""
    found: int
    """As many of them, or as good ones, were in the answer that was given."""
    seconds: float
    """Of processor time that it took."""


class Recheck:
    """Of one worker. Used by its event loop alone."""

    def __init__(self, share: float, metrics: Metrics) -> None:
        """`share` of the recalls, from 0 to 1, as far as the time suffices."""
        self._share, self._metrics = share, metrics
        self._drifts: dict[str, tuple[str, Drift]] = {}
        """Variant -> the version of its bundle, and the drift of that."""
        self._thread = ThreadPoolExecutor(1, "recheck")
        self._free_at = 0.0

    @classmethod
    @contextmanager
    def running(cls, share: float, metrics: Metrics) -> Iterator["Recheck"]:
        """Until the block is left, and what has begun has ended."""
        recheck = cls(share, metrics)
        try:
            yield recheck
        finally:
            recheck._thread.shutdown(cancel_futures=True)

    def look(self, variant: str, state: State, request: Recall, answer: Answer) -> None:
        """To be called for every answer, in the step of the event loop that made it; it may be
        looked at again when the loop goes round. What several sources made is never, nor is a
        fallback: nothing was searched."""
        if random() >= self._share or perf_counter() < self._free_at:
            return
        if request.blend is None and answer.source != "fallback":
            self._free_at = np.inf
            position = state.position(request.user_id)
            asyncio.get_running_loop().call_soon(
                self._begin, variant, state, position, request, answer
            )

    def _begin(
        self,
        variant: str,
        state: State,
        position: tuple[int, int],
        request: Recall,
        answer: Answer,
    ) -> None:
        self._free_at = 0.0
        if state.position(request.user_id) != position:
            return
        question = ask(state, request, answer)
        if question.filter_.selection is None and request.exclude_seen:
            drift = self._drift(variant, state)
            drift.note(request.user_id, question.vectors, question.rows, answer.items)
        self._free_at = np.inf
        again = asyncio.get_running_loop().run_in_executor(self._thread, answer_exactly, question)
        again.add_done_callback(partial(self._count, variant, state, position[0]))

    def _drift(self, variant: str, state: State) -> Drift:
        version, drift = self._drifts.get(variant, (None, None))
        if drift is None or version != state.snapshot.version:
            drift = Drift(state.snapshot.bundle.manifest.reference, variant, self._metrics)
            self._drifts[variant] = state.snapshot.version, drift
        return drift

    def _count(self, variant: str, state: State, seq: int, again: "asyncio.Future[Found]") -> None:
        self._free_at = 0.0
        if again.cancelled():
            return
        wanted, found, seconds = again.result()
        self._free_at = perf_counter() + seconds / DUTY
        # What was written meanwhile changes rows that the thread has read, some before, some after.
        if state.overlay.seq == seq:
            self._metrics.recheck_wanted.labels(variant).inc(wanted)
            self._metrics.recheck_found.labels(variant).inc(found)


def ask(state: State, request: Recall, answer: Answer) -> Question:
    """In the state that the request was answered in."""
    overlay, snapshot = state.overlay, state.snapshot
    asker = identify(state, request)
    filter_ = filter_of(state, request, asker.seen)
    recent = slice(-snapshot.history_length(), None)
    history = overlay.history_vectors(asker.history[recent])
    return Question(
        state,
        filter_,
        filter_.overlay_slots(),
        overlay.vectors,
        snapshot.embed_user(asker.row, asker.profile, history, history_of(asker.flags[recent])),
        request.k,
        overlay.rows([item.item_id for item in answer.items[:]]),
    )


def answer_exactly(question: Question) -> Found:
    """Every eligible item is scored."""
    started = thread_time()
    matrix = Stacked(question.state.snapshot.bundle.item_vectors, question.posted)
    eligible = np.concatenate([question.filter_.bundle_rows(), question.slots])
    best = _best(question, matrix, eligible)
    last = float(best.min(initial=np.inf))
    given = np.sort(question.rows[eligible[question.rows]])
    worth = (question.vectors @ matrix[given].T).max(axis=0)
    found = int(np.count_nonzero(worth >= last - CLOSE * abs(last)))
    return Found(len(best), found, thread_time() - started)


class _Rested:
    """A matrix of which a scan reads one block after the other."""

    def __init__(self, matrix: Matrix) -> None:
        self._matrix, self._since = matrix, thread_time()

    @property
    def shape(self) -> tuple[int, ...]:
        return self._matrix.shape

    def __len__(self) -> int:
        return len(self._matrix)

    def __getitem__(self, rows: slice | I64, /) -> F32:
        sleep(RESTS * (thread_time() - self._since))
        self._since = thread_time()
        return self._matrix[rows]


def _best(question: Question, stacked: Stacked, eligible: Bool) -> F32:
    """The scores of the k best eligible rows, or of all where they are fewer."""
    matrix = _Rested(stacked)
    others = len(eligible) - int(np.count_nonzero(eligible))
    if others > FEW_OTHERS:
        rows, scores = scan(matrix, question.vectors, question.k, np.flatnonzero(eligible))
        return merge(rows.ravel(), scores.ravel(), question.k)[1]
    most = min(question.k + others, len(matrix))
    rows, scores = scan(matrix, question.vectors, most)
    kept = eligible[rows]
    return merge(rows[kept], scores[kept], question.k)[1]
