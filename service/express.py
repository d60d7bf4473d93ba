"""The way of the common requests past FastAPI: a GET of recommendations, a POST of events.

To take the parameters of a URL or a body apart costs FastAPI more time than the recall takes. Here
they are read by the same model and answered by the same functions as in the route. What is not
plain goes to the route: whatever the model refuses, pinned variants, deadlines. So there is one
place that says what is wrong with a request, and OpenAPI describes what happens.
"""

from collections import deque
from collections.abc import Awaitable
from functools import lru_cache
from typing import Any, get_args, get_origin
from urllib.parse import parse_qsl

import orjson
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from contract.errors import TandemError
from service import schemas
from service.errors import failure, refusal
from service.routes import events, recall
from service.routes.recall import Wanted
from service.schemas import RecommendationQuery

PREFIX = "/v1/recommendations/"
(ROUTE,) = (
    route
    for route in recall.router.routes
    if isinstance(route, APIRoute) and route.endpoint is recall.get_recommendations
)
BODIES = {
    route.path: (route, route.endpoint is recall.post_batch)
    for route in recall.router.routes
    if isinstance(route, APIRoute) and route.methods == {"POST"}
}
"""Path -> the route, and whether it takes many requests at once."""
(EVENTS_ROUTE,) = (
    route
    for route in events.router.routes
    if isinstance(route, APIRoute) and route.endpoint is events.post_events
)
EVENTS: TypeAdapter[schemas.EventBody | schemas.EventsBody] = TypeAdapter(schemas.OneOrMoreEvents)
IN_JSON = (b"content-type", b"application/json")
LONGEST_ID = 256
LISTS = frozenset(
    field.alias or name
    for name, field in RecommendationQuery.model_fields.items()
    if list in (get_origin(kind) for kind in (field.annotation, *get_args(field.annotation)))
)
"""Parameters that may stand in a query several times; of others the last counts."""
SHORT = 256
"""Bytes of a query string that is remembered."""


class Express:
    """In front of the routes, behind what counts and bounds."""

    def __init__(self, api: FastAPI) -> None:
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            await self._post(scope, receive, send)
            return
        user_id = _user(scope)
        wanted = _wanted(scope["query_string"]) if user_id else None
        if user_id is None or wanted is None:
            await self._api(scope, receive, send)
            return
        scope["route"] = ROUTE
        await self._reply(200, self._recommend(user_id, wanted), scope, receive, send)

    async def _recommend(self, user_id: str, wanted: Wanted) -> bytes:
        parts = self._api.state.parts
        return await recall.recommend(parts, recall.of_user(parts, user_id, wanted))

    async def _write(self, body: schemas.EventBody | schemas.EventsBody) -> bytes:
        return b'{"seq":%d}' % await events.write(self._api.state.parts, body)

    async def _reply(
        self, status: int, making: Awaitable[bytes], scope: Scope, receive: Receive, send: Send
    ) -> None:
        """The body that is made, or why there is none."""
        try:
            body = await making
        except TandemError as error:
            await refusal(error, scope, self._api.state.told)(scope, receive, send)
        except Exception:
            await failure()(scope, receive, send)
            raise
        else:
            await _answer(send, status, body)

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in BODIES:
            await self._post_recalls(scope, receive, send)
        elif scope["path"] == EVENTS_ROUTE.path and IN_JSON in scope["headers"]:
            await self._post_events(scope, receive, send)
        else:
            await self._api(scope, receive, send)

    async def _post_events(self, scope: Scope, receive: Receive, send: Send) -> None:
        read = _Read(receive)
        try:
            body = EVENTS.validate_python(orjson.loads(await read.body()))
        except (ValueError, HTTPException):
            await self._api(scope, read.again, send)
            return
        scope["route"] = EVENTS_ROUTE
        await self._reply(201, self._write(body), scope, receive, send)

    async def _post_recalls(self, scope: Scope, receive: Receive, send: Send) -> None:
        """To the route, unless there is no room for what is asked: then its body is not read."""
        parts = self._api.state.parts
        scope["route"], batch = BODIES[scope["path"]]
        try:
            parts.gate.expect(parts.settings.max_recalls if batch else 1)
        except TandemError as error:
            await refusal(error, scope, self._api.state.told)(scope, receive, send)
        else:
            await self._api(scope, receive, send)


class _Read:
    """The messages of a body, for whoever has to read it once more."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: deque[Message] = deque()
        self._refused: HTTPException | None = None

    async def body(self) -> bytes:
        """Raises HTTPException for one that is too large; empty where the client is gone."""
        more = True
        while more:
            try:
                message = await self._receive()
            except HTTPException as error:
                self._refused = error
                raise
            self._messages.append(message)
            more = message.get("more_body", False)
        return b"".join(message.get("body", b"") for message in self._messages)

    async def again(self) -> Message:
        if self._messages:
            return self._messages.popleft()
        if self._refused:
            raise self._refused
        return await self._receive()


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _user(scope: Scope) -> str | None:
    """Whom a plain request asks for; None for any other request."""
    if scope["type"] != "http" or scope["method"] != "GET":
        return None
    user_id: str = scope["path"].removeprefix(PREFIX)
    if not 0 < len(user_id) <= LONGEST_ID or len(user_id) == len(scope["path"]):
        return None
    return None if any(name.startswith(b"x-tandem") for name, _ in scope["headers"]) else user_id


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
