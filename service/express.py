"""The way of the common requests past FastAPI: recommendations by GET and POST, events by POST.

To take the parameters of a URL or a body apart costs FastAPI more time than the recall takes. Here
they are read by the same models and answered by the same functions as in the routes. What is not
plain goes to the route: whatever a model refuses, pinned variants, deadlines. So there is one
place that says what is wrong with a request, and OpenAPI describes what happens.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, NamedTuple, get_args, get_origin
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
from service.routes.parts import Parts
from service.routes.recall import Wanted
from service.schemas import RecommendationQuery


class Post(NamedTuple):
    """A POST that is answered here."""

    route: APIRoute
    body: TypeAdapter[Any]
    answer: Callable[[Parts, Any], Awaitable[bytes]]
    status: int


async def _of_user(parts: Parts, user_id: str, wanted: Wanted) -> bytes:
    return await recall.recommend(parts, recall.of_user(parts, user_id, wanted))


async def _of_body(parts: Parts, body: schemas.RecommendationRequest) -> bytes:
    return await recall.recommend(parts, recall.of_body(parts, body))


async def _write(parts: Parts, body: schemas.EventBody | schemas.EventsBody) -> bytes:
    return b'{"seq":%d}' % await events.write(parts, body)


def _route(endpoint: Callable[..., Any]) -> APIRoute:
    routes = (*recall.router.routes, *events.router.routes)
    (route,) = (r for r in routes if isinstance(r, APIRoute) and r.endpoint is endpoint)
    return route


PREFIX = "/v1/recommendations/"
OF_USER = _route(recall.get_recommendations)
ONE, BATCH = _route(recall.post_recommendations), _route(recall.post_batch)
RECALLS = {route.path: route for route in (ONE, BATCH)}
POSTS = {
    post.route.path: post
    for post in (
        Post(ONE, TypeAdapter(schemas.RecommendationRequest), _of_body, 200),
        Post(_route(events.post_events), TypeAdapter(schemas.OneOrMoreEvents), _write, 201),
    )
}
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
        method = scope.get("method")
        if method == "GET":
            await self._get(scope, receive, send)
        elif method == "POST":
            await self._post(scope, receive, send)
        else:
            await self._api(scope, receive, send)

    async def _get(self, scope: Scope, receive: Receive, send: Send) -> None:
        user_id = _user(scope)
        wanted = _wanted(scope["query_string"]) if user_id else None
        if user_id is None or wanted is None:
            await self._api(scope, receive, send)
            return
        scope["route"] = OF_USER
        parts = self._api.state.parts
        await self._reply(200, _of_user(parts, user_id, wanted), scope, receive, send)

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        parts = self._api.state.parts
        try:
            _expect(scope, parts)
        except TandemError as error:
            await refusal(error, scope, self._api.state.told)(scope, receive, send)
            return
        post, read = _plain_post(scope), _Read(receive)
        body = await _body(post, read) if post else None
        if post is None or body is None:
            await self._api(scope, read.again, send)
            return
        scope["route"] = post.route
        await self._reply(post.status, post.answer(parts, body), scope, receive, send)

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


def _expect(scope: Scope, parts: Parts) -> None:
    """Raises Overloaded where there is no room for the recalls of a body, before it is read."""
    route = RECALLS.get(scope["path"])
    if route:
        scope["route"] = route
        parts.gate.expect(parts.settings.max_recalls if route is BATCH else 1)


def _plain_post(scope: Scope) -> Post | None:
    """What a plain POST is; None for any other."""
    plain = IN_JSON in scope["headers"] and _usual(scope)
    return POSTS.get(scope["path"]) if plain else None


async def _body(post: Post, read: _Read) -> Any:
    """None for a body that the model refuses, or that does not come."""
    try:
        return post.body.validate_python(orjson.loads(await read.body()))
    except (ValueError, HTTPException):
        return None


def _user(scope: Scope) -> str | None:
    """Whom a plain GET asks for; None for any other."""
    user_id: str = scope["path"].removeprefix(PREFIX)
    if not 0 < len(user_id) <= LONGEST_ID or len(user_id) == len(scope["path"]):
        return None
    return user_id if _usual(scope) else None


def _usual(scope: Scope) -> bool:
    """Whether no header says how it is to be answered."""
    return not any(name.startswith(b"x-tandem") for name, _ in scope["headers"])


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
