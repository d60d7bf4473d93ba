"""What the routes share: the parts they work with, limits, and how an answer is written.

Every route parses, calls the engine or the journal, and responds; nothing else. Answers are written
as bytes: the models in `schemas` document them, tests hold the two together.
"""

import asyncio
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from fastapi import Depends, Header, Path, Query, Request
from fastapi.responses import Response

from contract.errors import Forbidden, MalformedRequest, TooLarge
from contract.journal import Entry, GroupCommit
from service import schemas
from service.live import Live
from service.metrics import Metrics
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


def admin(
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
CONFLICT: dict[int | str, dict[str, Any]] = {
    409: {"model": schemas.Error, "description": "Someone else has written the item meanwhile."}
}
ADMIN: dict[int | str, dict[str, Any]] = {
    403: {"model": schemas.Error, "description": "The administration key is missing or wrong."},
    409: {"model": schemas.Error, "description": "Nothing to go back to."},
}


async def commit(parts: Parts, entries: Sequence[Entry], after: int | None = None) -> int:
    """Durable when this returns; the last seq. Raises Conflict where their items were written
    after seq `after`."""
    seq = await asyncio.wrap_future(parts.journal.submit(entries, after))
    parts.metrics.writes.labels(entries[0].kind).inc(len(entries))
    return seq


def limit_k(parts: Parts, k: int) -> None:
    if k > parts.settings.max_k:
        raise MalformedRequest(f"k: at most {parts.settings.max_k} (max_k), found {k}")


def limit(name: str, found: int, limit: int) -> None:
    if found > limit:
        raise TooLarge(f"{name}: at most {limit} in one request, found {found}; send fewer")


def json_response(body: object, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
