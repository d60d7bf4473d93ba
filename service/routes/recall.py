"""Recommendations, one or many at once, and the items that are like an item."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from typing import Annotated, Any, NamedTuple

import orjson
from fastapi import APIRouter, Query
from fastapi.responses import Response

from contract.attributes import Attributes
from contract.errors import FeatureError, RequestError
from service import engine, schemas
from service.answer import Answer
from service.cache import Kept
from service.conditions import Conditions, count_values, from_json, from_text
from service.examples import BATCH, RECOMMENDATION
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
from service.variants import Variant

BLENDING = frozenset(field.name for field in fields(Blend))
"""What is asked under these names goes into a Blend."""

router = APIRouter(prefix="/v1", tags=["recall"], responses=ERRORS | RECALL)


Filters = Callable[[Attributes], Conditions]
"""What a request filters by, in terms of the attributes of the bundle that will answer."""


class Wanted(NamedTuple):
    """What is asked for, for whatever user."""

    body: schemas.RecommendationRequest
    conditions: Filters


class Asked(NamedTuple):
    """A request, and who answers it."""

    variant: Variant
    user_id: str | None
    wanted: Wanted

    def recall(self, attributes: Attributes) -> Recall:
        """Raises MalformedRequest for a filter that these attributes cannot have."""
        body, conditions = self.wanted
        return Recall(
            k=body.k,
            user_id=self.user_id,
            history=body.history,
            features=body.features,
            exclude=body.exclude,
            exclude_seen=body.exclude_seen,
            include=body.include,
            category=body.category,
            conditions=conditions(attributes),
            blend=_blend(body),
        )


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
    conditions = partial(from_json, body.filters)
    asked = _asked(parts, body, conditions, pinned)
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
            asked.append(_asked(parts, request, partial(from_json, request.filters), pinned))
    answers = []
    with parts.gate.admit(len(asked), due) as turn:
        for position, one in enumerate(asked):
            await turn()
            with _named(position):
                answers.append(_answer(parts, one))
    return Response(b'{"answers":[%b]}' % b",".join(answers), media_type=JSON)


@router.get("/items/{item_id:id}/similar", response_model=schemas.SimilarItems, responses=NOT_FOUND)
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
            "items": answer.items,
            "bundle": state.snapshot.version,
            "variant": variant.name,
            "seq": variant.live.seq,
        }
    )


def wanted(query: schemas.RecommendationQuery) -> Wanted:
    given = query.model_dump(exclude_unset=True)
    filters = given.pop("filter", ())
    if "sources" in given:
        given["sources"] = dict.fromkeys(given["sources"], 1.0)
    body = schemas.RecommendationRequest.model_construct(**given)
    return Wanted(body, partial(from_text, filters))


def of_user(
    parts: Parts, user_id: str | None, wanted: Wanted, pinned: Variant | None = None
) -> Asked:
    """The one way to a recall, however its request came. Raises as the limits do."""
    _limit(parts.settings, wanted.body)
    return Asked(pinned or parts.variants.of(user_id), user_id, wanted)


async def recommend(parts: Parts, asked: Asked, due: float | None = None) -> bytes:
    """The answer, as JSON. Raises as the gate, the state and the recall do."""
    with parts.gate.admit(1, due) as turn:
        await turn()
        return _answer(parts, asked)


def _asked(
    parts: Parts,
    body: schemas.RecommendationRequest,
    conditions: Filters,
    pinned: Variant | None,
) -> Asked:
    return of_user(parts, body.user_id, Wanted(body, conditions), pinned)


def _limit(settings: Settings, body: schemas.RecommendationRequest) -> None:
    limit_k(settings, body.k)
    limit(settings, "max_history", "history", len(body.history or ()))
    limit(settings, "max_exclude", "exclude", len(body.exclude))
    limit(settings, "max_include", "include", len(body.include or ()))
    limit_features(settings, "", body.features or {})


def _answer(parts: Parts, asked: Asked) -> bytes:
    name, live = asked.variant.name, asked.variant.live
    state = live.state(asked.wanted.body.min_seq)
    recall = asked.recall(state.attributes)
    limit(parts.settings, "max_filters", "filters", count_values(recall.conditions))

    def make() -> Kept:
        answer = engine.recall(state, recall)
        _measure(parts.metrics.recalls[name], answer)
        body: dict[str, Any] = {
            "user_id": recall.user_id,
            "items": answer.items,
            "source": answer.source,
            "bundle": state.snapshot.version,
            "variant": name,
        }
        if answer.explain:
            body["explain"] = answer.explain
        return Kept(orjson.dumps(body)[:-1], answer.source)

    kept = parts.cache.find(name, state, recall, make)
    parts.metrics.recalls[name].answers[kept.source].inc()
    return b'%b,"seq":%d}' % (kept.body, live.seq)


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


def _measure(metrics: RecallMetrics, answer: Answer) -> None:
    stages = answer.stages
    metrics.encode.observe(stages.encode)
    metrics.tower.observe(stages.tower)
    metrics.search.observe(stages.search)
    metrics.merge.observe(stages.merge)
    metrics.total.observe(stages.total)
    if answer.widened:
        metrics.widened.inc()
    if answer.exact:
        metrics.exact.inc()
