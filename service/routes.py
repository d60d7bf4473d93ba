"""The HTTP API. Every route parses, calls the engine or the journal, and responds; nothing else.

Answers are written as bytes: the models in `schemas` document them, tests hold the two together.
"""

import asyncio
import hmac
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.responses import Response

from contract.errors import BundleError, Forbidden, MalformedRequest, TooLarge
from contract.journal import Entry, GroupCommit
from service import engine, schemas
from service.examples import EVENT, ITEMS, RECOMMENDATION
from service.live import Live
from service.metrics import Metrics, exposition
from service.overlay import encode_item
from service.settings import Settings
from service.swap import Swapper


@dataclass(frozen=True, eq=False)
class Parts:
    """What the routes work with; one per application, wired in `app`."""

    settings: Settings
    live: Live
    journal: GroupCommit
    swapper: Swapper
    metrics: Metrics


def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


def _admin(
    parts: Annotated[Parts, Depends(_parts)],
    authorization: Annotated[str, Header(description="Bearer KEY")] = "",
) -> None:
    key = parts.settings.admin_key
    if key is None:
        raise Forbidden("administration is off; start the service with TANDEM_ADMIN_KEY")
    given = authorization.removeprefix("Bearer ").encode()
    if not hmac.compare_digest(given, key.get_secret_value().encode()):
        raise Forbidden("the administration key is missing or wrong: 'Authorization: Bearer KEY'")


Use = Annotated[Parts, Depends(_parts)]
K = Annotated[int, Query(ge=1, description="How many items.")]
Id = Annotated[str, Path(min_length=1, max_length=256)]

ERRORS: dict[int | str, dict[str, Any]] = {
    422: {"model": schemas.Error, "description": "The request is not what the API says."},
    503: {"model": schemas.Error, "description": "No bundle is loaded yet."},
}
NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: {"model": schemas.Error, "description": "No such item."}
}
ADMIN: dict[int | str, dict[str, Any]] = {
    403: {"model": schemas.Error, "description": "The administration key is missing or wrong."},
    409: {"model": schemas.Error, "description": "Nothing to go back to."},
}

recall = APIRouter(prefix="/v1", tags=["recall"], responses=ERRORS)
write = APIRouter(prefix="/v1", tags=["items and events"], responses=ERRORS)
bundle = APIRouter(prefix="/v1/bundle", tags=["bundle"], responses=ERRORS)
health = APIRouter(tags=["operation"])


@recall.get("/recommendations/{user_id:path}", response_model=schemas.Recommendations)
async def get_recommendations(
    parts: Use,
    user_id: Id,
    k: K = 50,
    exclude: Annotated[list[str], Query(description="Item ids to leave out; repeat it.")] = [],  # noqa: B006
    category: Annotated[str | None, Query(description="Value of a category feature.")] = None,
    min_seq: Annotated[int, Query(ge=0, description="Answer from this journal position on.")] = 0,
) -> Response:
    """The k best items for a user, without those they have touched."""
    wanted = engine.Request(k=k, user_id=user_id, exclude=exclude, category=category)
    return _recommend(parts, wanted, min_seq)


@recall.post("/recommendations", response_model=schemas.Recommendations)
async def post_recommendations(
    parts: Use, body: Annotated[schemas.RecommendationRequest, RECOMMENDATION]
) -> Response:
    """The same with everything in the body: sessions, unknown users, a profile."""
    wanted = engine.Request(
        k=body.k,
        user_id=body.user_id,
        history=body.history,
        features=body.features,
        exclude=body.exclude,
        category=body.category,
    )
    return _recommend(parts, wanted, body.min_seq)


@recall.get(
    "/items/{item_id:path}/similar", response_model=schemas.SimilarItems, responses=NOT_FOUND
)
async def get_similar(parts: Use, item_id: Id, k: K = 50) -> Response:
    """The k items nearest to an item."""
    _limit_k(parts, k)
    state = parts.live.state()
    answer = engine.similar(state, item_id, k)
    return _json(
        {
            "item_id": item_id,
            "items": answer.items,
            "bundle": state.snapshot.version,
            "seq": parts.live.seq,
        }
    )


@write.post("/items", status_code=201, response_model=schemas.ItemsWritten)
async def post_items(parts: Use, body: Annotated[schemas.OneOrMoreItems, ITEMS]) -> Response:
    """Add or replace items, all or none: searchable in the next request of any worker."""
    items = body.items if isinstance(body, schemas.ItemsBody) else [body]
    _limit("items", len(items), parts.settings.max_batch)
    ids = [item.item_id for item in items]
    if len(set(ids)) < len(ids):
        twice, times = Counter(ids).most_common(1)[0]
        raise MalformedRequest(f"items: '{twice}' stands {times} times; send every item once")
    bodies = [item.model_dump() for item in items]
    snapshot = parts.live.state().snapshot
    for one in bodies:
        encode_item(snapshot, one)
    seq = await _commit(parts, [Entry("item", one) for one in bodies])
    return _json({"seq": seq, "items": ids}, 201)


@write.get("/items/{item_id:path}", response_model=schemas.ItemKnown, responses=NOT_FOUND)
async def get_item(parts: Use, item_id: Id) -> Response:
    """What the service knows of an item, and where it came from."""
    state = parts.live.state()
    posted = state.overlay.items.get(item_id)
    known: dict[str, Any] = {"item_id": item_id, "bundle": state.snapshot.version}
    if posted:
        known |= {"features": posted.features, "available": posted.available}
        return _json(known | {"source": "overlay", "seq": posted.seq})
    row = state.overlay.require(item_id)
    features = orjson.loads(state.snapshot.bundle.attributes.raw(row))
    return _json(known | {"features": features, "available": True, "source": "bundle", "seq": None})


@write.delete("/items/{item_id:path}", response_model=schemas.Written, responses=NOT_FOUND)
async def delete_item(parts: Use, item_id: Id) -> Response:
    """Remove an item from every path: once this is answered it is never returned again."""
    parts.live.state().overlay.require(item_id)
    return _json({"seq": await _commit(parts, [Entry("delete", {"item_id": item_id})])})


@write.post("/events", status_code=201, response_model=schemas.Written)
async def post_events(parts: Use, body: Annotated[schemas.OneOrMoreEvents, EVENT]) -> Response:
    """What users did: counts as history and as seen in the very next answer."""
    events = body.events if isinstance(body, schemas.EventsBody) else [body]
    _limit("events", len(events), parts.settings.max_batch)
    now = int(time.time())
    entries = [
        Entry("event", {"timestamp": now} | event.model_dump(exclude_none=True)) for event in events
    ]
    return _json({"seq": await _commit(parts, entries)}, 201)


@bundle.get("", response_model=schemas.BundleKnown)
async def get_bundle(parts: Use) -> Response:
    """The bundle that is served, and the one that was refused, if any."""
    live = parts.live
    state, loaded_at, refusal = live.state(), live.loaded_at, live.refusal
    manifest = state.snapshot.bundle.manifest
    known = {
        "version": manifest.version,
        "model": manifest.model,
        "backend": manifest.index.backend,
        "channel": parts.settings.channel,
        "seq": live.seq,
        "overlay_items": len(state.overlay),
        "loaded_at": loaded_at,
        "created_at": manifest.created_at,
        "items": manifest.dims.items,
        "users": manifest.dims.users,
        "metrics": manifest.metrics,
        "forced": manifest.forced,
        "refused": refusal,
    }
    return _json(known)


@bundle.post("/reload", response_model=schemas.Reloaded, dependencies=[Depends(_admin)])
async def reload(parts: Use) -> Response:
    """Look at the channel now; also tries a refused bundle again."""
    return _served(parts, await parts.swapper.check(retry=True))


@bundle.post(
    "/rollback", response_model=schemas.Reloaded, dependencies=[Depends(_admin)], responses=ADMIN
)
async def rollback(parts: Use) -> Response:
    """Point the channel at what it pointed at before; every worker follows."""
    return _served(parts, await parts.swapper.rollback())


@health.get("/healthz")
async def healthz() -> Response:
    """The process answers."""
    return _json({"status": "ok"})


@health.get("/readyz", responses={503: ERRORS[503]})
async def readyz(parts: Use) -> Response:
    """A bundle is loaded."""
    return _json({"status": "ready", "bundle": parts.live.state().snapshot.version})


@health.get("/metrics", response_class=Response)
async def metrics() -> Response:
    """The sums over all workers, for Prometheus."""
    text, content_type = exposition()
    return Response(text, media_type=content_type)


def _recommend(parts: Parts, wanted: engine.Request, min_seq: int) -> Response:
    _limit_k(parts, wanted.k)
    _limit("history", len(wanted.history or ()), parts.settings.max_history)
    _limit("exclude", len(wanted.exclude), parts.settings.max_exclude)
    state = parts.live.state(min_seq)
    answer = engine.recall(state, wanted)
    _measure(parts.metrics, answer)
    return _json(
        {
            "user_id": wanted.user_id,
            "items": answer.items,
            "source": answer.source,
            "bundle": state.snapshot.version,
            "variant": parts.settings.channel,
            "seq": parts.live.seq,
        }
    )


def _measure(metrics: Metrics, answer: engine.Answer) -> None:
    stages = answer.stages
    metrics.stage_seconds.labels("encode").observe(stages.encode)
    metrics.stage_seconds.labels("tower").observe(stages.tower)
    metrics.stage_seconds.labels("search").observe(stages.search)
    metrics.stage_seconds.labels("merge").observe(stages.merge)
    metrics.recall_seconds.observe(stages.total)
    metrics.answers.labels(answer.source).inc()
    if answer.widened:
        metrics.widened.inc()


async def _commit(parts: Parts, entries: Sequence[Entry]) -> int:
    """Durable when this returns; the last seq."""
    seq = await asyncio.wrap_future(parts.journal.submit(entries))
    parts.metrics.writes.labels(entries[0].kind).inc(len(entries))
    return seq


def _served(parts: Parts, swapped: bool) -> Response:
    refusal = parts.live.refusal
    if refusal:
        raise BundleError(refusal.reason)
    return _json({"version": parts.live.state().snapshot.version, "swapped": swapped})


def _limit_k(parts: Parts, k: int) -> None:
    if k > parts.settings.max_k:
        raise MalformedRequest(f"k: at most {parts.settings.max_k} (max_k), found {k}")


def _limit(name: str, found: int, limit: int) -> None:
    if found > limit:
        raise TooLarge(f"{name}: at most {limit} in one request, found {found}; send fewer")


def _json(body: object, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
