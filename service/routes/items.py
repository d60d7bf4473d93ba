"""Items, written and looked up online."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response

from contract.errors import BadItems, Conflict, UnknownItem
from contract.journal import Entry
from service import engine, schemas
from service.examples import ITEMS, PATCH
from service.known import known
from service.listed import encoded_items
from service.posted import check_items
from service.routes.parts import (
    BODY,
    CONFLICT,
    ERRORS,
    NOT_FOUND,
    WRITE,
    Id,
    Parts,
    Shown,
    Use,
    commit,
    json_response,
    latest,
    limit,
    limit_features,
    limit_k,
)

router = APIRouter(prefix="/v1", tags=["items and events"], responses=ERRORS)

PATCH_TRIES = 100
"""Of a read, a change and a write that nobody came between."""


@router.post("/items", status_code=201, response_model=schemas.ItemsWritten, responses=BODY | WRITE)
async def post_items(parts: Use, body: Annotated[schemas.OneOrMoreItems, ITEMS]) -> Response:
    """Add or replace items, all or none: searchable in the next request of any worker."""
    items = body.items if isinstance(body, schemas.ItemsBody) else [body]
    limit(parts.settings, "max_batch", "items", len(items))
    for item in items:
        limit_features(parts.settings, f"item '{item.item_id}': ", item.features)
    bodies = [item.model_dump() for item in items]
    _require_encodable(parts, bodies)
    seq = await commit(parts, [Entry("item", one) for one in bodies])
    return json_response({"seq": seq, "items": [item.item_id for item in items]}, 201)


@router.get("/items/{item_id:id}", response_model=schemas.ItemKnown, responses=NOT_FOUND)
async def get_item(
    parts: Use,
    variant: Shown,
    item_id: Id,
    neighbours: Annotated[int, Query(ge=0, description="How many of its neighbours.")] = 10,
) -> Response:
    """What the service knows of an item, where it came from, and what is nearest to it."""
    limit_k(parts.settings, neighbours)
    state = variant.live.state()
    body: dict[str, Any] = {"item_id": item_id, "bundle": state.snapshot.version}
    body |= asdict(known(state, item_id))
    near = [engine.similar(state, item_id, neighbours)] if neighbours else []
    items = encoded_items(near) or [()]
    return json_response(body | {"neighbours": items[0]})


@router.patch(
    "/items/{item_id:id}",
    response_model=schemas.Written,
    responses=NOT_FOUND | CONFLICT | BODY | WRITE,
)
async def patch_item(
    parts: Use, item_id: Id, body: Annotated[schemas.ItemPatch, PATCH]
) -> Response:
    """Change the availability or some features of an item; what is not named stays."""
    limit_features(parts.settings, f"item '{item_id}': ", body.features)
    await _require_known(parts, item_id)
    for _ in range(PATCH_TRIES):
        entry, seq = _patched(parts, item_id, body)
        try:
            return json_response({"seq": await commit(parts, [entry], after=seq)})
        except Conflict as error:
            conflict = error
    raise conflict


def _patched(parts: Parts, item_id: str, body: schemas.ItemPatch) -> tuple[Entry, int]:
    """The item as it is to be, and the journal position that it was read at."""
    live = parts.variants.main.live
    # Both at once: whoever asks for the state again moves the position on.
    found, seq = known(live.state(), item_id), live.seq
    if body.if_seq is not None and body.if_seq != (found.seq or 0):
        raise Conflict(
            f"item '{item_id}': its last write is {found.seq or 0}, if_seq is {body.if_seq}; "
            "get it again"
        )
    changed = {"item_id": item_id} | found.patched(body.features, body.available)
    _require_encodable(parts, [changed])
    return Entry("item", changed), seq


@router.delete("/items/{item_id:id}", response_model=schemas.Written, responses=NOT_FOUND | WRITE)
async def delete_item(parts: Use, item_id: Id) -> Response:
    """Remove an item from every path: once this is answered it is never returned again."""
    await _require_known(parts, item_id)
    return json_response({"seq": await commit(parts, [Entry("delete", {"item_id": item_id})])})


def _require_encodable(parts: Parts, bodies: Sequence[Mapping[str, Any]]) -> None:
    """Raises BadItems where any variant could not show an item: what is acknowledged is found by
    all users."""
    for variant in parts.variants.loaded():
        try:
            check_items(variant.live.state().snapshot, bodies)
        except BadItems as error:
            if variant is parts.variants.main:
                raise
            raise BadItems(f"{error} (variant '{variant.name}')", error.rows) from error


async def _require_known(parts: Parts, item_id: str) -> None:
    """Raises UnknownItem where no variant has the item. It may just have been posted elsewhere."""
    if not _is_known(parts, item_id):
        await latest(parts)
        if not _is_known(parts, item_id):
            raise UnknownItem(f"item '{item_id}': neither in the bundle nor posted since")


def _is_known(parts: Parts, item_id: str) -> bool:
    loaded = parts.variants.loaded()
    return any(variant.live.state().overlay.knows(item_id) for variant in loaded)
