"""Overload: many times what the service can do, from single requests and batches alike, beside
clients that are slow or send too much. What is too much is refused at once, the rest is answered,
memory stays where it is, and all is as before when it is over."""

import http.client
import itertools
import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.service.reliability.conftest import Floor
from tests.service.reliability.scale import found, lasting
from tests.service.reliability.threads import running
from tests.service.server import Server

SECONDS, PEAK_SECONDS = lasting(2, 60, 60), lasting(2, 15, 30)
CAPACITY, BATCH, BATCHERS, SINGLES = 250, 100, 12, 4
TIMES = 10
"""What is offered, of what the service can do."""
SLOW, MEGABYTE = 50, 2**20
PAUSE = 1.0
ANSWERED = "tandem_answers_total"
LARGE = 100
"""Megabytes of a body that is too large."""


class Asked(NamedTuple):
    status: int
    seconds: float
    recalls: int


class Crowd:
    """Clients that ask again and again, whatever the answer was, with a pause between."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.asked: list[Asked] = []

    @contextmanager
    def of(self, batchers: int, singles: int, pause: float) -> Iterator[None]:
        ended = threading.Event()
        batch = json.dumps({"requests": [{"user_id": f"u{n}", "k": 50} for n in range(BATCH)]})
        asks: list[tuple[str, str, int]] = [("/v1/recommendations:batch", batch, BATCH)] * batchers
        asks += [("/v1/recommendations", '{"user_id": "u1", "k": 50}', 1)] * singles
        with running([partial(self._run, ended, pause, *ask) for ask in asks], ended):
            yield

    def _run(
        self, ended: threading.Event, pause: float, path: str, body: str, recalls: int
    ) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        while not ended.wait(pause):
            started = time.perf_counter()
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            self.asked.append(Asked(answer.status, time.perf_counter() - started, recalls))
        connection.close()


def test_too_much_is_refused_and_the_rest_is_answered(floor: Floor, tmp_path: Path) -> None:
    options = {"channels": "live", "max_admitted": CAPACITY, "max_recalls": BATCH}
    with Server(floor.store.root, tmp_path / "state", **options) as server:
        crowd = Crowd(server.port)
        with crowd.of(batchers=2, singles=0, pause=0):
            peak = answered_a_second(server, PEAK_SECONDS)
        (pid,) = server.workers()
        memory, calm = resident(pid), latency(server)
        crowd.asked.clear()
        with ExitStack() as stack:
            for n in range(SLOW):
                stack.callback(slow_client(server.port, whole_head=bool(n % 2)).close)
            too_large = stack.enter_context(large_bodies(server.port))
            stack.enter_context(crowd.of(BATCHERS, SINGLES, BATCHERS * BATCH / (TIMES * peak)))
            goodput = answered_a_second(server, SECONDS)
        grown = most_resident(pid) - memory
        time.sleep(lasting(0, 5, 5))
        after = latency(server)
        assert server.workers() == [pid]

    refused = [one for one in crowd.asked if one.status == 429]
    assert {one.status for one in crowd.asked} == {200, 429}
    assert {one.recalls for one in crowd.asked if one.status == 200} == {1, BATCH}
    assert len(too_large) >= 2
    assert set(too_large) == {413}
    assert grown < LARGE * MEGABYTE
    singles = sum(one.status == 200 for one in crowd.asked if one.recalls == 1)
    offered = sum(one.recalls for one in crowd.asked) / SECONDS
    times = offered / peak
    what = f"overload, {times:.0f} times capacity, {SECONDS} s"
    found(
        f"{what}: goodput", ">= 80 % of the peak", f"{goodput / peak:.0%} of {peak:,.0f} recalls/s"
    )
    found(f"{what}: single requests beside batches", "answered too", f"{singles:,}")
    found(
        f"{what}: refused",
        "p99 < 10 ms",
        f"{milliseconds(refused, 99)}, p50 {milliseconds(refused, 50)}",
    )
    found(f"{what}: bodies of {LARGE} MB beside it", "413", f"{len(too_large):,} times 413")
    found(f"{what}: memory", f"< {LARGE} MiB more", f"{grown / MEGABYTE:.0f} MiB more")
    found(
        f"{what}: latency 5 s after",
        "as before",
        f"{1000 * after:.1f} ms, before {1000 * calm:.1f} ms",
    )


def answered_a_second(server: Server, seconds: float) -> float:
    before, started = server.metric(ANSWERED), time.monotonic()
    time.sleep(seconds)
    return (server.metric(ANSWERED) - before) / (time.monotonic() - started)


def latency(server: Server) -> float:
    """Of the middle one of some single requests."""
    seconds = []
    for n in range(50):
        started = time.perf_counter()
        assert server.client.get(f"/v1/recommendations/u{n}").status_code == 200
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def slow_client(port: int, whole_head: bool) -> socket.socket:
    """One that sends the half of a head, or a head and the half of a body, and then nothing."""
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(b"POST /v1/recommendations HTTP/1.1\r\nHost: a\r\n")
    if whole_head:
        client.sendall(b'Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"user_id"')
    return client


@contextmanager
def large_bodies(port: int) -> Iterator[list[int]]:
    """The statuses of bodies that are too large, one after the other, of both ways to send one."""
    ended, statuses = threading.Event(), list[int]()

    def run() -> None:
        for n in itertools.count():
            statuses.append(send_large(port, announced=n % 2 == 0))
            # Both ways at least once, however short this is.
            if n and ended.wait(PAUSE):
                return

    with running([run], ended):
        yield statuses


def send_large(port: int, announced: bool) -> int:
    """The status of a body of 100 MB, sent until it is answered."""
    length = (
        b"Content-Length: %d" % (LARGE * MEGABYTE) if announced else b"Transfer-Encoding: chunked"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(b"POST /v1/items HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n")
        client.sendall(length + b"\r\n\r\n")
        block = b" " * MEGABYTE
        for _ in range(LARGE):
            client.sendall(block if announced else b"%x\r\n%b\r\n" % (MEGABYTE, block))
            client.setblocking(False)
            try:
                answer = client.recv(4096)
            except BlockingIOError:
                continue
            finally:
                client.settimeout(60)
            return int(answer.split()[1])
        return int(client.recv(4096).split()[1])


def resident(pid: int) -> int:
    return _status(pid, "VmRSS")


def most_resident(pid: int) -> int:
    """Since the process began."""
    return _status(pid, "VmHWM")


def _status(pid: int, field: str) -> int:
    (kilobytes,) = re.findall(
        rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M
    )
    return int(kilobytes) * 1024


def milliseconds(asked: Sequence[Asked], q: float) -> str:
    return f"{1000 * np.percentile([one.seconds for one in asked], q):.1f} ms"
