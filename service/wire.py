"""The way of plain GETs of recommendations past ASGI: from the parser to a recall, and its answer
to the socket.

A task, a scope and two messages for each request cost more than the recall. Here the protocol asks
for itself and is called back. What is not plain goes the way of all other requests: whatever the
model of the query refuses, keys that do not open, pinned variants, deadlines, bodies, requests that
do not wait for the answer to the one before. So there is one place that says what is wrong with a
request, and OpenAPI describes what happens.
"""

import logging
from collections.abc import Sequence
from functools import lru_cache
from time import perf_counter
from typing import Any, get_args, get_origin
from urllib.parse import parse_qsl, unquote

from fastapi import FastAPI
from pydantic import ValidationError
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from contract.errors import TandemError
from service.errors import failure, refusal
from service.front import Front
from service.logs import REQUEST_ID
from service.routes import recall
from service.routes.parts import JSON, STEERING, Parts, route_of
from service.routes.recall import Asked, Wanted
from service.schemas import RecommendationQuery

log = logging.getLogger("tandem")

Headers = Sequence[tuple[bytes, bytes]]

PREFIX = b"/v1/recommendations/"
ROUTE = route_of(recall.router, recall.get_recommendations).path_format
LONGEST_ID = 256
NOT_PLAIN = STEERING | {b"content-length", b"transfer-encoding", b"expect", b"upgrade"}
IN_JSON = (b"content-type", JSON.encode())
CLOSED = (b"connection", b"close")
CLOSE = b"%b: %b\r\n" % CLOSED
LISTS = frozenset(
    field.alias or name
    for name, field in RecommendationQuery.model_fields.items()
    if list in (get_origin(kind) for kind in (field.annotation, *get_args(field.annotation)))
)
"""Parameters that may stand in a query several times; of others the last counts."""
SHORT = 256
"""Bytes of a query string that is remembered."""


class Plain:
    """What the connections of one worker share."""

    def __init__(self, front: Front, api: FastAPI) -> None:
        self.front, self._api = front, api
        self._default: Headers = ()
        self._head = b""

    @property
    def parts(self) -> Parts:
        parts: Parts = self._api.state.parts
        return parts

    def asked(self, url: bytes, headers: dict[bytes, bytes], now: float) -> Asked | None:
        """None for what is not plain or is refused."""
        target = _target(url)
        if target is None or not NOT_PLAIN.isdisjoint(headers):
            return None
        path, user_id, wanted = target
        try:
            self.front.check("GET", path, headers, now)
            return recall.of_user(self.parts, user_id, wanted)
        except TandemError:
            return None

    def head(self, default: Headers) -> bytes:
        """Of an answer of status 200, up to the headers that each has of its own. `default` are the
        server's headers: another list every second."""
        if default is not self._default:
            self._default = default
            self._head = _head(200, (*default, *self.front.carried, IN_JSON))
        return self._head

    def refusal(self, error: Exception, scope: Any, default: Headers) -> tuple[int, bytes, bytes]:
        """Status, head and body where there is no answer."""
        scope["method"] = "GET"
        if isinstance(error, TandemError):
            made = refusal(error, scope, self._api.state.told)
        else:
            log.error("GET %s failed; this is a bug", scope["path"], exc_info=error)
            made = failure()
        own = [pair for pair in made.raw_headers if pair[0] != b"content-length"]
        head = _head(made.status_code, (*default, *self.front.carried, *own))
        return made.status_code, head, bytes(made.body)


class Wire(HttpToolsProtocol):
    """One connection."""

    def __init__(self, plain: Plain, **given: Any) -> None:
        """`given` is what uvicorn gives to its own."""
        super().__init__(**given)
        self._plain = plain

    def on_headers_complete(self) -> None:
        now = perf_counter()
        asked = self._plain.asked(self.url, dict(self.headers), now) if self._free() else None
        if asked is None:
            super().on_headers_complete()
        else:
            self.cycle = turn = _Turn(self, self._plain, now)  # type: ignore[assignment]
            try:
                recall.recommend_then(self._plain.parts, asked, turn.answer)
            except TandemError as error:
                turn.answer(error)

    def _free(self) -> bool:
        """Whether nothing is being answered, the client reads what it is sent, and asks by a GET
        that leaves the connection open."""
        return (
            (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
            and self.parser.get_method() == b"GET"
            and self.parser.get_http_version() == "1.1"
            and bool(self.parser.should_keep_alive())
        )


class _Nobody:
    """Whom uvicorn wakes when more of a request has come: nobody waits for more of a plain one."""

    def set(self) -> None:
        pass


class _Turn:
    """What is being answered. uvicorn looks at the attributes as at those of its own."""

    message_event = _Nobody()
    more_body = False

    def __init__(self, wire: Wire, plain: Plain, started: float) -> None:
        self._wire, self._plain, self._started = wire, plain, started
        # The connection may read on before this is answered.
        self._url, self._headers, self._scope = wire.url, wire.headers, wire.scope
        self.response_complete = self.disconnected = False
        self.keep_alive = True

    def answer(self, answer: bytes | Exception) -> None:
        """To be called once, by the event loop."""
        front, default = self._plain.front, self._wire.server_state.default_headers
        request_id = front.request_id(dict(self._headers))
        REQUEST_ID.set(request_id.decode())
        if isinstance(answer, Exception):
            scope = self._scope | {"path": _path(self._url)}
            status, head, body = self._plain.refusal(answer, scope, default)
        else:
            status, head, body = 200, self._plain.head(default), answer
        front.count("GET", ROUTE, status, perf_counter() - self._started)
        self._send(head, request_id, body, closing=CLOSED in default)

    def _send(self, head: bytes, request_id: bytes, body: bytes, closing: bool) -> None:
        """`closing`: the head says already that the connection is closed after it."""
        self.response_complete, transport = True, self._wire.transport
        if not transport.is_closing():
            close = b"" if self.keep_alive or closing else CLOSE
            transport.write(
                b"%bx-request-id: %b\r\ncontent-length: %d\r\n%b\r\n%b"
                % (head, request_id, len(body), close, body)
            )
            if closing or close:
                transport.close()
        self._wire.on_response_complete()


def _head(status: int, headers: Headers) -> bytes:
    return STATUS_LINE[status] + b"".join(b"%b: %b\r\n" % pair for pair in headers)


def _target(url: bytes) -> tuple[str, str, Wanted] | None:
    """Path, user and query of a plain request."""
    if not url.startswith(PREFIX) or not url.isascii() or b"#" in url:
        return None
    path = _path(url)
    user_id = path[len(PREFIX) :]
    wanted = _wanted(url.partition(b"?")[2]) if 0 < len(user_id) <= LONGEST_ID else None
    return (path, user_id, wanted) if wanted else None


def _path(url: bytes) -> str:
    return unquote(url.partition(b"?")[0].decode())


def _wanted(query: bytes) -> Wanted | None:
    """None for a query that the model refuses. Not to be changed: clients ask the same over and
    over, and short queries are remembered."""
    return _remembered(query) if len(query) <= SHORT else _read(query)


def _read(query: bytes) -> Wanted | None:
    values: dict[str, Any] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name in LISTS:
            values.setdefault(name, []).append(value)
        else:
            values[name] = value
    try:
        return recall.wanted(RecommendationQuery.model_validate(values))
    except ValidationError:
        return None


_remembered = lru_cache(maxsize=1024)(_read)
