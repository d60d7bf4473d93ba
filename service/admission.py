"""The one gate that recalls go through: bounded, fair, aware of deadlines.

Recalls run on the event loop, one after the other, so its queue is where they wait. Each one lets
the loop go round once before it runs: what has arrived meanwhile is counted before any of it is
worked on, what is too much is turned away while that is still cheap, and the recalls of a batch
take turns with everyone else's. What still waits in the sockets is not seen.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import NoReturn

from contract.errors import Overloaded, TooLarge
from service.metrics import Metrics

Turn = Callable[[], Awaitable[None]]


class Gate:
    """Of one worker. `capacity` is how many recalls may be admitted at a time; a batch counts as
    many as it holds."""

    def __init__(self, capacity: int, metrics: Metrics) -> None:
        self._capacity, self._metrics = capacity, metrics
        self._admitted = 0

    @contextmanager
    def admit(self, recalls: int, due: float | None = None) -> Iterator[Turn]:
        """What to await before each of these recalls. `due` is by the clock of `perf_counter`.

        Raises TooLarge for more than ever fit, Overloaded when they do not fit now. Awaiting a turn
        raises Overloaded when it came after `due`.
        """
        self.enter(recalls)
        try:
            yield lambda: self._turn(due)
        finally:
            self.leave(recalls)

    def enter(self, recalls: int = 1) -> None:
        """Raises as `admit`. Whoever has entered leaves."""
        if recalls > self._capacity:
            raise TooLarge(
                f"requests: at most {self._capacity} (max_admitted), found {recalls}; send fewer"
            )
        if self._admitted + recalls > self._capacity:
            self._refuse(recalls)
        self._admitted += recalls

    def leave(self, recalls: int = 1) -> None:
        self._admitted -= recalls

    def expect(self, recalls: int) -> None:
        """Raises Overloaded where so many, or as many as there may be, would not fit now: to be
        asked before a body is read, which costs more than to refuse it. So batches, which are
        expected at their largest, leave room for single recalls."""
        if self._admitted + min(recalls, self._capacity) > self._capacity:
            self._refuse(1)

    def _refuse(self, recalls: int) -> NoReturn:
        self._metrics.turned_away.labels("full").inc(recalls)
        raise Overloaded(
            f"{self._admitted} recalls wait, at most {self._capacity} may (max_admitted); "
            "try again later"
        )

    async def _turn(self, due: float | None) -> None:
        await asyncio.sleep(0)
        self.require_in_time(due)

    def require_in_time(self, due: float | None) -> None:
        """Raises Overloaded after `due`."""
        late = perf_counter() - due if due is not None else 0.0
        if late > 0:
            self._metrics.turned_away.labels("late").inc()
            raise Overloaded(
                f"the turn came {1000 * late:.1f} ms after the deadline (X-Tandem-Deadline); "
                "try again later"
            )
