"""In front of the routes: recalls for which there is no room are refused before their bodies are
read, which costs more than to refuse them."""

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from contract.errors import TandemError
from service.errors import refusal
from service.routes import recall
from service.routes.parts import route_of

ONE = route_of(recall.router, recall.post_recommendations)
BATCH = route_of(recall.router, recall.post_batch)
RECALLS = {route.path: route for route in (ONE, BATCH)}


class Expect:
    def __init__(self, api: FastAPI) -> None:
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = RECALLS.get(scope["path"]) if scope.get("method") == "POST" else None
        if route:
            scope["route"], parts = route, self._api.state.parts
            try:
                parts.gate.expect(parts.settings.max_recalls if route is BATCH else 1)
            except TandemError as error:
                await refusal(error, scope, self._api.state.told)(scope, receive, send)
                return
        await self._api(scope, receive, send)
