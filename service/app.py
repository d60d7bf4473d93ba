"""The application: the one place that wires the parts together."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from contract.errors import LISTED, MalformedRequest, TandemError, TooLarge
from contract.journal import GroupCommit, open_journal
from contract.store import open_store
from service import console, schemas
from service.admission import Gate
from service.cache import Cache
from service.errors import error_answer, failure, refusal
from service.expect import Expect
from service.front import Front
from service.live import Live
from service.logs import configure
from service.metrics import Metrics
from service.outward import outward
from service.recheck import Recheck
from service.rounds import Rounds
from service.routes import ROUTERS, recall
from service.routes.parts import KEY, Parts
from service.settings import Settings, read_settings
from service.swap import Swapper
from service.towers import FEW
from service.variants import Variant, Variants
from service.wire import Plain

log = logging.getLogger("tandem")

HTTP_CODES = {
    400: MalformedRequest.code,
    404: "no_such_route",
    405: "method_not_allowed",
    413: TooLarge.code,
}

DESCRIPTION = "Recall (candidate retrieval) for recommender systems: user in, k items out."


def create_app(slot: int) -> tuple[ASGIApp, Plain]:
    """The application of the worker in this slot, and what its connections answer past it; settings
    come from the environment."""
    settings = read_settings()
    configure()
    metrics = Metrics(CollectorRegistry(), slot, settings.runtime_directory())
    api = create_api(settings, metrics)
    front = Front(Expect(api), settings, metrics, str(slot))
    return front, Plain(front, api)


def create_api(settings: Settings, metrics: Metrics) -> FastAPI:
    api = FastAPI(
        title="Tandem",
        description=DESCRIPTION,
        lifespan=_lifespan(settings, metrics),
        redoc_url=None,
    )
    for router in (*ROUTERS, console.router):
        api.include_router(router)
    api.add_exception_handler(TandemError, _on_tandem_error)
    api.add_exception_handler(RequestValidationError, _on_malformed)
    api.add_exception_handler(HTTPException, _on_http_error)
    api.add_exception_handler(Exception, _on_bug)
    api.state.told = outward(settings)
    api.openapi = lambda: _documentation(api)  # type: ignore[method-assign]
    return api


def _documentation(api: FastAPI) -> dict[str, Any]:
    """Says that a request may carry a key; which ones need it is up to the settings."""
    if api.openapi_schema is None:
        api.openapi_schema = FastAPI.openapi(api)
        api.openapi_schema["components"]["securitySchemes"] = {
            KEY: {"type": "http", "scheme": "bearer"}
        }
        api.openapi_schema["security"] = [{}, {KEY: []}]
    return api.openapi_schema


def _lifespan(settings: Settings, metrics: Metrics) -> Any:
    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        with _parts(settings, metrics) as parts:
            api.state.parts = parts
            for variant in parts.variants:
                await variant.swapper.follow()
            # What is here now stays: the collector need not walk it again and again.
            gc.collect()
            gc.freeze()
            gc.enable()
            watching = [
                asyncio.create_task(variant.swapper.watch(settings.watch_seconds))
                for variant in parts.variants
            ]
            try:
                yield
            finally:
                for task in watching:
                    task.cancel()

    return lifespan


@contextmanager
def _parts(settings: Settings, metrics: Metrics) -> Iterator[Parts]:
    uri = settings.journal_uri()
    store = open_store(settings.store)
    with ExitStack() as stack:
        journal = GroupCommit(stack.enter_context(closing(open_journal(uri))))
        stack.callback(journal.close)
        table = {}
        for name in settings.channels.shares:
            followed = stack.enter_context(closing(open_journal(uri)))
            live = Live(name, followed, journal, metrics)
            table[name] = Variant(live, Swapper(store, settings, live, uri, metrics))
        yield Parts(
            settings,
            Variants(settings.channels, table),
            journal,
            Gate(settings.max_admitted, metrics),
            Cache(settings.cache_entries, metrics),
            stack.enter_context(Recheck.running(settings.recheck_share, metrics)),
            metrics,
            Rounds(recall.answer_round, FEW),
        )


async def _on_tandem_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, TandemError)
    return refusal(error, request.scope, request.app.state.told)


async def _on_malformed(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [(_field(e), _problem(request, e)) for e in error.errors()]
    # Of the kinds that a value may be of, the one that got furthest was meant.
    within = {field.rpartition(".")[0] for field, _ in found}
    fields = [{"field": f, "problem": problem} for f, problem in found if f not in within]
    message = f"{fields[0]['field']}: {fields[0]['problem']}"
    listed, count = fields[:LISTED], len(fields)
    return error_answer(422, MalformedRequest.code, message, fields=listed, count=count)


def _field(error: Mapping[str, Any]) -> str:
    """Without the names of what it might have been, which come behind the body and behind the
    position in a list; a name that is not known there is the client's own."""
    location: Sequence[str | int] = error["loc"]
    own = len(location) - (error["type"] == "extra_forbidden")
    return ".".join(
        str(part)
        for at, part in enumerate(location)
        if at >= own or part not in schemas.ALTERNATIVES or not _may_vary(location[at - 1])
    )


def _may_vary(place: str | int) -> bool:
    return place == "body" or isinstance(place, int)


def _problem(request: Request, error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return f"not JSON: {error['ctx']['error']}"
    if error["loc"][0] == "body" and "json" not in request.headers.get("content-type", ""):
        return "expected JSON; send it with 'Content-Type: application/json'"
    return str(error["msg"])


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = HTTP_CODES.get(error.status_code, "http_error")
    message = f"{request.method} {request.url.path}: {error.detail}"
    response = error_answer(error.status_code, code, message)
    response.headers.update(error.headers or {})
    return response


async def _on_bug(request: Request, error: Exception) -> Response:
    return failure()
