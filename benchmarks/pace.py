"""A fixed rate of requests, whatever the answers do: open loop, without coordinated omission.

The latency of a request counts from when it was due. What is due while all connections wait, waits
too, and that time is part of its latency. The clock is watched without sleeping, since timers of an
event loop are a millisecond late: the generator needs a core of its own.
"""

import asyncio
import math
import re
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter
from typing import cast
from urllib.parse import urlsplit

import numpy as np
import uvloop

from contract.arrays import F64

CONNECTIONS = 32
PATIENCE = 10.0
"""Seconds that the last answers may take."""
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
LAST = re.compile(rb"\r\nconnection: close", re.IGNORECASE)
HEAD_END = b"\r\n\r\n"


def pace(url: str, paths: Sequence[str], rate: float, seconds: float, key: str = "") -> F64:
    """The latencies in seconds of all requests, in the order of the answers; those that were not
    answered 2xx are infinite. `key` goes with each request."""
    host = urlsplit(url).netloc
    head = f"Host: {host}\r\n" + (f"Authorization: Bearer {key}\r\n" if key else "")
    asked = [f"GET {path} HTTP/1.1\r\n{head}\r\n".encode("ascii") for path in paths]
    return np.array(uvloop.run(_pace(url, asked, rate, int(rate * seconds))))


async def _pace(url: str, asked: Sequence[bytes], rate: float, count: int) -> list[float]:
    run = _Run(url)
    for _ in range(CONNECTIONS):
        await run.connect()
    start = perf_counter()
    for n in range(count):
        due = start + n / rate
        while perf_counter() < due:
            await asyncio.sleep(0)
        run.ask(asked[n % len(asked)], due)
    patience = perf_counter() + PATIENCE
    while len(run.latencies) < count and perf_counter() < patience:
        await asyncio.sleep(0)
    run.close()
    return run.latencies + [math.inf] * (count - len(run.latencies))


class _Run:
    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._idle: deque[_Connection] = deque()
        self._waiting: deque[tuple[bytes, float]] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._done = False
        self.latencies: list[float] = []

    async def connect(self) -> None:
        """Raises OSError where nobody listens."""
        secure = self._url.scheme == "https"
        port = self._url.port or (443 if secure else 80)
        loop = asyncio.get_running_loop()
        await loop.create_connection(
            lambda: _Connection(self), self._url.hostname or "", port, ssl=secure or None
        )

    def ask(self, request: bytes, due: float) -> None:
        self._waiting.append((request, due))
        self._go_on()

    def free(self, connection: "_Connection") -> None:
        self._idle.append(connection)
        self._go_on()

    def lost(self, connection: "_Connection") -> None:
        """Another takes its place: a proxy ends each after some number of requests."""
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._done:
            task = asyncio.get_running_loop().create_task(self._connect_again())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    def close(self) -> None:
        self._done = True
        for connection in self._idle:
            connection.close()

    def _go_on(self) -> None:
        while self._idle and self._waiting:
            self._idle.popleft().send(*self._waiting.popleft())

    async def _connect_again(self) -> None:
        with suppress(OSError):  # nobody there any more: what waits is not answered
            await self.connect()


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self._run = run
        self._received = b""
        self._due: float | None = None
        """None while nothing is asked."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an isinstance: uvloop's transports have no such base.
        self._transport = cast(asyncio.Transport, transport)
        self._run.free(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._answered(math.inf)
        self._run.lost(self)

    def send(self, request: bytes, due: float) -> None:
        self._due = due
        self._transport.write(request)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(HEAD_END)
        length = LENGTH.search(head)
        if not end or length is None or len(body) < int(length.group(1)):
            return
        self._received = b""
        self._answered(perf_counter() if head.startswith(b"HTTP/1.1 2") else math.inf)
        if LAST.search(head):
            self.close()
        else:
            self._run.free(self)

    def _answered(self, at: float) -> None:
        if self._due is not None:
            self._run.latencies.append(at - self._due)
            self._due = None
