"""The ways past FastAPI answer as the route does, which documents them; a header leads to the
route."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from urllib.parse import quote

import httpx
import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from contract.bundle import Bundle
from contract.store import LocalStore
from service import wire
from service.app import create_api
from service.expect import Expect
from service.front import Front
from service.metrics import Metrics
from service.routes import recall
from service.routes.parts import STEERING, route_of
from service.settings import Settings
from service.wire import Plain, Wire
from tests.service.server import Server

MOST_CALLS, MOST_TOGETHER, MOST_POST = 390, 164, 402
"""Alone, of 16 that arrive together, and of a POST. A fifth more than it took on 2026-11-28."""
TOGETHER = 16
DUE = b"X-Tandem-Deadline: 3600000\r\n"
IN_JSON = b"Content-Type: application/json\r\n"
BODY = b'{"user_id": "u1", "k": 50}'
ROUTE = {"X-Tandem-Deadline": "3600000"}

GOOD = (
    "",
    "k=7",
    "k=3&k=5",
    "k=%35",
    "exclude=i1&exclude=i2&exclude=nothing",
    "exclude_seen=false",
    "exclude_seen=0&k=20",
    "include=i1&include=i2",
    "category=",
    "filter=year>=1990&filter=price<20",
    "source=model&source=popular&explain=true",
    "diversity=.3&max_per_category=2&explore=.2&seed=4",
    "min_seq=0",
)
BAD = (
    "k=",
    "k=0",
    "k=x",
    "k=1.5",
    "k=100000",
    "kk=5",
    "k=5&filters=x",
    "exclude=",
    "exclude_seen=maybe",
    "sources=model",
    "source=nobody",
    "filter=year",
    "filter=nothing=5",
    "min_seq=99999999",
    "user_id=u1",
    "diversity=nan",
    "k=%ff",
)
USERS = ("u0", "nobody", "a/b", "ä \n?", "u0/", "x" * 256)


def ask(client: httpx.Client, user: str, query: str) -> tuple[httpx.Response, httpx.Response]:
    """By the wire, if it is plain, and by the route."""
    url = f"/v1/recommendations/{quote(user, safe='/')}?{query}"
    return client.get(url), client.get(url, headers=ROUTE)


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("query", GOOD)
def test_both_ways_give_one_answer(server: Server, user: str, query: str) -> None:
    found, wanted = ask(server.client, user, query)

    assert found.status_code == 200, found.text
    assert (found.status_code, found.content) == (wanted.status_code, wanted.content)
    kind = "content-type"
    assert found.headers[kind] == wanted.headers[kind] == "application/json"


@pytest.mark.parametrize("query", BAD)
def test_both_ways_refuse_alike(server: Server, query: str) -> None:
    found, wanted = ask(server.client, "u0", query)

    assert found.status_code >= 400
    assert (found.status_code, found.content) == (wanted.status_code, wanted.content)


EVENTS = (
    b'{"user_id": "u1", "item_id": "i1"}',
    b'{"user_id": "u1", "item_id": "i1", "kind": "listen", "timestamp": 5}',
    b'{"events": [{"user_id": "u1", "item_id": "i1"}, {"user_id": "u2", "item_id": "x"}]}',
)
NO_EVENTS = (
    b"",
    b"{",
    b"[]",
    b'{"user_id": "u1"}',
    b'{"user_id": "u1", "item_id": "i1", "timestamp": NaN}',
    b'{"user_id": "u1", "item_id": "i1", "timestamp": -1}',
    b'{"user_id": "u1", "item_id": "i1", "more": 1}',
    b'{"user_id": "\\ud800", "item_id": "i1"}',
    b'{"user_id": "u1\xff", "item_id": "i1"}',
    b'{"events": []}',
    b'{"events": [{"user_id": "", "item_id": "i1"}]}',
    b'{"events": [%b]}' % b",".join([b'{"user_id": "u", "item_id": "i"}'] * 5001),
    b'{"user_id": "%b", "item_id": "i1"}' % (b"x" * 9_000_000),
)


def post_both_ways(
    client: httpx.Client, path: str, body: bytes
) -> tuple[httpx.Response, httpx.Response]:
    """By the wire, if it is plain, and by the route, where a type with a parameter leads."""
    first, second = (
        client.post(path, content=body, headers={"Content-Type": kind})
        for kind in ("application/json", "application/json; charset=utf-8")
    )
    return first, second


@pytest.mark.parametrize("body", EVENTS)
def test_events_are_written_alike_both_ways(server: Server, body: bytes) -> None:
    first, second = post_both_ways(server.client, "/v1/events", body)

    assert (first.status_code, second.status_code) == (201, 201)
    count = second.json()["seq"] - first.json()["seq"]
    one, other = server.journal()[-2 * count : -count], server.journal()[-count:]
    for record, twin in zip(one, other, strict=True):
        assert record.kind == twin.kind == "event"
        times = record.body.pop("timestamp"), twin.body.pop("timestamp")
        assert abs(times[0] - times[1]) <= 1
        assert record.body == twin.body


@pytest.mark.parametrize("body", NO_EVENTS)
def test_what_is_no_event_is_refused_alike_both_ways(server: Server, body: bytes) -> None:
    first, second = post_both_ways(server.client, "/v1/events", body)

    assert first.status_code in (400, 413, 422)
    assert (first.status_code, first.content) == (second.status_code, second.content)


RECALLS = (
    b'{"user_id": "u1"}',
    b"{}",
    b'{"user_id": "u1", "k": 7, "exclude": ["i1", "i2"], "exclude_seen": false}',
    b'{"history": ["i1", "i2", "nothing"], "k": 5}',
    b'{"user_id": "u1", "features": {"age": 30}, "history": []}',
    b'{"user_id": null, "history": null, "filters": {"year": {"gte": 1990}}, "k": "9"}',
    b'{"user_id": "u1", "include": ["i1", "i2"], "min_seq": 0}',
    b'{"user_id": "u1", "sources": {"model": 1, "popular": 2}, "explain": true, "seed": 4}',
    b'{"user_id": "u1", "user_id": "u2", "k": 3.0, "diversity": 1}',
)
NO_RECALLS = (
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"k": 0}',
    b'{"k": 100000}',
    b'{"k": 123456789012345678901234567890}',
    b'{"diversity": NaN}',
    b'{"more": 1}',
    b'{"user_id": "\\ud800"}',
    b'{"user_id": "u1\xff"}',
    b'{"user_id": "u1", "features": {"age": "old"}}',
    b'{"user_id": "u1", "features": {"height": 5}}',
    b'{"user_id": "u1", "filters": {"nothing": 5}}',
    b'{"user_id": "u1", "min_seq": 99999999}',
    b'{"history": [%b]}' % b",".join([b'"i1"'] * 5001),
    b'{"user_id": "%b"}' % (b"x" * 9_000_000),
)


@pytest.mark.parametrize("body", RECALLS)
def test_a_body_is_answered_alike_both_ways(server: Server, body: bytes) -> None:
    found, wanted = post_both_ways(server.client, "/v1/recommendations", body)

    assert found.status_code == 200, found.text
    assert (found.status_code, found.content) == (wanted.status_code, wanted.content)
    assert found.headers["content-type"] == wanted.headers["content-type"] == "application/json"


@pytest.mark.parametrize("body", NO_RECALLS)
def test_a_body_is_refused_alike_both_ways(server: Server, body: bytes) -> None:
    found, wanted = post_both_ways(server.client, "/v1/recommendations", body)

    assert found.status_code >= 400
    assert (found.status_code, found.content) == (wanted.status_code, wanted.content)


@pytest.mark.parametrize("user", ["", "x" * 257])
def test_an_id_of_no_user_is_refused_by_the_route(server: Server, user: str) -> None:
    found, wanted = ask(server.client, user, "k=5")

    assert found.status_code >= 400
    assert (found.status_code, found.content) == (wanted.status_code, wanted.content)


def test_answers_are_counted_on_the_route(server: Server) -> None:
    route, method = "/v1/recommendations/{user_id}", "GET"

    def counted() -> float:
        return server.metric("tandem_requests_total", route=route, method=method, status="200")

    before = counted()
    ask(server.client, "u1", "k=5")

    assert counted() == before + 2


def test_lists_are_the_parameters_that_may_be_repeated() -> None:
    assert {"exclude", "include", "filter", "source"} == wire.LISTS


def test_what_was_remembered_does_not_carry_a_user_over(server: Server, bundle: Bundle) -> None:
    for user in (bundle.user_ids[0], bundle.user_ids[1], "nobody"):
        answer = server.client.get(f"/v1/recommendations/{user}?k=5").json()

        assert answer["user_id"] == user


def test_what_steers_a_request_is_what_its_route_takes_from_headers() -> None:
    for endpoint in (recall.get_recommendations, recall.post_recommendations):
        depends = route_of(recall.router, endpoint).dependant.dependencies
        taken = {field.alias for one in depends for field in one.header_params}

        assert {name.lower().encode() for name in taken} == STEERING


def test_a_plain_request_takes_few_calls_of_python(
    shelf: LocalStore, metrics: Metrics, tmp_path: Path
) -> None:
    """A guard of what a request costs that no other work on the machine can move."""
    settings = Settings(store=str(shelf.root), state=str(tmp_path / "state"), recheck_share=0)
    api = create_api(settings, metrics)
    front = Front(Expect(api), settings, metrics, "0")

    def connection() -> "Connection":
        config = uvicorn.Config(front)
        return Connection(
            Wire(Plain(front, api), config=config, server_state=ServerState(), app_state={})
        )

    async def count() -> tuple[float, float, float, float, float]:
        async with api.router.lifespan_context(api):
            one, each = [connection()], [connection() for _ in range(TOGETHER)]
            # The first ones fill what is kept.
            _, plain = await calls(one, b""), await calls(one, b"")
            _, route = await calls(one, DUE), await calls(one, DUE)
            _, many = await calls(each, b""), await calls(each, b"")
            _, post = await calls(one, IN_JSON, BODY), await calls(one, IN_JSON, BODY)
            late = IN_JSON + DUE
            _, slow = await calls(one, late, BODY), await calls(one, late, BODY)
        return plain, route, many, post, slow

    plain, route, many, post, slow = uvloop.run(count())
    print(f"calls of Python functions: {plain} by the wire, {route} by the route")
    print(f"each of {TOGETHER} together by the wire: {many}")
    print(f"of a POST: {post} by the wire, {slow} by the route")

    assert plain < MOST_CALLS
    assert route > 2 * plain
    assert many < MOST_TOGETHER
    assert post < MOST_POST
    assert slow > 2 * post


class Connection(asyncio.Transport):
    """A client that notes what it is sent."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire, self._answered = wire, asyncio.Event()
        wire.connection_made(self)

    async def ask(self, request: bytes) -> bytes:
        self._sent = b""
        self._answered.clear()
        self._wire.data_received(request)
        await self._answered.wait()
        return self._sent

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._sent += data
        if b"seq" in self._sent:
            self._answered.set()

    def is_closing(self) -> bool:
        return False

    def resume_reading(self) -> None:
        pass


async def calls(connections: Sequence[Connection], headers: bytes, body: bytes = b"") -> float:
    """Of Python functions, until each of these has a recommendation, by POST where there is a body:
    for each of them."""
    made = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal made
        made += event == "call"

    method = b"POST /v1/recommendations" if body else b"GET /v1/recommendations/u%d?k=50"
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    rest = b" HTTP/1.1\r\nHost: x\r\n" + headers + length + b"\r\n" + body
    asked = [(method if body else method % user) + rest for user in range(len(connections))]
    sys.setprofile(profile)
    try:
        answers = await asyncio.gather(
            *(one.ask(request) for one, request in zip(connections, asked, strict=True))
        )
    finally:
        sys.setprofile(None)
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    return made / len(connections)
