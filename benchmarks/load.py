"""A load generator for correctness under load: open loop, keep-alive connections, every answer
looked at. Latency counts from when a request was due, so a stall is not hidden by waiting clients.
"""

import http.client
import json
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple


class Answered(NamedTuple):
    due: float
    """Seconds, monotonic."""
    seconds: float
    status: int
    """0: no answer."""
    bundle: str


class Load:
    """`rate` requests a second over `connections`, or as many as go when it is None."""

    def __init__(
        self, port: int, users: Sequence[str], connections: int, rate: float | None
    ) -> None:
        self._port, self._users, self._rate = port, users, rate
        self._stop = threading.Event()
        self._answers: list[list[Answered]] = [[] for _ in range(connections)]
        self._threads = [
            threading.Thread(target=self._run, args=(n, connections)) for n in range(connections)
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def answers(self) -> list[Answered]:
        """In order of their due time."""
        return sorted(answer for answers in self._answers for answer in answers)

    def _run(self, number: int, connections: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        interval = connections / self._rate if self._rate else 0.0
        due = time.monotonic() + interval * number / connections
        count = number
        while not self._stop.is_set():
            now = time.monotonic()
            if due > now:
                time.sleep(due - now)
            due = max(due, now) if not interval else due
            user = self._users[count % len(self._users)]
            self._answers[number].append(self._ask(connection, user, due))
            due += interval
            count += connections
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, user: str, due: float) -> Answered:
        try:
            connection.request("GET", f"/v1/recommendations/{user}?k=50")
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return Answered(due, time.monotonic() - due, 0, "")
        seconds = time.monotonic() - due
        bundle = json.loads(body)["bundle"] if answer.status == 200 else ""
        return Answered(due, seconds, answer.status, bundle)
