"""Items, written and looked up online."""

from collections import Counter
from typing import Annotated, Any

import orjson
from fastapi import APIRouter
from fastapi.responses import Response

from contract.errors import MalformedRequest
from contract.journal import Entry
from service import schemas
from service.examples import ITEMS
from service.overlay import encode_item
from service.routes.parts import ERRORS, NOT_FOUND, Id, Use, commit, json_response, limit

router = APIRouter(prefix="/v1", tags=["items and events"], responses=ERRORS)


@router.post("/items", status_code=201, response_model=schemas.ItemsWritten)
async def post_items(parts: Use, body: Annotated[schemas.OneOrMoreItems, ITEMS]) -> Response:
    """Add or replace items, all or none: searchable in the next request of any worker."""
    items = body.items if isinstance(body, schemas.ItemsBody) else [body]
    limit("items", len(items), parts.settings.max_batch)
    ids = [item.item_id for item in items]
    if len(set(ids)) < len(ids):
        twice, times = Counter(ids).most_common(1)[0]
        raise MalformedRequest(f"items: '{twice}' stands {times} times; send every item once")
    bodies = [item.model_dump() for item in items]
    snapshot = parts.live.state().snapshot
    for one in bodies:
        encode_item(snapshot, one)
    seq = await commit(parts, [Entry("item", one) for one in bodies])
    return json_response({"seq": seq, "items": ids}, 201)


@router.get("/items/{item_id:path}", response_model=schemas.ItemKnown, responses=NOT_FOUND)
async def get_item(parts: Use, item_id: Id) -> Response:
    """What the service knows of an item, and where it came from."""
    state = parts.live.state()
    posted = state.overlay.items.get(item_id)
    known: dict[str, Any] = {"item_id": item_id, "bundle": state.snapshot.version}
    if posted:
        known |= {"features": posted.features, "available": posted.available}
        return json_response(known | {"source": "overlay", "seq": posted.seq})
    row = state.overlay.require(item_id)
    features = orjson.loads(state.snapshot.bundle.attributes.raw(row))
    available = not state.overlay.dead[row]
    return json_response(
        known | {"features": features, "available": available, "source": "bundle", "seq": None}
    )


@router.delete("/items/{item_id:path}", response_model=schemas.Written, responses=NOT_FOUND)
async def delete_item(parts: Use, item_id: Id) -> Response:
    """Remove an item from every path: once this is answered it is never returned again."""
    parts.live.state().overlay.require(item_id)
    return json_response({"seq": await commit(parts, [Entry("delete", {"item_id": item_id})])})
