"""`tandem bench visible`: how soon one worker reads what another has acknowledged.

A real service with two workers. An item is posted on one of them, and asked for on the other right
after the answer: the item must have neighbours, so it was embedded and is searchable, and the
answer must include the journal position of the write. The two workers change sides at every pair.
"""

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, NamedTuple

import numpy as np

from benchmarks.table import Row
from benchmarks.world import world
from offline.local import local_service
from offline.progress import Progress

WORKERS, PATIENCE_SECONDS = 2, 10.0


class Pair(NamedTuple):
    """Seconds from the acknowledgement to the first answer that has the item, and from when the
    write was sent."""

    visible: float
    written_and_visible: float
    stale: int
    """Answers before that."""


def measure(items: int, pairs: int) -> list[Row]:
    with world(items) as made:
        made.publish("auto")
        options = {"workers": WORKERS, "watch_seconds": 1.0}
        log = made.folder / "service.log"
        with local_service(str(made.store.root), log, options) as service:
            found = _pairs(service.port, pairs)
    label = f"{items:,} items, {pairs:,} pairs over {WORKERS} workers:"
    visible = [pair.visible * 1e3 for pair in found]
    both = [pair.written_and_visible * 1e3 for pair in found]
    return [
        Row(f"{label} stale reads", sum(pair.stale for pair in found), "answers", at_most=0),
        Row(f"{label} from acknowledged to read, p50", float(np.percentile(visible, 50)), "ms"),
        Row(f"{label} from acknowledged to read, p99", float(np.percentile(visible, 99)), "ms"),
        Row(f"{label} from sent to read, p50", float(np.percentile(both, 50)), "ms"),
        Row(f"{label} from sent to read, p99", float(np.percentile(both, 99)), "ms"),
    ]


def _pairs(port: int, pairs: int) -> list[Pair]:
    with _one_to_each_worker(port) as workers, Progress("pairs", pairs) as progress:
        found = []
        for n in range(pairs):
            writer, reader = workers[:: 1 if n % 2 else -1]
            found.append(_pair(writer, reader, f"posted-{n}"))
            progress.advance(1)
        return found


def _pair(
    writer: http.client.HTTPConnection, reader: http.client.HTTPConnection, item_id: str
) -> Pair:
    sent = time.perf_counter()
    status, body = _ask(writer, "POST", "/v1/items", {"item_id": item_id})
    if status != 201:
        raise RuntimeError(f"POST of '{item_id}': {status} {body}")
    acknowledged, stale = time.perf_counter(), 0
    while True:
        status, answer = _ask(reader, "GET", f"/v1/items/{item_id}/similar?k=1")
        now = time.perf_counter()
        if status == 200 and answer["items"] and answer["seq"] >= body["seq"]:
            return Pair(now - acknowledged, now - sent, stale)
        if now - acknowledged > PATIENCE_SECONDS:
            raise RuntimeError(f"'{item_id}' was never read: {status} {answer}")
        stale += 1


def _ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: object = None
) -> tuple[int, Any]:
    data = json.dumps(body) if body is not None else None
    connection.request(method, path, data, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


@contextmanager
def _one_to_each_worker(port: int) -> Iterator[list[http.client.HTTPConnection]]:
    """Connections that each lead to another worker, for as long as they are open."""
    found: dict[str, http.client.HTTPConnection] = {}
    with ExitStack() as stack:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(found) < WORKERS:
            if time.monotonic() > deadline:
                raise RuntimeError(f"only worker {', '.join(found)} of {WORKERS} answered")
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            stack.enter_context(closing(connection))
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                found.setdefault(str(answer.headers["x-tandem-worker"]), connection)
        yield list(found.values())
