"""Recommendations, one or many at once, and the items that are like an item."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Annotated, Any, NamedTuple
from urllib.parse import unquote_to_bytes

import orjson
from fastapi import APIRouter, Query
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from contract.attributes import Attributes
from contract.errors import FeatureError, Overloaded, RequestError
from service import engine, schemas
from service.answer import Answer, Source
from service.cache import Kept
from service.conditions import Conditions, count_values, from_json, from_text
from service.examples import BATCH, RECOMMENDATION
from service.listed import encoded_items
from service.metrics import RecallMetrics
from service.request import Blend, Recall
from service.routes.parts import (
    BODY,
    ERRORS,
    JSON,
    NOT_FOUND,
    NOT_YET,
    RECALL,
    TOO_LARGE,
    Answered,
    Due,
    Id,
    K,
    Parts,
    Pinned,
    Shown,
    Use,
    json_response,
    limit,
    limit_features,
    limit_k,
)
from service.settings import Settings
from service.state import State
from service.variants import Variant

BLENDING = frozenset(field.name for field in fields(Blend))
"""What is asked under these names goes into a Blend."""
PLAIN = frozenset(("user_id", "k", "exclude", "exclude_seen"))
"""Who asks for nothing else asks for the best k of the model."""

router = APIRouter(prefix="/v1", tags=["recall"], responses=ERRORS | RECALL)


Filters = Callable[[Attributes], Conditions]
"""What a request filters by, in terms of the attributes of the bundle that will answer."""


class Wanted(NamedTuple):
    """What is asked for, for whatever user."""

    body: schemas.RecommendationRequest
    conditions: Filters
    plain: bool
    """Whether nothing is asked but the best k of the model: then it is answered with others."""


class Asked(NamedTuple):
    """A request, and who answers it."""

    variant: Variant
    user_id: str | None
    wanted: Wanted

    def recall(self, attributes: Attributes) -> Recall:
        """Raises MalformedRequest for a filter that these attributes cannot have."""
        body, conditions, plain = self.wanted
        if plain:
            return Recall(
                body.k, self.user_id, exclude=body.exclude, exclude_seen=body.exclude_seen
            )
        return Recall(
            k=body.k,
            user_id=self.user_id,
            **_history(body),
            features=body.features,
            exclude=body.exclude,
            exclude_seen=body.exclude_seen,
            include=body.include,
            category=body.category,
            conditions=conditions(attributes),
            blend=_blend(body),
        )


def _history(body: schemas.RecommendationRequest) -> dict[str, Any]:
    items = body.history
    if items is None or all(isinstance(item, str) for item in items):
        return {"history": items}
    touches = [schemas.Touch(item_id=one) if isinstance(one, str) else one for one in items]
    return {
        "history": [touch.item_id for touch in touches],
        "kinds": [touch.kind for touch in touches],
    }


class Made(NamedTuple):
    """An answer as it is sent, and what it counts as."""

    body: bytes
    variant: Variant
    source: Source


class Waiting(NamedTuple):
    parts: Parts
    asked: Asked
    due: float | None


@router.get(
    "/recommendations/{user_id:id}",
    response_model=schemas.Recommendations,
    responses=NOT_YET | TOO_LARGE,
)
async def get_recommendations(
    parts: Use,
    user_id: Id,
    query: Annotated[schemas.RecommendationQuery, Query()],
    pinned: Pinned,
    due: Due,
) -> Response:
    """The k best items for a user, without those they have touched."""
    asked = of_user(parts, user_id, wanted(query), pinned)
    return Response(await recommend(parts, asked, due), media_type=JSON)


@router.post("/recommendations", response_model=schemas.Recommendations, responses=NOT_YET | BODY)
async def post_recommendations(
    parts: Use,
    body: Annotated[schemas.RecommendationRequest, RECOMMENDATION],
    pinned: Pinned,
    due: Due,
) -> Response:
    """The same with everything in the body: sessions, unknown users, a profile."""
    asked = of_body(parts, body, pinned)
    return Response(await recommend(parts, asked, due), media_type=JSON)


@router.post(
    "/recommendations:batch",
    response_model=schemas.BatchOfRecommendations,
    responses=NOT_YET | BODY,
)
async def post_batch(
    parts: Use, body: Annotated[schemas.RecommendationRequests, BATCH], pinned: Pinned, due: Due
) -> Response:
    """Many of these at once, each answered as if it came alone; all of them or none."""
    limit(parts.settings, "max_recalls", "requests", len(body.requests))
    asked = []
    for position, request in enumerate(body.requests):
        with _named(position):
            asked.append(of_body(parts, request, pinned))
    made = []
    with parts.gate.admit(len(asked), due) as turn:
        for position, one in enumerate(asked):
            await turn()
            with _named(position):
                made += _made(parts, [one])
    return Response(b'{"answers":[%b]}' % b",".join(_counted(parts, made)), media_type=JSON)


class SimilarRoute(APIRoute):
    """An id may end in `/similar` too; its slash comes encoded, that of the route does not."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        last = unquote_to_bytes(scope["raw_path"].rpartition(b"/")[2])
        return super().matches(scope) if last == b"similar" else (Match.NONE, {})


async def get_similar(parts: Use, item_id: Id, variant: Shown, due: Due, k: K = 50) -> Response:
    """The k items nearest to an item."""
    limit_k(parts.settings, k)
    with parts.gate.admit(1, due) as turn:
        await turn()
        state = variant.live.state()
        answer = engine.similar(state, item_id, k)
    return json_response(
        {
            "item_id": item_id,
            "items": encoded_items([answer])[0],
            "bundle": state.snapshot.version,
            "variant": variant.name,
            "seq": variant.live.seq,
        }
    )


router.add_api_route(
    "/items/{item_id:id}/similar",
    get_similar,
    response_model=schemas.SimilarItems,
    responses=NOT_FOUND,
    route_class_override=SimilarRoute,
)


def wanted(query: schemas.RecommendationQuery) -> Wanted:
    given = query.model_dump(exclude_unset=True)
    filters = given.pop("filter", ())
    if "sources" in given:
        given["sources"] = dict.fromkeys(given["sources"], 1.0)
    body = schemas.RecommendationRequest.model_construct(**given)
    return Wanted(body, partial(from_text, filters), not filters and given.keys() <= PLAIN)


def of_user(
    parts: Parts, user_id: str | None, wanted: Wanted, pinned: Variant | None = None
) -> Asked:
    """The one way to a recall, however its request came. Raises as the limits do."""
    _limit(parts.settings, wanted)
    return Asked(pinned or parts.variants.of(user_id), user_id, wanted)


def of_body(
    parts: Parts, body: schemas.RecommendationRequest, pinned: Variant | None = None
) -> Asked:
    """The same for what came in a body."""
    plain = body.model_fields_set <= PLAIN
    wanted = Wanted(body, partial(from_json, body.filters), plain)
    return of_user(parts, body.user_id, wanted, pinned)


async def recommend(parts: Parts, asked: Asked, due: float | None = None) -> bytes:
    """The answer, as JSON. Raises as the gate, the state and the recall do."""
    with parts.gate.admit(1):
        return await parts.rounds.join(Waiting(parts, asked, due))


def recommend_then(parts: Parts, asked: Asked, answered: Answered) -> None:
    """The same for who is no coroutine. Raises as the gate does."""
    parts.gate.enter()

    def leave(answer: bytes | Exception) -> None:
        parts.gate.leave()
        answered(answer)

    parts.rounds.ask(Waiting(parts, asked, None), leave)


def answer_round(waiting: Sequence[Waiting]) -> list[bytes | Exception]:
    """What each is answered, or why it is not: the plain ones of a variant together."""
    answers: dict[int, bytes | Exception] = {}
    groups = defaultdict[int, list[int]](list)
    for at, (parts, asked, due) in enumerate(waiting):
        try:
            parts.gate.require_in_time(due)
        except Overloaded as error:
            answers[at] = error
        else:
            groups[id(asked.variant.live) if asked.wanted.plain else at].append(at)
    for group in groups.values():
        parts = waiting[group[0]].parts
        try:
            made = _made(parts, [waiting[at].asked for at in group])
            answers |= zip(group, _counted(parts, made), strict=True)
        except Exception as error:
            answers |= dict.fromkeys(group, error)
    return [answers[at] for at in range(len(waiting))]


def _limit(settings: Settings, wanted: Wanted) -> None:
    body = wanted.body
    limit_k(settings, body.k)
    limit(settings, "max_exclude", "exclude", len(body.exclude))
    if wanted.plain:
        return
    limit(settings, "max_history", "history", len(body.history or ()))
    limit(settings, "max_include", "include", len(body.include or ()))
    limit_features(settings, "", body.features or {})


def _made(parts: Parts, asked: Sequence[Asked]) -> list[Made]:
    """The answer to one request, or to several plain ones of one variant."""
    variant = asked[0].variant
    name, live = variant.name, variant.live
    state = live.state(asked[0].wanted.body.min_seq)
    recalls = [one.recall(state.attributes) for one in asked]
    for recall in recalls:
        if recall.conditions:
            limit(parts.settings, "max_filters", "filters", count_values(recall.conditions))
    make = partial(_recalled, parts, name, state)
    kept = parts.cache.find(name, state, recalls, make)
    return [
        Made(b'%b,"seq":%d}' % (found.body, live.seq), one.variant, found.source)
        for one, found in zip(asked, kept, strict=True)
    ]


def _counted(parts: Parts, made: Sequence[Made]) -> list[bytes]:
    """The bodies of answers that are sent: what clients do not get is not counted."""
    counted = [(one.variant, one.source) for one in made]
    for variant, source in set(counted):
        times = counted.count((variant, source))
        parts.metrics.recalls[variant.name].answers[source].inc(times)
        if variant.stands_in_for is not None:
            parts.metrics.stand_ins.labels(variant.stands_in_for).inc(times)
    return [one.body for one in made]


def _recalled(parts: Parts, variant: str, state: State, recalls: Sequence[Recall]) -> list[Kept]:
    several = len(recalls) > 1
    answers = engine.recall_each(state, recalls) if several else [engine.recall(state, *recalls)]
    _measure(parts.metrics.recalls[variant], answers)
    for recall, answer in zip(recalls, answers, strict=True):
        parts.recheck.look(variant, state, recall, answer)
    return [
        Kept(_body(variant, state, recall, answer, items), answer.source)
        for recall, answer, items in zip(recalls, answers, encoded_items(answers), strict=True)
    ]


def _body(variant: str, state: State, recall: Recall, answer: Answer, items: object) -> bytes:
    body: dict[str, Any] = {
        "user_id": recall.user_id,
        "items": items,
        "source": answer.source,
        "bundle": state.snapshot.version,
        "variant": variant,
    }
    if answer.explain:
        body["explain"] = answer.explain
    return orjson.dumps(body)[:-1]


def _blend(body: schemas.RecommendationRequest) -> Blend | None:
    """None where nothing is asked but the best k of the model: the common request pays nothing."""
    asked = body.model_fields_set & BLENDING
    if not asked:
        return None
    given = {name: getattr(body, name) for name in asked}
    return Blend(**given | {"sources": body.sources or {"model": 1.0}})


@contextmanager
def _named(position: int) -> Iterator[None]:
    """Says which request of a batch was wrong."""
    try:
        yield
    except (RequestError, FeatureError) as error:
        raise type(error)(f"requests.{position}: {error}") from error


def _measure(metrics: RecallMetrics, answers: Sequence[Answer]) -> None:
    for stages, alike in groupby(answers, attrgetter("stages")):
        metrics.observe(stages, len(list(alike)))
    if widened := sum([answer.widened for answer in answers]):
        metrics.widened.inc(widened)
    if exact := sum([answer.exact for answer in answers]):
        metrics.exact.inc(exact)
