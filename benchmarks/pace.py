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
from time import perf_counter
from typing import cast

import numpy as np
import uvloop

from contract.arrays import F64

CONNECTIONS = 32
PATIENCE = 10.0
"""Seconds that the last answers may take."""
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
HEAD_END = b"\r\n\r\n"


def pace(port: int, paths: Sequence[str], rate: float, seconds: float) -> F64:
    """The latencies in seconds of all requests, in the order of the answers; those that were not
    answered 2xx are infinite."""
    asked = [
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode("ascii") for path in paths
    ]
    return np.array(uvloop.run(_pace(port, asked, rate, int(rate * seconds))))


async def _pace(port: int, asked: Sequence[bytes], rate: float, count: int) -> list[float]:
    loop, run = asyncio.get_running_loop(), _Run()
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: _Connection(run), "127.0.0.1", port)
    start = perf_counter()
    for n in range(count):
        due = start + n / rate
        while perf_counter() < due:
            await asyncio.sleep(0)
        run.ask(asked[n % len(asked)], due)
    patience = perf_counter() + PATIENCE
    while len(run.latencies) < count and perf_counter() < patience:
        await asyncio.sleep(0)
    for connection in run.idle:
        connection.close()
    return run.latencies + [math.inf] * (count - len(run.latencies))


class _Run:
    def __init__(self) -> None:
        self.idle: deque[_Connection] = deque()
        self._waiting: deque[tuple[bytes, float]] = deque()
        self.latencies: list[float] = []

    def ask(self, request: bytes, due: float) -> None:
        self._waiting.append((request, due))
        self.go_on()

    def go_on(self) -> None:
        while self.idle and self._waiting:
            self.idle.popleft().send(*self._waiting.popleft())


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self._run = run
        self._received = b""
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an isinstance: uvloop's transports have no such base.
        self._transport = cast(asyncio.Transport, transport)
        self._run.idle.append(self)

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
        good = head.startswith(b"HTTP/1.1 2")
        self._run.latencies.append(perf_counter() - self._due if good else math.inf)
        self._received = b""
        self._run.idle.append(self)
        self._run.go_on()
