"""Items, written and looked up online."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response

from contract.errors import Conflict
from contract.journal import Entry
from service import engine, schemas
from service.examples import ITEMS, PATCH
from service.known import known
from service.posted import check_items
from service.routes.parts import (
    CONFLICT,
    ERRORS,
    NOT_FOUND,
    Id,
    Parts,
    Use,
    commit,
    json_response,
    limit,
    limit_k,
)

router = APIRouter(prefix="/v1", tags=["items and events"], responses=ERRORS)

PATCH_TRIES = 10
"""Of a read, a change and a write that nobody came between."""


@router.post("/items", status_code=201, response_model=schemas.ItemsWritten)
async def post_items(parts: Use, body: Annotated[schemas.OneOrMoreItems, ITEMS]) -> Response:
    """Add or replace items, all or none: searchable in the next request of any worker."""
    items = body.items if isinstance(body, schemas.ItemsBody) else [body]
    limit("items", len(items), parts.settings.max_batch)
    bodies = [item.model_dump() for item in items]
    check_items(parts.live.state().snapshot, bodies)
    seq = await commit(parts, [Entry("item", one) for one in bodies])
    return json_response({"seq": seq, "items": [item.item_id for item in items]}, 201)


@router.get("/items/{item_id:path}", response_model=schemas.ItemKnown, responses=NOT_FOUND)
async def get_item(
    parts: Use,
    item_id: Id,
    neighbours: Annotated[int, Query(ge=0, description="How many of its neighbours.")] = 10,
) -> Response:
    """What the service knows of an item, where it came from, and what is nearest to it."""
    limit_k(parts, neighbours)
    state = parts.live.state()
    body: dict[str, Any] = {"item_id": item_id, "bundle": state.snapshot.version}
    body |= asdict(known(state, item_id))
    near = engine.similar(state, item_id, neighbours).items if neighbours else []
    return json_response(body | {"neighbours": near})


@router.patch(
    "/items/{item_id:path}", response_model=schemas.Written, responses=NOT_FOUND | CONFLICT
)
async def patch_item(
    parts: Use, item_id: Id, body: Annotated[schemas.ItemPatch, PATCH]
) -> Response:
    """Change the availability or some features of an item; what is not named stays."""
    for _ in range(PATCH_TRIES):
        entry = _patched(parts, item_id, body)
        try:
            return json_response({"seq": await commit(parts, [entry], after=parts.live.seq)})
        except Conflict as error:
            conflict = error
    raise conflict


def _patched(parts: Parts, item_id: str, body: schemas.ItemPatch) -> Entry:
    state = parts.live.state()
    found = known(state, item_id)
    if body.if_seq is not None and body.if_seq != (found.seq or 0):
        raise Conflict(
            f"item '{item_id}': its last write is {found.seq or 0}, if_seq is {body.if_seq}; "
            "get it again"
        )
    changed = {"item_id": item_id} | found.patched(body.features, body.available)
    check_items(state.snapshot, [changed])
    return Entry("item", changed)


@router.delete("/items/{item_id:path}", response_model=schemas.Written, responses=NOT_FOUND)
async def delete_item(parts: Use, item_id: Id) -> Response:
    """Remove an item from every path: once this is answered it is never returned again."""
    parts.live.state().overlay.require(item_id)
    return json_response({"seq": await commit(parts, [Entry("delete", {"item_id": item_id})])})
