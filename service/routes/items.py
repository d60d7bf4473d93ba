"""Items, written and looked up online."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any

import orjson
from fastapi import APIRouter
from fastapi.responses import Response

from contract.errors import FeatureError, MalformedRequest, UnknownItem
from contract.journal import Entry
from service import schemas
from service.examples import ITEMS
from service.overlay import encode_item
from service.routes.parts import (
    BODY,
    ERRORS,
    NOT_FOUND,
    WRITE,
    Id,
    Parts,
    Shown,
    Use,
    commit,
    json_response,
    limit,
    limit_features,
)

router = APIRouter(prefix="/v1", tags=["items and events"], responses=ERRORS)


@router.post("/items", status_code=201, response_model=schemas.ItemsWritten, responses=BODY | WRITE)
async def post_items(parts: Use, body: Annotated[schemas.OneOrMoreItems, ITEMS]) -> Response:
    """Add or replace items, all or none: searchable in the next request of any worker."""
    items = body.items if isinstance(body, schemas.ItemsBody) else [body]
    limit(parts.settings, "max_batch", "items", len(items))
    ids = [item.item_id for item in items]
    if len(set(ids)) < len(ids):
        twice, times = Counter(ids).most_common(1)[0]
        raise MalformedRequest(f"items: '{twice}' stands {times} times; send every item once")
    for item in items:
        limit_features(parts.settings, f"item '{item.item_id}': ", item.features)
    bodies = [item.model_dump() for item in items]
    _require_encodable(parts, bodies)
    seq = await commit(parts, [Entry("item", one) for one in bodies])
    return json_response({"seq": seq, "items": ids}, 201)


@router.get("/items/{item_id:id}", response_model=schemas.ItemKnown, responses=NOT_FOUND)
async def get_item(variant: Shown, item_id: Id) -> Response:
    """What the service knows of an item, and where it came from."""
    state = variant.live.state()
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


@router.delete("/items/{item_id:id}", response_model=schemas.Written, responses=NOT_FOUND | WRITE)
async def delete_item(parts: Use, item_id: Id) -> Response:
    """Remove an item from every path: once this is answered it is never returned again."""
    _require_known(parts, item_id)
    return json_response({"seq": await commit(parts, [Entry("delete", {"item_id": item_id})])})


def _require_encodable(parts: Parts, bodies: Sequence[Mapping[str, Any]]) -> None:
    """Raises FeatureError where any variant could not show an item: what is acknowledged is found
    by all users."""
    for variant in parts.variants.loaded():
        snapshot = variant.live.state().snapshot
        try:
            for one in bodies:
                encode_item(snapshot, one)
        except FeatureError as error:
            if variant is parts.variants.main:
                raise
            raise FeatureError(f"{error} (variant '{variant.name}')") from error


def _require_known(parts: Parts, item_id: str) -> None:
    """Raises UnknownItem where no variant has the item."""
    *others, last = parts.variants.loaded()
    for variant in others:
        with suppress(UnknownItem):
            variant.live.state().overlay.require(item_id)
            return
    last.live.state().overlay.require(item_id)
