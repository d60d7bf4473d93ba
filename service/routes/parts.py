"""What the routes share: the parts they work with, limits, and how an answer is written.

Every route parses, calls the engine or the journal, and responds; nothing else. Answers are written
as bytes: the models in `schemas` document them, tests hold the two together.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.convertors import PathConvertor, register_url_convertor

from contract.errors import MalformedRequest, TooLarge
from contract.journal import Entry, GroupCommit
from service import schemas
from service.admission import Gate
from service.cache import Cache
from service.metrics import Metrics
from service.recheck import Recheck
from service.rounds import Rounds
from service.settings import Settings
from service.variants import Variant, Variants

ARRIVED = "tandem.arrived"
"""In the scope of a request: when it arrived, by `perf_counter`."""

LOOKS, LOOK_SECONDS = 200, 0.005
"""At news that are on their way."""
MAX_VALUES = 10_000
"""Of one list in a feature: as many as there are characters in a text that may hold them."""

JSON = "application/json"
KEY = "key"
"""What a key is called in the documentation of the API."""


Answered = Callable[[bytes | Exception], None]
"""Is called once, by the event loop, with an answer or why there is none. It does not raise."""
STEERING = frozenset((b"x-tandem-variant", b"x-tandem-deadline"))
"""Headers that say how a request is to be answered."""


class IdConvertor(PathConvertor):
    """Any text, like `path`, which has no line breaks though ids may."""

    regex = "(?s:.*)"


register_url_convertor("id", IdConvertor())


@dataclass(frozen=True, eq=False)
class Parts:
    """What the routes work with; one per application, wired in `app`."""

    settings: Settings
    variants: Variants
    journal: GroupCommit
    gate: Gate
    cache: Cache
    recheck: Recheck
    metrics: Metrics
    rounds: Rounds[Any, bytes]


# These are coroutines because FastAPI runs plain functions in threads, two hops for each request.


async def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


Use = Annotated[Parts, Depends(_parts)]


async def _pinned(
    parts: Use,
    variant: Annotated[
        str | None,
        Header(alias="X-Tandem-Variant", description="Answer by this variant, whoever asks."),
    ] = None,
) -> Variant | None:
    return parts.variants.named(variant) if variant is not None else None


async def _shown(parts: Use, pinned: Annotated[Variant | None, Depends(_pinned)]) -> Variant:
    return pinned or parts.variants.main


async def _administered(
    parts: Use,
    variant: Annotated[
        str | None, Query(description="Which variant; the main one by default.")
    ] = None,
) -> Variant:
    return parts.variants.named(variant) if variant is not None else parts.variants.main


async def _due(
    request: Request,
    milliseconds: Annotated[
        int | None,
        Header(
            alias="X-Tandem-Deadline",
            ge=1,
            le=3_600_000,
            description="Milliseconds from the arrival after which the answer is of no use: work "
            "that has not begun by then is refused.",
        ),
    ] = None,
) -> float | None:
    arrived: float = request.scope[ARRIVED]
    return arrived + milliseconds / 1000 if milliseconds is not None else None


Pinned = Annotated[Variant | None, Depends(_pinned)]
"""The variant that the request names in its header."""
Shown = Annotated[Variant, Depends(_shown)]
"""The pinned variant, else the main one."""
Administered = Annotated[Variant, Depends(_administered)]
"""The variant that the query names, else the main one."""
Due = Annotated[float | None, Depends(_due)]
"""When the answer is of no use any more, by `perf_counter`."""
K = Annotated[int, Query(ge=1, description="How many items.")]
Id = Annotated[str, Path(min_length=1, max_length=256)]


def route_of(router: APIRouter, endpoint: Callable[..., Any]) -> APIRoute:
    routes = (route for route in router.routes if isinstance(route, APIRoute))
    return next(route for route in routes if route.endpoint is endpoint)


def errors(**statuses: str) -> dict[int | str, dict[str, Any]]:
    """Error answers for the documentation: `_404="No such item."`."""
    return {
        int(status[1:]): {"model": schemas.Error, "description": description}
        for status, description in statuses.items()
    }


KEYED: dict[str, Any] = {"security": [{KEY: []}]}
"""In the documentation of a route that is never open."""
ERRORS = errors(
    _401="The key is missing or unknown.",
    _403="The key does not open this.",
    _422="The request is not what the API says.",
    _503="No bundle is loaded yet, or the journal or the index cannot be reached.",
)
TOO_LARGE = errors(_413="Over a limit, which is named.")
BODY = TOO_LARGE | errors(_400="The body cannot be read.")
NOT_FOUND = errors(_404="No such item.")
RECALL = errors(_429="No capacity now; try again later.")
NOT_YET = errors(_409="`min_seq` lies ahead of the journal.")
CONFLICT = errors(_409="Someone else has written the item meanwhile.")
WRITE = errors(_429="Too many writes wait for the disk; try again later.")
ADMIN = errors(
    _403="The key does not open this, or administration is off.",
    _409="The bundle was refused, or there is nothing to go back to.",
)


async def commit(parts: Parts, entries: Sequence[Entry], after: int | None = None) -> int:
    """Durable when this returns; the last seq. Raises Conflict where their items were written
    after seq `after`."""
    seq = await asyncio.wrap_future(parts.journal.submit(entries, after))
    count(parts, entries)
    return seq


async def latest(parts: Parts) -> None:
    """All variants have what anyone has written until now, on other machines too, or time is up."""
    seq = await asyncio.to_thread(parts.journal.last_seq)
    for variant in parts.variants.loaded():
        for _ in range(LOOKS):
            variant.live.tail(seq)
            if variant.live.seq >= seq:
                break
            await asyncio.sleep(LOOK_SECONDS)


def count(parts: Parts, entries: Sequence[Entry]) -> None:
    """Entries of one kind that are acknowledged."""
    parts.metrics.writes.labels(entries[0].kind).inc(len(entries))


def limit_k(settings: Settings, k: int) -> None:
    if k > settings.max_k:
        raise MalformedRequest(f"k: at most {settings.max_k} (max_k), found {k}")


def limit(settings: Settings, setting: str, what: str, found: int) -> None:
    """Raises TooLarge where `found` is over the limit that this setting is."""
    most: int = getattr(settings, setting)
    if found > most:
        raise TooLarge(f"{what}: at most {most} ({setting}), found {found}; send less")


def limit_features(settings: Settings, where: str, features: Mapping[str, Any]) -> None:
    """Raises TooLarge for too many features and for texts that are too long, MalformedRequest for
    lists that are."""
    limit(settings, "max_features", f"{where}features", len(features))
    for name, value in features.items():
        texts = value if isinstance(value, list) else [value]
        if len(texts) > MAX_VALUES:
            raise MalformedRequest(
                f"{where}values of feature '{name}': at most {MAX_VALUES}, found {len(texts)}"
            )
        longest = max((len(text) for text in texts if isinstance(text, str)), default=0)
        limit(settings, "max_text", f"{where}length of a feature's name", len(name))
        limit(settings, "max_text", f"{where}length of feature '{name}'", longest)


def json_response(body: object, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type=JSON)
