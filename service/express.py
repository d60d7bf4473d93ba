"""The way of the common POSTs past FastAPI: recommendations and events.

To take a body apart costs FastAPI more time than the recall takes. Here it is read by the same
models and answered by the same functions as in the routes. What is not plain goes to the route, as
in `service.wire`, the way of the common GET.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import orjson
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from contract.errors import TandemError
from service import schemas
from service.errors import failure, refusal
from service.routes import events, recall
from service.routes.parts import STEERING, Parts, route_of


class Post(NamedTuple):
    """A POST that is answered here."""

    route: APIRoute
    body: TypeAdapter[Any]
    answer: Callable[[Parts, Any], Awaitable[bytes]]
    status: int


async def _of_body(parts: Parts, body: schemas.RecommendationRequest) -> bytes:
    return await recall.recommend(parts, recall.of_body(parts, body))


async def _write(parts: Parts, body: schemas.EventBody | schemas.EventsBody) -> bytes:
    return b'{"seq":%d}' % await events.write(parts, body)


ONE = route_of(recall.router, recall.post_recommendations)
BATCH = route_of(recall.router, recall.post_batch)
EVENTS = route_of(events.router, events.post_events)
RECALLS = {route.path: route for route in (ONE, BATCH)}
POSTS = {
    post.route.path: post
    for post in (
        Post(ONE, TypeAdapter(schemas.RecommendationRequest), _of_body, 200),
        Post(EVENTS, TypeAdapter(schemas.OneOrMoreEvents), _write, 201),
    )
}
IN_JSON = (b"content-type", b"application/json")


class Express:
    """In front of the routes, behind what counts and bounds."""

    def __init__(self, api: FastAPI) -> None:
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") == "POST":
            await self._post(scope, receive, send)
        else:
            await self._api(scope, receive, send)

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


def _usual(scope: Scope) -> bool:
    """Whether no header says how it is to be answered."""
    return STEERING.isdisjoint(name for name, _ in scope["headers"])
