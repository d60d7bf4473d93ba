"""What users did."""

import time
from typing import Annotated

from fastapi import APIRouter
from fastapi.responses import Response

from contract.journal import Entry
from service import schemas
from service.examples import EVENT
from service.routes.parts import BODY, ERRORS, WRITE, Parts, Use, commit, json_response, limit

router = APIRouter(prefix="/v1", tags=["items and events"], responses=ERRORS)


@router.post("/events", status_code=201, response_model=schemas.Written, responses=BODY | WRITE)
async def post_events(parts: Use, body: Annotated[schemas.OneOrMoreEvents, EVENT]) -> Response:
    """What users did: counts in the very next answer, as the bundle says of its kind."""
    return json_response({"seq": await write(parts, body)}, 201)


async def write(parts: Parts, body: schemas.EventBody | schemas.EventsBody) -> int:
    """Durable when this returns; the last seq. Raises as the limits and the journal do."""
    events = body.events if isinstance(body, schemas.EventsBody) else [body]
    limit(parts.settings, "max_batch", "events", len(events))
    now = int(time.time())
    entries = [
        Entry("event", {"timestamp": now} | event.model_dump(exclude_none=True)) for event in events
    ]
    return await commit(parts, entries)
