"""What users did."""

import asyncio
import time
from concurrent.futures import Future
from typing import Annotated

from fastapi import APIRouter
from fastapi.responses import Response

from contract.journal import Entry
from service import schemas
from service.examples import EVENT
from service.routes.parts import (
    BODY,
    ERRORS,
    WRITE,
    Answered,
    Parts,
    Use,
    commit,
    count,
    json_response,
    limit,
)

router = APIRouter(prefix="/v1", tags=["items and events"], responses=ERRORS)


@router.post("/events", status_code=201, response_model=schemas.Written, responses=BODY | WRITE)
async def post_events(parts: Use, body: Annotated[schemas.OneOrMoreEvents, EVENT]) -> Response:
    """What users did: counts in the very next answer, as the bundle says of its kind."""
    return json_response({"seq": await commit(parts, _entries(parts, body))}, 201)


def write_then(
    parts: Parts, body: schemas.EventBody | schemas.EventsBody, answered: Answered
) -> None:
    """For who is no coroutine: they are durable when `answered` is called. Raises as the limits and
    the journal do."""
    entries, loop = _entries(parts, body), asyncio.get_running_loop()

    def acknowledge(written: Future[int]) -> None:
        if error := written.exception():
            answered(error if isinstance(error, Exception) else RuntimeError(str(error)))
        else:
            count(parts, entries)
            answered(b'{"seq":%d}' % written.result())

    # By the thread that has committed them.
    parts.journal.submit(entries).add_done_callback(
        lambda written: loop.call_soon_threadsafe(acknowledge, written)
    )


def _entries(parts: Parts, body: schemas.EventBody | schemas.EventsBody) -> list[Entry]:
    """Raises TooLarge."""
    events = body.events if isinstance(body, schemas.EventsBody) else [body]
    limit(parts.settings, "max_batch", "events", len(events))
    now = int(time.time())
    return [
        Entry("event", {"timestamp": now} | event.model_dump(exclude_none=True)) for event in events
    ]
