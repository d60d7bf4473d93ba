"""Recommendations, and the items that are like an item."""

from dataclasses import fields
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response

from service import engine, schemas
from service.answer import Answer
from service.examples import RECOMMENDATION
from service.metrics import Metrics
from service.request import Blend, Recall
from service.routes.parts import ERRORS, NOT_FOUND, Id, K, Parts, Use, json_response, limit, limit_k

BLENDING = frozenset(field.name for field in fields(Blend))
"""What is asked under these names goes into a Blend."""

router = APIRouter(prefix="/v1", tags=["recall"], responses=ERRORS)


@router.get("/recommendations/{user_id:path}", response_model=schemas.Recommendations)
async def get_recommendations(
    parts: Use,
    user_id: Id,
    query: Annotated[schemas.RecommendationQuery, Query()],
) -> Response:
    """The k best items for a user, without those they have touched."""
    wanted = Recall(
        k=query.k,
        user_id=user_id,
        exclude=query.exclude,
        category=query.category,
        blend=_blend(query),
    )
    return _recommend(parts, wanted, query.min_seq)


@router.post("/recommendations", response_model=schemas.Recommendations)
async def post_recommendations(
    parts: Use, body: Annotated[schemas.RecommendationRequest, RECOMMENDATION]
) -> Response:
    """The same with everything in the body: sessions, unknown users, a profile."""
    wanted = Recall(
        k=body.k,
        user_id=body.user_id,
        history=body.history,
        features=body.features,
        exclude=body.exclude,
        category=body.category,
        blend=_blend(body),
    )
    return _recommend(parts, wanted, body.min_seq)


@router.get(
    "/items/{item_id:path}/similar", response_model=schemas.SimilarItems, responses=NOT_FOUND
)
async def get_similar(parts: Use, item_id: Id, k: K = 50) -> Response:
    """The k items nearest to an item."""
    limit_k(parts, k)
    state = parts.live.state()
    answer = engine.similar(state, item_id, k)
    return json_response(
        {
            "item_id": item_id,
            "items": answer.items,
            "bundle": state.snapshot.version,
            "seq": parts.live.seq,
        }
    )


def _recommend(parts: Parts, wanted: Recall, min_seq: int) -> Response:
    limit_k(parts, wanted.k)
    limit("history", len(wanted.history or ()), parts.settings.max_history)
    limit("exclude", len(wanted.exclude), parts.settings.max_exclude)
    state = parts.live.state(min_seq)
    answer = engine.recall(state, wanted)
    _measure(parts.metrics, answer)
    body: dict[str, Any] = {
        "user_id": wanted.user_id,
        "items": answer.items,
        "source": answer.source,
        "bundle": state.snapshot.version,
        "variant": parts.settings.channel,
        "seq": parts.live.seq,
    }
    if answer.explain:
        body["explain"] = answer.explain
    return json_response(body)


def _blend(asked: schemas.RecommendationQuery | schemas.RecommendationRequest) -> Blend | None:
    """None where nothing is asked but the best k of the model: the common request pays nothing."""
    if not asked.model_fields_set & BLENDING:
        return None
    weights = (
        asked.sources if isinstance(asked.sources, dict) else dict.fromkeys(asked.sources, 1.0)
    )
    return Blend(
        sources=weights or {"model": 1.0},
        **{name: getattr(asked, name) for name in BLENDING - {"sources"}},
    )


def _measure(metrics: Metrics, answer: Answer) -> None:
    stages = answer.stages
    metrics.stage_seconds.labels("encode").observe(stages.encode)
    metrics.stage_seconds.labels("tower").observe(stages.tower)
    metrics.stage_seconds.labels("search").observe(stages.search)
    metrics.stage_seconds.labels("merge").observe(stages.merge)
    metrics.recall_seconds.observe(stages.total)
    metrics.answers.labels(answer.source).inc()
    if answer.widened:
        metrics.widened.inc()
