"""What `tandem bench serve` is made of: the planted world, the generators, the ratios."""

import asyncio
import itertools
import math
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import numpy as np
import pytest

from benchmarks.contest import Rates
from benchmarks.pace import pace
from benchmarks.planted import HISTORY, planted
from benchmarks.search import clustered
from benchmarks.table import Row
from benchmarks.wrk import Saturated, parse
from contract.errors import TandemError
from offline.embed import embed_items, known_rows, user_embedder
from offline.local import free_port
from tests.listening import Handler, listening

ITEMS = 20_000
REPORT = """Running 1s test @ http://127.0.0.1:9001
  8000 requests in 1.00s, 27.00MB read
  Socket errors: connect 0, read 2, write 0, timeout 1
  Non-2xx or 3xx responses: 5
Requests/sec:   7999.50
Transfer/sec:     27.00MB
"""


def test_planted_users_lie_near_their_items_and_every_item_is_known() -> None:
    with planted(ITEMS) as made:
        dataset, model = made.run.dataset, made.run.model

    known = known_rows(dataset.counts(dataset.split().train_end))
    vectors = embed_items(model, dataset, known)
    offsets = dataset.sequences.offsets
    users = np.arange(len(dataset.user_ids))
    queries = user_embedder(model, dataset, users + 1, vectors.history)(users, offsets[1:])[:, 0]
    last = vectors.items[dataset.sequences.items[offsets[1:] - 1]]

    assert (known > 0).all()
    np.testing.assert_allclose(vectors.items, clustered(ITEMS, 0), atol=1e-5)
    assert (np.diff(offsets) == HISTORY).all()
    assert np.einsum("ud,ud->u", queries, last).mean() > 0.3
    assert abs((queries @ last.T).mean()) < 0.05


def test_several_planted_interests_are_several_and_near_what_was_touched_last() -> None:
    with planted(ITEMS, history=10, interests=4) as made:
        dataset, model = made.run.dataset, made.run.model

    known = known_rows(dataset.counts(dataset.split().train_end))
    vectors = embed_items(model, dataset, known)
    offsets = dataset.sequences.offsets
    users = np.arange(len(dataset.user_ids))
    queries = user_embedder(model, dataset, users + 1, vectors.history)(users, offsets[1:])
    last = vectors.items[dataset.sequences.items[offsets[1:] - 1]]
    near = np.einsum("ukd,ud->k", queries, last) / len(users)

    assert (np.diff(offsets) == 10).all()
    np.testing.assert_allclose(vectors.items, clustered(ITEMS, 0), atol=1e-5)
    assert near.tolist() == sorted(near, reverse=True)
    assert near[0] > near[3] + 0.1 > 0.3


def test_a_report_of_wrk_is_read() -> None:
    assert parse(REPORT) == Saturated(7999.5, 8)
    with pytest.raises(TandemError, match="reported no rate: 'unable to connect'"):
        parse("unable to connect")


def test_ratios_are_taken_turn_for_turn() -> None:
    ours = [Saturated(rate, 0) for rate in (10.0, 40.0, 90.0)]
    theirs = [Saturated(rate, 1) for rate in (10.0, 20.0, 30.0)]
    rates = Rates({"ours": ours, "theirs": theirs})

    assert rates.over("ours", "theirs") == (2.0, 1.0, 3.0)
    assert (rates.rate("ours"), rates.failed) == (40.0, 3)


def test_a_stretch_is_no_bar() -> None:
    assert Row("r", 0.5, "times", at_least=0.45, stretch=0.7).holds
    assert not Row("r", 0.4, "times", at_least=0.45, stretch=0.7).holds


@pytest.fixture
def slow() -> Iterator[str]:
    """A server of one connection after the other, each request 5 ms; every fourth is refused."""
    port, ready, stop = free_port(), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    lock, count = asyncio.Lock(), 0
    serving: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        serving.append(asyncio.current_task())
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            async with lock:
                await asyncio.sleep(0.005)
                count += 1
                status = b"503 No" if count % 4 == 0 else b"200 OK"
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()
        await writer.wait_closed()

    async def run() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", port):
            ready.set()
            await stop.wait()
            await asyncio.gather(*(task for task in serving if task))

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    ready.wait()
    yield f"http://127.0.0.1:{port}"
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


def test_a_stall_is_part_of_the_latency_of_all_that_was_due(slow: str) -> None:
    seconds = pace(slow, ["/a", "/b"], rate=1_000, seconds=0.1)

    answered = seconds[np.isfinite(seconds)]
    assert len(seconds) == 100
    assert np.isinf(seconds).sum() == 25
    # 100 requests of 5 ms, due within 0.1 s: the last waits for all before it.
    assert answered.max() > 0.35
    assert np.median(answered) > 0.15
    assert not math.isnan(answered.sum())


class Listening(ThreadingHTTPServer):
    request_queue_size = 64
    """Connections that wait to be taken: one refused is tried again only a second later."""


@pytest.fixture
def ending() -> Iterator[str]:
    """A server that ends a connection after three answers, and of every other one says so."""
    ends = itertools.count()

    class Ending(Handler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            self.answered, self.told = 0, next(ends) % 2 == 0

        def do_GET(self) -> None:
            self.answered += 1
            last = self.answered == 3
            self.send_response(200)
            self.send_header("Content-Length", "2")
            if last and self.told:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"{}")
            self.close_connection = last

    with listening(Ending, Listening) as port:
        yield f"http://127.0.0.1:{port}"


def test_connections_that_end_are_made_anew(ending: str) -> None:
    seconds = pace(ending, ["/a"], rate=1_000, seconds=0.3)

    assert len(seconds) == 300
    # What is asked of a connection while it ends unannounced is lost, and nothing else.
    assert np.isfinite(seconds).sum() > 200
