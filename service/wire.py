"""The way of plain requests past ASGI: recommendations by GET and POST, events by POST. From the
parser to a recall or the journal, and the answer to the socket.

A task, a scope and two messages for each request cost more than the recall, and to take the
parameters of a URL or a body apart costs FastAPI more still. Here the protocol reads them by the
same models, asks the same functions as the routes, and is called back. What is not plain goes the
way of all other requests: whatever a model refuses, keys that do not open, pinned variants,
deadlines, large bodies, requests that do not wait for the answer to the one before. So there is one
place that says what is wrong with a request, and OpenAPI describes what happens.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from time import perf_counter
from typing import Any, NamedTuple, get_args, get_origin
from urllib.parse import parse_qsl, unquote

import orjson
from fastapi import FastAPI
from pydantic import TypeAdapter, ValidationError
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from contract.errors import TandemError
from service import schemas
from service.errors import failure, refusal
from service.front import Front
from service.logs import REQUEST_ID
from service.routes import events, recall
from service.routes.parts import JSON, STEERING, Answered, Parts, route_of
from service.routes.recall import Wanted
from service.schemas import RecommendationQuery

log = logging.getLogger("tandem")

Headers = Sequence[tuple[bytes, bytes]]

PREFIX = b"/v1/recommendations/"
LONGEST_ID = 256
SMALL_BODY = 2**16
"""uvicorn stops reading at a larger one until someone asks for more."""
NOT_PLAIN = STEERING | {b"transfer-encoding", b"expect", b"upgrade"}
JSON_TYPE = JSON.encode()
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


class Way(NamedTuple):
    """What is answered here, as its route is documented."""

    method: str
    route: str
    status: int


class Asked(NamedTuple):
    """A plain request. `ask` takes its body; it raises TandemError for what is refused, ValueError
    for what is not plain after all."""

    way: Way
    ask: Callable[[Parts, bytes, Answered], None]


def _ask_body(parts: Parts, body: bytes, answered: Answered) -> None:
    request = RECALL.validate_python(orjson.loads(body))
    recall.recommend_then(parts, recall.of_body(parts, request), answered)


def _write(parts: Parts, body: bytes, answered: Answered) -> None:
    events.write_then(parts, EVENTS.validate_python(orjson.loads(body)), answered)


RECALL = TypeAdapter[Any](schemas.RecommendationRequest)
EVENTS = TypeAdapter[Any](schemas.OneOrMoreEvents)
OF_USER = Way("GET", route_of(recall.router, recall.get_recommendations).path_format, 200)
POSTS = {
    b"/v1/recommendations": Asked(Way("POST", "/v1/recommendations", 200), _ask_body),
    b"/v1/events": Asked(Way("POST", "/v1/events", 201), _write),
}


class Plain:
    """What the connections of one worker share."""

    def __init__(self, front: Front, api: FastAPI) -> None:
        self.front, self._api = front, api
        self._most = min(SMALL_BODY, front.max_body)
        self._default: Headers = ()
        self._heads: dict[int, bytes] = {}

    @property
    def parts(self) -> Parts:
        parts: Parts = self._api.state.parts
        return parts

    def asked(
        self, method: bytes, url: bytes, headers: Mapping[bytes, bytes], now: float
    ) -> Asked | None:
        """None for what is not plain, as far as can be told without its body, or is refused."""
        if not NOT_PLAIN.isdisjoint(headers):
            return None
        try:
            if method == b"GET":
                return self._get(url, headers, now)
            return self._post(url, headers, now) if method == b"POST" else None
        except TandemError:
            return None

    def _get(self, url: bytes, headers: Mapping[bytes, bytes], now: float) -> Asked | None:
        target = _target(url) if b"content-length" not in headers else None
        if target is None:
            return None
        path, user_id, wanted = target
        self.front.check("GET", path, headers, now)
        asked = recall.of_user(self.parts, user_id, wanted)
        return Asked(
            OF_USER, lambda parts, _, answered: recall.recommend_then(parts, asked, answered)
        )

    def _post(self, url: bytes, headers: Mapping[bytes, bytes], now: float) -> Asked | None:
        asked = POSTS.get(url)
        if asked and headers.get(b"content-type") == JSON_TYPE and self._is_small(headers):
            self.front.check("POST", url.decode(), headers, now)
            return asked
        return None

    def _is_small(self, headers: Mapping[bytes, bytes]) -> bool:
        length = headers.get(b"content-length", b"")
        return length.isdigit() and 0 < int(length) <= self._most

    def head(self, status: int, default: Headers) -> bytes:
        """Of an answer, up to the headers that each has of its own. `default` are the server's
        headers: another list every second."""
        if default is not self._default:
            self._default, self._heads = default, {}
        if status not in self._heads:
            carried = (*default, *self.front.carried, (b"content-type", JSON_TYPE))
            self._heads[status] = _head(status, carried)
        return self._heads[status]

    def refusal(self, error: Exception, scope: Any, default: Headers) -> tuple[int, bytes, bytes]:
        """Status, head and body where there is no answer."""
        if isinstance(error, TandemError):
            made = refusal(error, scope, self._api.state.told)
        else:
            log.error("%s %s failed; this is a bug", scope["method"], scope["path"], exc_info=error)
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
        now, headers = perf_counter(), dict(self.headers)
        method = self.parser.get_method()
        asked = self._plain.asked(method, self.url, headers, now) if self._free() else None
        if asked is None:
            super().on_headers_complete()
        else:
            self.cycle = _Turn(self, self._plain, asked, headers, now)  # type: ignore[assignment]

    def on_message_complete(self) -> None:
        super().on_message_complete()
        # uvicorn's type of its own, of which ours has the attributes.
        turn: object = self.cycle
        if isinstance(turn, _Turn) and not turn.response_complete:
            self._ask(turn)

    def _ask(self, turn: "_Turn") -> None:
        try:
            turn.asked.ask(self._plain.parts, bytes(turn.body), turn.answer)
        except TandemError as error:
            turn.answer(error)
        except ValueError:
            # The route says what is wrong with it.
            self.cycle = None  # type: ignore[assignment]
            super().on_headers_complete()
            self.cycle.body += turn.body
            super().on_message_complete()

    def _free(self) -> bool:
        """Whether nothing is being answered, the client reads what it is sent, and leaves the
        connection open."""
        return (
            (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
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
    more_body = True

    def __init__(
        self,
        wire: Wire,
        plain: Plain,
        asked: Asked,
        headers: Mapping[bytes, bytes],
        started: float,
    ) -> None:
        self.asked, self.body = asked, bytearray()
        self._wire, self._plain, self._started = wire, plain, started
        # The connection may read on before this is answered.
        self._url, self._headers, self._scope = wire.url, headers, wire.scope
        self.response_complete = self.disconnected = False
        self.keep_alive = True

    def answer(self, answer: bytes | Exception) -> None:
        """To be called once, by the event loop."""
        front, default = self._plain.front, self._wire.server_state.default_headers
        request_id = front.request_id(self._headers)
        REQUEST_ID.set(request_id.decode())
        method, route, status = self.asked.way
        if isinstance(answer, Exception):
            scope = self._scope | {"method": method, "path": _path(self._url)}
            status, head, body = self._plain.refusal(answer, scope, default)
        else:
            head, body = self._plain.head(status, default), answer
        front.count(method, route, status, perf_counter() - self._started)
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
